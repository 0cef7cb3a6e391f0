"""MOSES, two million lead-like molecules with a split by scaffold, as a TFDS data set.

Neither preparing nor reading needs TensorFlow::

    from chemscale_jax.data.text import tfds_moses
    tfds_moses.prepare("/data/tfds")  # downloads the file
    tfds_moses.prepare("/data/tfds", file="dataset_v1.csv")  # uses a copy

    chemscale tokenize /data/tfds/moses --split=train --out=moses.tokens

The splits "train", "test" and "test_scaffolds" are those of the column SPLIT. Address,
size and checksum are those of the benchmark's own repository, which keeps the file in
Git LFS (commit a3866ff).
"""

import os

import tensorflow_datasets as tfds

from chemscale_jax.data import tfds_download
from chemscale_jax.data.text import tfds_text
from chemscale_jax.data.text.tfds_text import local_copy, open_prepared
from chemscale_jax.data.tfds_download import FileConfig

__all__ = ("Moses", "open_prepared", "prepare")

OFFICIAL = FileConfig(
    name="dataset_v1",
    url=(
        "https://media.githubusercontent.com/media/molecularsets/moses/master/data/"
        "dataset_v1.csv"
    ),
    size=84_482_588,
    sha256="bb47a94d347afd476d3828b5e26dceeabc42a2d8cf92a791d00349f22fea0d8b",
)

_CITATION = """\
@article{polykovskiy2020molecular,
  author = {Polykovskiy, Daniil and others},
  title = {Molecular Sets ({MOSES}): a benchmarking platform for molecular generation
    models},
  journal = {Frontiers in Pharmacology},
  volume = {11},
  pages = {565644},
  year = {2020},
}"""


class Moses(tfds_text.TextBuilder):
    """SMILES of the benchmark MOSES, by split."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012
    BUILDER_CONFIGS = [OFFICIAL]  # noqa: RUF012
    file_name = "dataset_v1.csv"
    homepage = "https://github.com/molecularsets/moses"
    citation = _CITATION
    text = "Lead-like molecules of ZINC, filtered for the benchmark MOSES."
    split_column = "SPLIT"


def prepare(data_dir: str | os.PathLike, *, file: str | os.PathLike = "") -> Moses:
    """Writes the lines of each split below ``data_dir``, once.

    Args:
        data_dir: a folder with room for the download and what is written.
        file: a copy of the file; one of another name, such as a packed or a smaller
            one, is not held against the checksum.

    Raises:
        UserError: the download fails, or the file is not the expected one.
    """
    config: FileConfig | str = OFFICIAL.name
    if file:
        config = local_copy(OFFICIAL, file, Moses.file_name)
    return tfds_download.prepare(
        Moses(config=config, data_dir=str(data_dir), file_format="array_record")
    )
