"""Records of the molecules in lists and files; each one in gives exactly one out.

Nothing here raises for a bad molecule: its record has the status "failed" and a reason.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem

from chemscale_jax.chem.elements import atomic_number
from chemscale_jax.chem.molecule_record import (
    MAX_ATOMS,
    MoleculeRecord,
    failed_record,
    first_line,
    most_atoms,
    record_of,
    record_of_smiles,
    size_fault,
)
from chemscale_jax.chem.perceived_bonds import record_of_atoms
from chemscale_jax.chem.smiles import quiet_rdkit
from chemscale_jax.core.errors import UserError

# No mol block of a molecule that is not refused anyway comes near this.
MAX_BLOCK_LINES = 50_000
_END = "$$$$"
_FIELD = re.compile(r">.*?<(.*)>")
_CHARGE = re.compile(r"(?:^|\s)charge\s*=\s*\"?([+-]?\d+)", re.IGNORECASE)


def read_smiles(
    rows: Iterable[tuple[int, str]], *, max_atoms: int = MAX_ATOMS
) -> Iterator[MoleculeRecord]:
    """Records of SMILES strings, of status "2d" or "failed".

    Args:
        rows: line numbers and SMILES, such as from a table or `enumerate`; the record
            is called "line N".
        max_atoms: larger molecules, by heavy atoms, are refused.
    """
    for line, text in rows:
        yield record_of_smiles(text, f"line {line}", max_atoms=max_atoms)


class MolBlock(NamedTuple):
    """One record of an SD file, not yet read.

    Attributes:
        index: of the record, from 1.
        line: of the file on which it starts, from 1.
        text: the mol block, up to "M  END" and without the fields.
        fields: data of the record by name; several lines are joined.
    """

    index: int
    line: int
    text: str
    fields: dict[str, str]


def sdf_blocks(lines: Iterable[str]) -> Iterator[MolBlock]:
    """The records of an SD file, or the one of a mol file, in order.

    Args:
        lines: of the file, with or without their ends.
    """
    held: list[str] = []
    first, index = 1, 0
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if line.startswith(_END):
            index += 1
            yield _block(index, first, held)
            held, first = [], number + 1
        elif len(held) <= MAX_BLOCK_LINES:
            held.append(line)
    if any(line.strip() for line in held):
        yield _block(index + 1, first, held)


def _block(index: int, line: int, held: list[str]) -> MolBlock:
    ends = [i for i, text in enumerate(held) if text.startswith("M  END")]
    # Without its end, a block ends where the first field starts.
    ends += [i - 1 for i, text in enumerate(held) if i > 3 and text.startswith(">")]
    end = min(ends, default=len(held) - 1) + 1
    fields: dict[str, list[str]] = {}
    values: list[str] | None = None
    for text in held[end:]:
        if text.startswith(">") and (named := _FIELD.match(text)):
            values = fields.setdefault(named[1], [])
        elif not text.strip():
            values = None
        elif values is not None:
            values.append(text)
    joined = {name: "\n".join(parts) for name, parts in fields.items()}
    return MolBlock(index, line, "\n".join(held[:end]) + "\n", joined)


def record_of_block(
    block: MolBlock, *, own_coordinates: bool = True, max_atoms: int = MAX_ATOMS
) -> MoleculeRecord:
    """The record of a mol block, of status "given", "2d" or "failed".

    It is called by the title of the block, or "record N".

    Args:
        block: from `sdf_blocks`.
        own_coordinates: keep its coordinates where they are three-dimensional.
        max_atoms: larger molecules, by heavy atoms, are refused.
    """
    name = block.text.partition("\n")[0].strip() or f"record {block.index}"
    where = f"record {block.index}, line {block.line}"
    if block.text.count("\n") > MAX_BLOCK_LINES:
        return failed_record(name, f"{where}: more than {MAX_BLOCK_LINES} lines")
    with quiet_rdkit():
        mol, why = _from_block(block.text, max_atoms)
    if mol is None:
        return failed_record(name, f"{where}: {why}")
    made = record_of(mol, name, own_coordinates=own_coordinates, max_atoms=max_atoms)
    if made.status == "failed":
        made = made._replace(reason=f"{where}: {made.reason}")
    return made


def _from_block(text: str, max_atoms: int) -> tuple[Chem.Mol | None, str]:
    """The molecule of a mol block with its hydrogens, or what is wrong with it."""
    reader = functools.partial(
        Chem.MolFromMolBlock, text, removeHs=False, strictParsing=False
    )
    try:
        raw = reader(sanitize=False)
        if raw is None:
            counts = (text.splitlines() + [""] * 4)[3].rstrip()
            found = f"its fourth line, of counts, is {counts[:40]!r}"
            return None, f"RDKit cannot read the mol block; {found}"
        if fault := size_fault(raw.GetNumHeavyAtoms(), raw.GetNumAtoms(), max_atoms):
            return None, fault
        mol = reader(sanitize=True)  # stereo is read only then
        if mol is None:
            Chem.SanitizeMol(raw)
        return mol, "RDKit refuses its structure"
    except (RuntimeError, ValueError) as error:
        return None, first_line(error)


def read_sdf(
    lines: Iterable[str], *, own_coordinates: bool = True, max_atoms: int = MAX_ATOMS
) -> Iterator[MoleculeRecord]:
    """Records of an SD or mol file; see `sdf_blocks` and `record_of_block`."""
    for block in sdf_blocks(lines):
        yield record_of_block(
            block, own_coordinates=own_coordinates, max_atoms=max_atoms
        )


def read_xyz(
    lines: Iterable[str], charge: int | None = None, *, max_atoms: int = MAX_ATOMS
) -> Iterator[MoleculeRecord]:
    """Records of an xyz file with one or more frames, of status "given" or "failed".

    Where a count of atoms is wrong, nothing after it can be told apart: the rest of
    the file is one failed record.

    Args:
        lines: of the file: the number of atoms, a comment, and a symbol (or atomic
            number) and three coordinates in angstrom for each atom.
        charge: of each molecule; a comment with "charge=N" has the last word. Without
            either, see `perceived_bonds.record_of_atoms`.
        max_atoms: larger molecules, by heavy atoms, are refused.
    """
    rows = iter(enumerate(lines, 1))
    frame = 0
    for number, line in rows:
        if not line.strip():
            continue
        frame += 1
        name, where = f"frame {frame}", f"frame {frame}, line {number}"
        if not line.strip().isdecimal():
            found = f"{where}: {line.strip()[:40]!r} is no number of atoms"
            yield failed_record(name, f"{found}; what follows is not read")
            return
        count = int(line)
        comment = next(rows, (0, ""))[1].strip()
        atoms = []
        for _ in range(count):
            row = next(rows, None)
            if row is None:
                break
            # A molecule that is refused for its size is not kept in memory.
            if len(atoms) <= most_atoms(max_atoms):
                atoms.append(row[1].split())
        told = _CHARGE.search(comment)
        if len(atoms) < min(count, most_atoms(max_atoms)):
            found = f"{where}: {len(atoms)} atoms where {count} are announced"
            yield failed_record(name, found)
            continue
        made = _record_of_rows(
            [row[0] if row else "" for row in atoms],
            [row[1:4] for row in atoms],
            name,
            int(told[1]) if told else charge,
            max_atoms,
        )
        if made.status == "failed":
            made = made._replace(reason=f"{where}: {made.reason}")
        yield made


def read_atoms(
    molecules: Mapping[str, Any], *, max_atoms: int = MAX_ATOMS
) -> Iterator[MoleculeRecord]:
    """Records of molecules in memory, of status "given" or "failed".

    Args:
        molecules: "atoms", a list for each molecule of its symbols or atomic numbers;
            "coordinates", for each an array (N, 3) in angstrom; and maybe "charges",
            a number for each. Other entries are left alone. Records are called
            "molecule N", from 1.
        max_atoms: larger molecules, by heavy atoms, are refused.

    Raises:
        UserError: an entry is missing, or lists differ in length.
    """
    for key in ("atoms", "coordinates"):
        if key not in molecules:
            raise UserError(
                f"the molecules have entries {', '.join(map(repr, molecules))}: give "
                "'atoms' and 'coordinates', each a list with one item per molecule"
            )
    atoms, coordinates = molecules["atoms"], molecules["coordinates"]
    charges = molecules.get("charges")
    if charges is None:
        charges = [None] * len(atoms)
    lengths = {"atoms": atoms, "coordinates": coordinates, "charges": charges}
    if len({len(items) for items in lengths.values()}) > 1:
        found = ", ".join(f"{key} of {len(items)}" for key, items in lengths.items())
        raise UserError(f"the molecules have {found}: give one of each per molecule")
    for number, parts in enumerate(zip(atoms, coordinates, charges, strict=True), 1):
        symbols, positions, charge = parts
        charge = None if charge is None else int(charge)
        name = f"molecule {number}"
        yield _record_of_rows(symbols, positions, name, charge, max_atoms)


def _record_of_rows(
    symbols: Sequence[Any],
    positions: Any,
    name: str,
    charge: int | None,
    max_atoms: int,
) -> MoleculeRecord:
    """The record of symbols or atomic numbers, and of numbers or their texts."""
    try:
        numbers = np.array([atom_number(symbol) for symbol in symbols], np.int64)
        values = np.asarray(positions, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        return failed_record(name, str(error))
    return record_of_atoms(numbers, values, name, charge=charge, max_atoms=max_atoms)


def atom_number(symbol: Any) -> int:
    """Atomic number of a symbol in any case, of D and T, or of a number itself.

    Raises:
        ValueError: it is none of these.
    """
    text = str(symbol).strip()
    if text.isdecimal():
        return int(text)
    if text in ("D", "T"):
        return 1
    return atomic_number(text.capitalize())
