"""The table of computed properties that the package makes by itself."""

import pathlib

from chemscale_jax.chem.drug_properties import drug_table
from chemscale_jax.chem.drugs import DRUGS_CSV
from chemscale_jax.data.cache import derived_folder

FILE = "drug_properties.csv"
# Of what the table holds; another one is made anew.
_VERSION = 1


def embedded_properties() -> pathlib.Path:
    """A csv of small drugs with their logP and QED, kept in the cache."""

    def fill(folder: pathlib.Path) -> None:
        (folder / FILE).write_text(drug_table(), encoding="utf-8")

    key = {"version": _VERSION, "bytes": DRUGS_CSV.stat().st_size}
    return derived_folder("drug-properties", key, fill) / FILE
