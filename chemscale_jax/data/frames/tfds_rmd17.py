"""Revised MD-17 as TFDS data sets, one per molecule and official split.

Neither preparing nor reading needs TensorFlow::

    from chemscale_jax.data.frames import tfds_rmd17
    tfds_rmd17.prepare("/data/tfds", "ethanol")  # downloads the archive
    tfds_rmd17.prepare("/data/tfds", "ethanol", archive="rmd17.tar.bz2")  # uses a copy

    python -m chemscale_jax.main --config=configs/painn_ani1x.py \
        --config.data.source=tfds --config.data.path=/data/tfds

The splits "train" and "test" are those of the makers; other frames are left out.
"""

import dataclasses
import os
import pathlib

import tensorflow_datasets as tfds

from chemscale_jax.core.errors import UserError
from chemscale_jax.data import tfds_download
from chemscale_jax.data.frames import tfds_frames
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.rmd17 import open_rmd17
from chemscale_jax.data.frames.tfds_frames import open_prepared

__all__ = ("Rmd17", "Rmd17Config", "open_prepared", "prepare")

MOLECULES = (
    *("aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde", "naphthalene"),
    *("paracetamol", "salicylic", "toluene", "uracil"),
)
# Version 1 of figshare article 12672038.
DOWNLOAD_URL = "https://ndownloader.figshare.com/files/23950376"

_CITATION = """\
@article{christensen2020role,
  author = {Christensen, Anders S. and von Lilienfeld, O. Anatole},
  title = {On the role of gradients for machine learning of molecular energies and
    forces},
  journal = {Machine Learning: Science and Technology},
  volume = {1},
  pages = {045018},
  year = {2020},
}"""


@dataclasses.dataclass
class Rmd17Config(tfds_download.FileConfig):
    """One molecule and one official split of an archive of the release.

    The archive's checksum is not known here, so none is asked for by default.

    Attributes:
        molecule: such as "ethanol".
        split_index: which official split, 1 to 5.
    """

    molecule: str = "ethanol"
    split_index: int = 1
    url: str = DOWNLOAD_URL


class Rmd17(tfds_frames.FramesBuilder):
    """Frames of revised MD-17 with energies and forces, in eV and angstrom."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012
    BUILDER_CONFIGS = [  # noqa: RUF012
        Rmd17Config(name=f"{molecule}_0{number}", molecule=molecule, split_index=number)
        for molecule in MOLECULES
        for number in range(1, 6)
    ]
    file_name = "rmd17.tar.bz2"
    homepage = "https://doi.org/10.6084/m9.figshare.12672038"
    citation = _CITATION
    hint = (
        f"fetch rmd17.tar.bz2 of {homepage} by other means and name it with "
        "prepare(DIR, MOLECULE, archive=FILE)"
    )

    def describe(self) -> str:
        """A sentence on what the frames are."""
        config = self.file_config
        return (
            f"Frames of a molecular dynamics run of {config.molecule} with "
            "PBE/def2-SVP energies and forces, official split "
            f"{config.split_index}; eV, angstrom."
        )

    def open_source(self, path: pathlib.Path) -> ConvertedSource:
        """The records of the archive."""
        config = self.file_config
        return open_rmd17(path, config.molecule, config.split_index)


def prepare(
    data_dir: str | os.PathLike,
    molecule: str,
    split_index: int = 1,
    *,
    archive: str | os.PathLike = "",
    config: Rmd17Config | None = None,
) -> Rmd17:
    """Writes one molecule's train and test frames below ``data_dir``, once.

    Args:
        data_dir: a folder with room for the download and what is written.
        molecule: one of ``MOLECULES``.
        split_index: which official split, 1 to 5.
        archive: the archive or its unpacked folder, where it is there already.
        config: another file than the release's; the arguments before are not used.

    Raises:
        UserError: the molecule or split is unknown, the download fails, or the file is
            not the expected one.
    """
    if config is None and (molecule not in MOLECULES or split_index not in range(1, 6)):
        raise UserError(
            f"revised MD-17 has no molecule {molecule!r} with split {split_index}: use "
            f"one of {', '.join(MOLECULES)} and 1 to 5"
        )
    chosen: Rmd17Config | str = config or f"{molecule}_0{split_index}"
    if config is None and archive:
        chosen = Rmd17Config(
            name=f"{molecule}_0{split_index}_local",
            molecule=molecule,
            split_index=split_index,
            path=str(pathlib.Path(archive).expanduser().absolute()),
        )
    return tfds_download.prepare(
        Rmd17(config=chosen, data_dir=str(data_dir), file_format="array_record")
    )
