"""Extended XYZ: frames with named columns and key=value pairs in the comment line.

The text is parsed here, so nothing depends on which labels another program would move
to a calculator: ``energy`` and ``forces`` (ASE), ``REF_energy`` and ``REF_forces``
(MACE) and names such as ``energy_xtb`` are read as they stand in the file.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from chemscale_jax.chem import elements
from chemscale_jax.chem.electrons import unpaired_electrons
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.frames import (
    AUTO_UNITS,
    Bad,
    Frames,
    UnitNames,
    existing_file,
    same_parts,
)
from chemscale_jax.data.frames.source import TEST, TRAIN

_WHAT = "an extended XYZ file (.xyz, .extxyz)"
# key=value, key="value", key='value', key={value}, and a key alone, which means true.
_PAIR = re.compile(
    r"""([^\s="'{}]+|"[^"]*")\s*(?:=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\S+))?"""
)
_DEFAULT_COLUMNS = "species:S:1:pos:R:3"
_CHARGE_KEYS = ("charge", "total_charge", "Charge", "REF_charge")
_SPIN_KEYS = ("spin", "total_spin", "spin_multiplicity", "multiplicity", "Spin")
# Never the label that "auto" means, although the names look like it.
_OTHER_ENERGIES = ("free_energy", "formation_energy", "kinetic_energy", "energy_weight")


class Keys(NamedTuple):
    """Names of the labels in a file; "auto" finds them."""

    energy: str = "auto"
    forces: str = "auto"


AUTO_KEYS = Keys()


class Block(NamedTuple):
    """One frame as text."""

    number: int  # of the frame, from 0
    line: int  # of its first line, from 1
    comment: str
    atoms: list[str]
    ends: bool = True  # whether its last line does


class BadFrameError(Exception):
    """One frame cannot be used; the text says why."""


def open_extxyz(
    path: str | pathlib.Path,
    test_path: str | pathlib.Path = "",
    keys: Keys = AUTO_KEYS,
    unit_names: UnitNames = AUTO_UNITS,
    method: str = "auto",
) -> ConvertedSource:
    """Records of an extended XYZ file; a group is named by its formula.

    Frames with ``config_type=IsolatedAtom`` are no records: their energies are in the
    report, for `chemscale_jax.data.frames.reference`.

    Args:
        path: the file.
        test_path: a second file, whose records are the test set; may be empty.
        keys: names of energy and forces in the file.
        unit_names: units of the file, if not eV and angstrom.
        method: of the labels, for the report and for reference energies.

    Raises:
        UserError: a file is missing, cut short or not XYZ; the labels are not there; no
            frame is usable.
    """
    paths = {TRAIN: existing_file(path, _WHAT)}
    if test_path:
        paths[TEST] = existing_file(test_path, _WHAT)
    names = unit_names.filled("eV", "eV/angstrom", "angstrom")

    def read_one(file: pathlib.Path, facts: dict[str, Any]) -> Iterator[Frames | Bad]:
        labels = _Labels(keys, str(file))
        atoms: dict[str, float] = facts.setdefault("isolated_atoms_ev", {})
        with open(file, "rb") as lines:
            for block in blocks(lines, str(file)):
                try:
                    frame = _frame(block, labels, names)
                except BadFrameError as error:
                    name = f"{file.name}, line {block.line}"
                    yield Bad(str(error), name)
                    continue
                if isinstance(frame, Frames):
                    yield frame
                else:
                    atoms |= frame
        facts["energy_key"], facts["forces_key"] = labels.energy, labels.forces
        if labels.energy is None and labels.forces is None:
            raise labels.not_found()

    return ConvertedSource(
        same_parts(paths, read_one),
        list(paths.values()),
        {"reader": "extxyz", "units": names, "keys": keys, "method": method},
        {
            "method": "unknown" if method == "auto" else method,
            "units": names._asdict(),
        },
    )


def blocks(lines: IO[bytes], name: str) -> Iterator[Block]:
    """The frames of an XYZ file as text: a count of atoms, a comment, the atoms.

    Raises:
        UserError: the file is cut short, or a count is not a number.
    """
    at = 0
    number = 0
    ends = True

    def take() -> str | None:
        nonlocal at, ends
        raw = lines.readline()
        at += 1
        ends = raw.endswith(b"\n")
        return raw.decode("utf-8", "replace").rstrip("\r\n") if raw else None

    while (text := take()) is not None:
        if not text.strip():
            continue
        line = at
        try:
            n_atoms = int(text)
        except ValueError:
            n_atoms = -1
        if n_atoms < 0:
            raise UserError(
                f"{name}, line {line}: found {text[:40]!r} where the number of atoms "
                f"of frame {number} should be: the file is not XYZ, or a frame before "
                "has too many or too few lines"
            )
        comment, atoms = take(), [take() for _ in range(n_atoms)]
        if comment is None or None in atoms:
            there = sum(a is not None for a in atoms)
            raise UserError(
                f"{name}, line {at}: the file ends within frame {number}, which has "
                f"{there} of {n_atoms} atoms: it was cut short, get a fresh copy"
            )
        yield Block(number, line, comment, [a for a in atoms if a is not None], ends)
        number += 1


def pairs(comment: str) -> dict[str, str]:
    """The key=value pairs of a comment line; a key alone is "T"."""
    found = {}
    for key, value in _PAIR.findall(comment):
        if value[:1] in ("'", '"', "{", "["):
            value = value[1:-1]
        found[key.strip('"')] = value or "T"
    return found


def columns(block: Block, layout: str) -> dict[str, np.ndarray]:
    """The columns of a frame: strings, or float64 of shape (N, width).

    Raises:
        BadFrameError: an atom has too few columns or something that is no number, or
            the last number may be cut.
    """
    if not block.ends:
        raise BadFrameError("a last line that does not end, so it may be cut")
    parts = layout.split(":")
    try:
        widths = [int(width) for width in parts[2::3]]
    except ValueError:
        widths = []
    if len(parts) % 3 or not widths or min(widths) < 1:
        raise BadFrameError("Properties that cannot be read")
    rows = [atom.split() for atom in block.atoms]
    if any(len(row) < sum(widths) for row in rows):
        raise BadFrameError("too few columns for an atom")
    found, start = {}, 0
    for name, kind, width in zip(parts[::3], parts[1::3], widths, strict=True):
        cells = [row[start : start + width] for row in rows]
        start += width
        if kind in "RI":
            try:
                found[name] = np.array(cells, np.float64).reshape(-1, width)
            except ValueError as error:
                raise BadFrameError(f"no number in column {name}") from error
        else:
            found[name] = np.array(cells).reshape(-1, width)
    return found


def species_of(symbols: Sequence[str]) -> np.ndarray:
    """Atomic numbers of symbols, in any case, or of numbers; 0 for an unknown one."""

    def number(symbol: str) -> int:
        if symbol.isdigit():
            return int(symbol) if int(symbol) <= elements.MAX_ATOMIC_NUMBER else 0
        name = symbol.capitalize()
        return elements.SYMBOLS.index(name) if name in elements.SYMBOLS[1:] else 0

    known = {symbol: number(symbol) for symbol in set(symbols)}
    return np.array([known[symbol] for symbol in symbols], np.int64)


class _Labels:
    """Finds labels at the first frame that has one, then keeps to their names."""

    def __init__(self, keys: Keys, file: str):
        self._keys, self._file = keys, file
        self.energy: str | None = None if keys.energy == "auto" else keys.energy
        self.forces: str | None = None if keys.forces == "auto" else keys.forces
        self._seen: set[str] = set()

    def look(self, info: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
        """Takes note of the names that a frame has."""
        self._seen |= {*info, *arrays} - {"Properties", "Lattice", "pbc", "pos"}
        if self.energy is None:
            self.energy = self._choose("energy", info)
        if self.forces is None:
            wide = [name for name, array in arrays.items() if array.shape[1] == 3]
            self.forces = self._choose("forces", wide)

    def _choose(
        self, what: str, names: Sequence[str] | Mapping[str, str]
    ) -> str | None:
        for name in (f"REF_{what}", what, what.capitalize()):
            if name in names:
                return name
        similar = [
            name
            for name in names
            if (name.startswith(f"{what}_") or name.endswith(f"_{what}"))
            and name not in _OTHER_ENERGIES
        ]
        if len(similar) > 1:
            raise UserError(
                f"{self._file} has {' and '.join(sorted(similar))}: choose one with "
                f"config.data.{what}_key"
            )
        return similar[0] if similar else None

    def not_found(self) -> UserError:
        return UserError(
            f"{self._file} has neither energies nor forces under a name that is known; "
            f"it has {', '.join(sorted(self._seen)) or 'no names at all'}: name them "
            "with config.data.energy_key and config.data.forces_key"
        )


def _number(text: str, key: str) -> float:
    try:
        return float(text.split()[0]) if text.split() else np.nan
    except ValueError as error:
        raise BadFrameError(f"no number under {key}") from error


def _first(info: Mapping[str, str], keys: Sequence[str]) -> float:
    """The first of several keys that a frame has, else 0."""
    return next((_number(info[key], key) for key in keys if key in info), 0.0)


def _frame(
    block: Block, labels: _Labels, unit_names: UnitNames
) -> Frames | dict[str, float]:
    """A frame in our units, or the energy of an isolated atom in eV.

    Raises:
        BadFrameError: it cannot be used.
    """
    energy_factor, force_factor, length = unit_names.factors()
    info = pairs(block.comment)
    arrays = columns(block, info.get("Properties", _DEFAULT_COLUMNS))
    labels.look(info, arrays)
    if "pos" not in arrays or not {"species", "Z"} & set(arrays):
        raise BadFrameError("no columns species and pos in Properties")
    symbols = arrays["species"] if "species" in arrays else arrays["Z"].astype(int)
    species = species_of([str(s) for s in symbols.ravel()])
    energy = None
    if labels.energy in info:
        energy = _number(info[labels.energy], labels.energy) * energy_factor
    forces = arrays.get(labels.forces or "")
    if forces is not None and forces.shape[1] != 3:
        raise BadFrameError(f"{labels.forces} without three columns")
    if (species < 1).any():
        raise BadFrameError("unknown element")
    is_atom = info.get("config_type", "").lower() == "isolatedatom"
    if is_atom and len(species) == 1 and energy is not None:
        return {elements.symbol_of(int(species[0])): energy}
    charge = _first(info, _CHARGE_KEYS)
    cell = _cell(info)
    return Frames(
        name=elements.formula_of(species) if len(species) else "empty",
        rows=np.array([block.number]),
        species=species,
        positions=arrays["pos"][None] * length,
        energy=None if energy is None else np.array([energy]),
        forces=None if forces is None else forces[None] * force_factor,
        charge=charge,
        spin=unpaired_electrons(_first(info, _SPIN_KEYS), species, charge),
        cell=None if cell is None else cell[None] * length,
    )


def _cell(info: Mapping[str, str]) -> np.ndarray | None:
    """The cell vectors as rows where the frame is periodic, else None.

    Raises:
        BadFrameError: the lattice cannot be read, or only some axes are periodic.
    """
    # A lattice without a word on periodicity is periodic, as the format says.
    default = "T T T" if "Lattice" in info else "F F F"
    periodic = info.get("pbc", default).replace(",", " ").split()
    flags = {flag.strip("\"'[]").lower() in ("t", "true", "1") for flag in periodic}
    if flags == {False}:
        return None
    if len(flags) > 1:
        raise BadFrameError("a cell that is periodic along some axes only")
    if "Lattice" not in info:
        raise BadFrameError("pbc without a Lattice")
    try:
        cell = np.array(info["Lattice"].replace(",", " ").split(), np.float64)
        cell = cell.reshape(3, 3)
    except ValueError as error:
        raise BadFrameError("a Lattice that is not nine numbers") from error
    if not abs(np.linalg.det(cell)) > 1e-9:
        raise BadFrameError("a Lattice that spans no volume")
    return cell
