"""What TFDS builders of frames share: checked downloads, writing, reading back.

Neither preparing nor reading needs TensorFlow.
"""

import abc
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.download.download_manager import (
    NonMatchingChecksumError,
)
from tensorflow_datasets.core.units import Size

from chemscale_jax.core.errors import UserError
from chemscale_jax.data import rmd17
from chemscale_jax.data.cache import file_identity
from chemscale_jax.data.source import TEST, TRAIN, FrameSource
from chemscale_jax.data.wrapped import WrappedSource


@dataclasses.dataclass
class FramesConfig(tfds.core.BuilderConfig):
    """Where the records of a data set come from.

    Attributes:
        name: names the folder of the prepared data set.
        url: address of the file.
        size: its size in bytes.
        sha256: its checksum; empty to accept any file.
        path: a copy of the file on this machine; empty to download it.
    """

    url: str = ""
    size: int = 0
    sha256: str = ""
    path: str = ""


class FramesBuilder(tfds.core.GeneratorBasedBuilder, abc.ABC, skip_registration=True):
    """Frames with energies and forces, in eV, eV/angstrom and angstrom."""

    file_name: str  # of the download
    homepage: str
    citation: str
    hint: str  # how to get the file by other means

    @abc.abstractmethod
    def describe(self) -> str:
        """A sentence on what the frames are."""

    @abc.abstractmethod
    def open_source(self, path: pathlib.Path) -> FrameSource:
        """The records of the file."""

    @property
    def frames_config(self) -> Any:
        """The builder's config, which is a `FramesConfig`."""
        assert isinstance(self.builder_config, FramesConfig)
        return self.builder_config

    @property
    def url_infos(self) -> dict[str, Any] | None:
        """The checksum that a download is held against."""
        config = self.frames_config
        if not config.sha256:
            return None
        info = UrlInfo(
            size=Size(config.size), checksum=config.sha256, filename=self.file_name
        )
        return {config.url: info}

    def _info(self) -> tfds.core.DatasetInfo:
        vectors = tfds.features.Tensor(shape=(None, 3), dtype=np.float32)
        features = tfds.features.FeaturesDict(
            {
                "species": tfds.features.Tensor(shape=(None,), dtype=np.uint8),
                "positions": vectors,
                # As bytes: TFDS rounds other float64 values to float32.
                "energy": tfds.features.Tensor(
                    shape=(), dtype=np.float64, encoding=tfds.features.Encoding.BYTES
                ),
                "forces": vectors,
                "molecule": tfds.features.Text(),
                "id": tfds.features.Text(),
            }
        )
        return self.dataset_info_from_configs(
            description=self.describe(),
            features=features,
            homepage=self.homepage,
            citation=self.citation,
            # The stream shuffles; in the order of the file, reading is fastest.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        config = self.frames_config
        path = pathlib.Path(config.path or dl_manager.download(config.url))
        if not config.path:
            # TFDS gives downloads names of its own, without the ending.
            named = path.with_name(f"{path.name}-{self.file_name}")
            named.unlink(missing_ok=True)
            named.symlink_to(path.name)
            path = named
        source = self.open_source(path)
        if source.given_split is None:
            return {"train": self._generate_examples(source, None)}
        return {
            "train": self._generate_examples(source, TRAIN),
            "test": self._generate_examples(source, TEST),
        }

    def _generate_examples(
        self, source: FrameSource, part: int | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(len(source)):
            if source.given_split is not None and source.given_split[index] != part:
                continue
            record = source[index]
            yield (
                index,
                {
                    "species": record.species,
                    "positions": record.positions,
                    "energy": record.energy,
                    "forces": record.forces,
                    "molecule": source.group_names[source.group[index]],
                    "id": record.id,
                },
            )


_Builder = TypeVar("_Builder", bound=FramesBuilder)


def prepare(builder: _Builder) -> _Builder:
    """Downloads the file of a builder and writes its frames, unless they are there.

    Raises:
        UserError: the download fails or is not the expected file.
    """
    address = builder.frames_config.url
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except NonMatchingChecksumError as error:
        raise UserError(
            f"what {address} sent is not the expected file: "
            + " ".join(str(error).split())
        ) from error
    except (OSError, tfds.download.DownloadError) as error:
        raise UserError(
            f"cannot download {address} ({error}): check the connection, or "
            f"{builder.hint}"
        ) from error
    return builder


class PreparedSource(WrappedSource):
    """Records of a prepared data set; its test split, if any, is the given one."""

    def __init__(
        self, train: Any, test: Any, name: str, identity: Mapping[str, Any] | None
    ):
        super().__init__(_Joined(train, test), name, identity)
        if test is not None:
            is_train = self._position < len(train)
            self.given_split = np.where(is_train, TRAIN, TEST).astype(np.int8)


class _Joined:
    """Two data sources one after the other."""

    def __init__(self, first: Any, second: Any):
        self._first = first
        self._second = [] if second is None else second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, index: Any, /) -> Mapping[str, Any]:
        n = len(self._first)
        return self._first[index] if index < n else self._second[index - n]


def open_prepared(data_dir: str | os.PathLike) -> PreparedSource:
    """The records of a data set that TFDS wrote below ``data_dir``.

    Any TFDS data set with the entries of `chemscale_jax.data.wrapped` will do, in
    ArrayRecord format and with one prepared version below the folder. A split named
    test becomes the test part of the given split.

    Raises:
        UserError: nothing, or more than one data set, is there.
    """
    root = pathlib.Path(data_dir).expanduser()
    found = sorted(root.rglob("dataset_info.json")) if str(data_dir) else []
    if len(found) != 1:
        names = ", ".join(str(p.parent) for p in found) or "none"
        raise UserError(
            f"config.data.path={str(data_dir)!r} must hold one prepared TFDS data set, "
            f"found {names}: name its folder, or make one with "
            "chemscale_jax.data.tfds_ani1x.prepare(DIR)"
        )
    folder = found[0].parent
    builder: Any = tfds.builder_from_directory(str(folder))
    try:
        train = builder.as_data_source(split="train")
        has_test = "test" in builder.info.splits
        test = builder.as_data_source(split="test") if has_test else None
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"{folder} cannot be read by number ({error}): prepare it with "
            "file_format='array_record' and a split named train"
        ) from error
    source = PreparedSource(train, test, str(folder), {"tfds": file_identity(found[0])})
    if builder.name == "rmd17":
        source.largest_train = rmd17.LARGEST_TRAIN
    return source
