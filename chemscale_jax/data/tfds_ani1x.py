"""ANI-1x as a TFDS data set: download, check, write ArrayRecord; read it back.

Neither preparing nor reading needs TensorFlow::

    from chemscale_jax.data import tfds_ani1x
    tfds_ani1x.prepare("/data/tfds")  # downloads 5.6 GB

    python -m chemscale_jax.main --config=configs/painn_ani1x.py:full \
        --config.data.source=tfds --config.data.path=/data/tfds
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.download.download_manager import (
    NonMatchingChecksumError,
)
from tensorflow_datasets.core.units import Size

from chemscale_jax.core.errors import UserError
from chemscale_jax.data import ani1x_layout
from chemscale_jax.data.ani1x import Ani1xSource
from chemscale_jax.data.cache import file_identity
from chemscale_jax.data.wrapped import WrappedSource

# Of ani1x-release.h5, version 1 of figshare article 10047041: not seen here, but
# recorded alike by several projects that pin the file.
RELEASE_BYTES = 5_590_846_027
RELEASE_SHA256 = "fe0ba06198ee72cf1003deebab2652097f6ab518337784dc811fa7da0c3bf5ac"

_CITATION = """\
@article{smith2020ani1x,
  author = {Smith, Justin S. and Zubatyuk, Roman and Nebgen, Benjamin and
    Lubbers, Nicholas and Barros, Kipton and Roitberg, Adrian E. and
    Isayev, Olexandr and Tretiak, Sergei},
  title = {The {ANI-1ccx} and {ANI-1x} data sets, coupled-cluster and density
    functional theory properties for molecules},
  journal = {Scientific Data},
  volume = {7},
  pages = {134},
  year = {2020},
}"""


@dataclasses.dataclass
class Ani1xConfig(tfds.core.BuilderConfig):
    """One label set of one file.

    Attributes:
        name: names the folder of the prepared data set.
        labels: method of the energies and forces.
        url: address of the HDF5 file.
        size: its size in bytes.
        sha256: its checksum; empty to accept any file.
    """

    labels: str = "wb97x_dz"
    url: str = ani1x_layout.DOWNLOAD_URL
    size: int = RELEASE_BYTES
    sha256: str = RELEASE_SHA256


class Ani1x(tfds.core.GeneratorBasedBuilder):
    """Frames of ANI-1x with energies and forces, in eV, eV/angstrom and angstrom."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012
    BUILDER_CONFIGS = [  # noqa: RUF012
        Ani1xConfig(name="wb97x_dz", labels="wb97x_dz"),
        Ani1xConfig(name="wb97x_tz", labels="wb97x_tz"),
    ]

    @property
    def url_infos(self) -> dict[str, Any] | None:
        """The checksum that a download is held against."""
        config = self._config
        if not config.sha256:
            return None
        info = UrlInfo(
            size=Size(config.size),
            checksum=config.sha256,
            filename="ani1x-release.h5",
        )
        return {config.url: info}

    @property
    def _config(self) -> Ani1xConfig:
        config = self.builder_config
        assert isinstance(config, Ani1xConfig)
        return config

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
            description="Conformers of organic molecules of H, C, N and O with "
            f"energies and forces ({self._config.labels}); eV, angstrom.",
            features=features,
            homepage="https://doi.org/10.6084/m9.figshare.c.4712477",
            citation=_CITATION,
            # The stream shuffles; in the order of the file, reading is fastest.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        path = dl_manager.download(self._config.url)
        return {"train": self._generate_examples(path)}

    def _generate_examples(
        self, path: str | os.PathLike
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        source = Ani1xSource(str(path), self._config.labels)
        for index in range(len(source)):
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


def prepare(data_dir: str | os.PathLike, config: Ani1xConfig | None = None) -> Ani1x:
    """Downloads ANI-1x and writes it below ``data_dir``, unless it is there already.

    Args:
        data_dir: a folder with room for the download and as much again.
        config: another file or label set than the release's wb97x_dz.

    Raises:
        UserError: the download fails or is not the expected file.
    """
    builder = Ani1x(
        config=config or "wb97x_dz", data_dir=str(data_dir), file_format="array_record"
    )
    address = builder._config.url
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
            f"{ani1x_layout.DOWNLOAD_HINT}"
        ) from error
    return builder


def open_prepared(data_dir: str | os.PathLike) -> WrappedSource:
    """The records of a data set that TFDS wrote below ``data_dir``.

    Any TFDS data set with the entries of `chemscale_jax.data.wrapped` will do, in
    ArrayRecord format and with one prepared version below the folder.

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
    builder: Any = tfds.builder_from_directory(str(found[0].parent))
    try:
        data = builder.as_data_source(split="train")
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"{found[0].parent} cannot be read by number ({error}): prepare it with "
            "file_format='array_record' and a split named train"
        ) from error
    return WrappedSource(data, str(found[0].parent), {"tfds": file_identity(found[0])})
