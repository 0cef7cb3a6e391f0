"""What TFDS builders of frames share: writing and reading back."""

import abc
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.cache import file_identity
from chemscale_jax.data.frames import rmd17
from chemscale_jax.data.frames.source import TEST, TRAIN, FrameSource
from chemscale_jax.data.frames.wrapped import WrappedSource
from chemscale_jax.data.tfds_download import FileBuilder


class FramesBuilder(FileBuilder, abc.ABC, skip_registration=True):
    """Frames with energies and forces, in eV, eV/angstrom and angstrom."""

    @abc.abstractmethod
    def describe(self) -> str:
        """A sentence on what the frames are."""

    @abc.abstractmethod
    def open_source(self, path: pathlib.Path) -> FrameSource:
        """The records of the file."""

    def _info(self) -> tfds.core.DatasetInfo:
        vectors = tfds.features.Tensor(shape=(None, 3), dtype=np.float32)
        features = {
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
        return self.info_of(self.describe(), features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        source = self.open_source(self.local_file(dl_manager))
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

    Any TFDS data set with the entries of `chemscale_jax.data.frames.wrapped` will do,
    in ArrayRecord format and with one prepared version below the folder. A split named
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
            "chemscale_jax.data.frames.tfds_ani1x.prepare(DIR)"
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
