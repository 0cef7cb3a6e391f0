"""PubChem10M, the ten million SMILES of ChemBERTa and ChemGPT, as a TFDS data set.

Neither preparing nor reading needs TensorFlow::

    from chemscale_jax.data.text import tfds_pubchem10m
    tfds_pubchem10m.prepare("/data/tfds")  # downloads the file
    tfds_pubchem10m.prepare("/data/tfds", file="pubchem_10m.txt.zip")  # uses a copy

    chemscale tokenize /data/tfds/pubchem10m --out=pubchem10m.tokens

The file can also be tokenised as it is. Its publisher gives no checksum, and none is
known from elsewhere, so none is asked for; whoever knows one can give it::

    tfds_pubchem10m.prepare("/data/tfds", sha256=..., size=...)
"""

import dataclasses
import os

import tensorflow_datasets as tfds

from chemscale_jax.data import tfds_download
from chemscale_jax.data.text import tfds_text
from chemscale_jax.data.text.tfds_text import local_copy, open_prepared
from chemscale_jax.data.tfds_download import FileConfig

__all__ = ("Pubchem10m", "open_prepared", "prepare")

DOWNLOAD_URL = (
    "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/pubchem_10m.txt.zip"
)

OFFICIAL = FileConfig(name="pubchem_10m", url=DOWNLOAD_URL)

_CITATION = """\
@article{chithrananda2020chemberta,
  author = {Chithrananda, Seyone and Grand, Gabriel and Ramsundar, Bharath},
  title = {{ChemBERTa}: large-scale self-supervised pretraining for molecular property
    prediction},
  journal = {arXiv:2010.09885},
  year = {2020},
}"""


class Pubchem10m(tfds_text.TextBuilder):
    """SMILES of ten million molecules of PubChem."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012
    BUILDER_CONFIGS = [OFFICIAL]  # noqa: RUF012
    file_name = "pubchem_10m.txt.zip"
    homepage = "https://arxiv.org/abs/2010.09885"
    citation = _CITATION
    text = "SMILES of ten million molecules of PubChem, drawn at random for ChemBERTa."


def prepare(
    data_dir: str | os.PathLike,
    *,
    file: str | os.PathLike = "",
    sha256: str = "",
    size: int = 0,
) -> Pubchem10m:
    """Writes the lines below ``data_dir``, once.

    Args:
        data_dir: a folder with room for the download and what is written.
        file: a copy of the file, or another text file of molecules.
        sha256: checksum of the official file, if it is to be held against one.
        size: its size in bytes, for the same.

    Raises:
        UserError: the download fails, or the file is not the expected one.
    """
    config: FileConfig | str = OFFICIAL.name
    checked = dataclasses.replace(
        OFFICIAL, name=f"{OFFICIAL.name}_checked", sha256=sha256, size=size
    )
    if sha256:
        config = checked
    if file:
        config = local_copy(checked, file, Pubchem10m.file_name)
    return tfds_download.prepare(
        Pubchem10m(config=config, data_dir=str(data_dir), file_format="array_record")
    )
