"""The named molecules of the embedded data set, and which of them are held out."""

import csv
import dataclasses
import hashlib
import pathlib

from rdkit import Chem
from rdkit.rdBase import BlockLogs

MOLECULES_CSV = pathlib.Path(__file__).with_name("molecules.csv")
# Of 1000 molecules, how many are kept from training by their hash.
HELD_OUT_PER_MILLE = 160


@dataclasses.dataclass(frozen=True)
class Molecule:
    """A compound: its common name and its canonical SMILES."""

    name: str
    smiles: str


def canonical_smiles(smiles: str) -> str:
    """RDKit's canonical form of a SMILES string.

    Raises:
        ValueError: RDKit cannot read it.
    """
    with BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or not smiles:
        raise ValueError(f"{smiles!r} is not a SMILES that RDKit can read: correct it")
    return Chem.MolToSmiles(mol)


def smiles_hash(smiles: str) -> int:
    """The first 8 bytes of the SHA-256 of a canonical SMILES, as an integer."""
    return int.from_bytes(hashlib.sha256(smiles.encode()).digest()[:8], "big")


def is_held_out(smiles: str) -> bool:
    """Whether training never sees this molecule; a function of its SMILES alone.

    The order and the length of a molecule list have no influence. The string is
    hashed as it is, so it must be the canonical SMILES.
    """
    return smiles_hash(smiles) % 1000 < HELD_OUT_PER_MILLE


def load_molecules(path: str | pathlib.Path | None = None) -> list[Molecule]:
    """The molecules of a CSV file with columns ``name`` and ``smiles``, in its order.

    Args:
        path: the CSV file; default is the list of the embedded data set.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a SMILES is not readable, or a molecule
            occurs twice.
    """
    path = pathlib.Path(path or MOLECULES_CSV)
    if not path.is_file():
        raise FileNotFoundError(
            f"molecule list {path} does not exist: give a CSV file with the columns "
            "name and smiles"
        )
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if not {"name", "smiles"} <= set(columns):
            raise ValueError(
                f"molecule list {path} has columns {', '.join(columns) or '(none)'}: "
                "it needs name and smiles"
            )
        rows = [(row["name"] or "", row["smiles"] or "") for row in reader]
    molecules, seen = [], {}
    for line, (name, smiles) in enumerate(rows, start=2):
        try:
            molecule = Molecule(name=name, smiles=canonical_smiles(smiles))
        except ValueError as error:
            raise ValueError(f"{path} line {line}: {error}") from None
        for key in (("name", name.lower()), ("smiles", molecule.smiles)):
            if key in seen:
                raise ValueError(
                    f"{path} line {line}: {key[0]} {key[1]!r} is also on line "
                    f"{seen[key]}: remove one"
                )
            seen[key] = line
        molecules.append(molecule)
    if not molecules:
        raise ValueError(f"molecule list {path} is empty: add rows of name,smiles")
    return molecules
