"""ANI-1x as a TFDS data set: download, check, write ArrayRecord; read it back.

Neither preparing nor reading needs TensorFlow::

    from chemscale_jax.data.frames import tfds_ani1x
    tfds_ani1x.prepare("/data/tfds")  # downloads 5.6 GB

    python -m chemscale_jax.main --config=configs/painn_ani1x.py:full \
        --config.data.source=tfds --config.data.path=/data/tfds
"""

import dataclasses
import os
import pathlib

import tensorflow_datasets as tfds

from chemscale_jax.data import tfds_download
from chemscale_jax.data.frames import ani1x_layout, tfds_frames
from chemscale_jax.data.frames.ani1x import Ani1xSource
from chemscale_jax.data.frames.tfds_frames import open_prepared

__all__ = ("Ani1x", "Ani1xConfig", "open_prepared", "prepare")

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
class Ani1xConfig(tfds_download.FileConfig):
    """One label set of one file, by default of the release.

    Attributes:
        labels: method of the energies and forces.
    """

    labels: str = "wb97x_dz"
    url: str = ani1x_layout.DOWNLOAD_URL
    size: int = RELEASE_BYTES
    sha256: str = RELEASE_SHA256


class Ani1x(tfds_frames.FramesBuilder):
    """Frames of ANI-1x with energies and forces, in eV, eV/angstrom and angstrom."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012
    BUILDER_CONFIGS = [  # noqa: RUF012
        Ani1xConfig(name="wb97x_dz", labels="wb97x_dz"),
        Ani1xConfig(name="wb97x_tz", labels="wb97x_tz"),
    ]
    file_name = "ani1x-release.h5"
    homepage = "https://doi.org/10.6084/m9.figshare.c.4712477"
    citation = _CITATION
    hint = ani1x_layout.DOWNLOAD_HINT

    def describe(self) -> str:
        """A sentence on what the frames are."""
        return (
            "Conformers of organic molecules of H, C, N and O with energies and forces "
            f"({self.file_config.labels}); eV, angstrom."
        )

    def open_source(self, path: pathlib.Path) -> Ani1xSource:
        """The records of the file."""
        return Ani1xSource(str(path), self.file_config.labels)


def prepare(data_dir: str | os.PathLike, config: Ani1xConfig | None = None) -> Ani1x:
    """Downloads ANI-1x and writes it below ``data_dir``, unless it is there already.

    Args:
        data_dir: a folder with room for the download and as much again.
        config: another file or label set than the release's wb97x_dz.

    Raises:
        UserError: the download fails or is not the expected file.
    """
    return tfds_download.prepare(
        Ani1x(
            config=config or "wb97x_dz",
            data_dir=str(data_dir),
            file_format="array_record",
        )
    )
