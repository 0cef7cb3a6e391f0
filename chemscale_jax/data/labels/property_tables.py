"""Known tables of properties: which columns of the official files hold what."""

from collections.abc import Sequence
from typing import NamedTuple

from chemscale_jax.core.errors import UserError


class PropertyTable(NamedTuple):
    """A data set.

    Attributes:
        title: its name.
        files: alternatives, since authors and collections call columns differently.
        kind: of all targets, see `core.property_predictions.KINDS`.
    """

    title: str
    files: tuple["Columns", ...]
    kind: str


class Columns(NamedTuple):
    """Columns of one file.

    Attributes:
        file: its usual name.
        smiles: column of the SMILES.
        targets: columns of the labels.
        units: one for each, or one of all.
    """

    file: str
    smiles: str
    targets: tuple[str, ...]
    units: tuple[str, ...]


_TOX21 = (
    *("NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD"),
    *("NR-PPAR-gamma", "SR-ARE", "SR-ATAD5", "SR-HSE", "SR-MMP", "SR-p53"),
)
_BIOGEN = {
    "LOG HLM_CLint (mL/min/kg)": "log10(mL/min/kg)",
    "LOG RLM_CLint (mL/min/kg)": "log10(mL/min/kg)",
    "LOG MDR1-MDCK ER (B-A/A-B)": "log10(ratio)",
    "LOG SOLUBILITY PH 6.8 (ug/mL)": "log10(ug/mL)",
    "LOG PLASMA PROTEIN BINDING (HUMAN) (% unbound)": "log10(% unbound)",
    "LOG PLASMA PROTEIN BINDING (RAT) (% unbound)": "log10(% unbound)",
}
PROPERTY_TABLES = {
    "freesolv": PropertyTable(
        "FreeSolv",
        (Columns("SAMPL.csv", "smiles", ("expt",), ("kcal/mol",)),),
        "regression",
    ),
    "esol": PropertyTable(
        "ESOL",
        (
            Columns(
                "delaney-processed.csv",
                "smiles",
                ("measured log solubility in mols per litre",),
                ("log10(mol/L)",),
            ),
        ),
        "regression",
    ),
    "lipophilicity": PropertyTable(
        "Lipophilicity",
        (Columns("Lipophilicity.csv", "smiles", ("exp",), ("log10(ratio)",)),),
        "regression",
    ),
    "tox21": PropertyTable(
        "Tox21", (Columns("tox21.csv.gz", "smiles", _TOX21, ("",)),), "binary"
    ),
    "biogen": PropertyTable(
        "Biogen ADME",
        (
            Columns(
                "ADME_public_set_3521.csv",
                "SMILES",
                (*_BIOGEN,),
                (*_BIOGEN.values(),),
            ),
            Columns("ADME_HLM_train.csv", "smiles", ("activity",), ("log10",)),
        ),
        "regression",
    ),
}


def columns_of(name: str, found: Sequence[str]) -> Columns:
    """The columns of a known data set in a file.

    Args:
        name: an entry of `PROPERTY_TABLES`.
        found: names of the file's columns.

    Raises:
        UserError: the file has none of the sets of columns.
    """
    table = PROPERTY_TABLES[name]
    for columns in table.files:
        if {columns.smiles, *columns.targets} <= set(found):
            return columns
    first = table.files[0]
    lacking = [c for c in (first.smiles, *first.targets) if c not in found]
    raise UserError(
        f"{table.title} ({first.file}) has {', '.join(map(repr, lacking))}, which the "
        f"input lacks; its columns are {', '.join(map(repr, found))}. Give the "
        "official file, or --targets instead of --data"
    )
