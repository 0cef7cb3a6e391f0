"""Molecules of a file with coordinates and measured properties.

Conformers are made once and kept in the cache folder, where a second run finds them by
path, size and date of the file, and by settings. Every row of the file is a molecule
here, or is listed with a reason.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.chem.conformers import RELAX_WORK, ConformerSettings
from chemscale_jax.chem.molecule_record import MoleculeRecord, failed_record
from chemscale_jax.chem.smiles import molecule_key, read_molecule
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config
from chemscale_jax.data.cache import derived_folder
from chemscale_jax.data.conformers import codec as conformer_codec
from chemscale_jax.data.conformers import store as conformer_store
from chemscale_jax.data.conformers.shards import store_records
from chemscale_jax.data.conformers.store import ConformerStore
from chemscale_jax.data.inputs import table_input
from chemscale_jax.data.inputs.conformed_rows import GEOMETRIES, conformed
from chemscale_jax.data.inputs.molecule_input import MoleculeInput, UnreadRow
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.data.labels.label_columns import read_labels

# Keeps the random rows apart from other random numbers of the same seed.
_ROWS_STREAM = 3 << 32
_STORE = "store"


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledMolecules:
    """M molecules with T targets; fulfils `molecule_epoch.Molecules`.

    Attributes:
        store: has their records, and perhaps others.
        chosen: (M,) int64, places in the store.
        keys: (M,) uint64, equal for equal molecules; those without bonds are equal to
            none.
        targets_MT: float64, in the units of the data; NaN where there is no label.
        target_names: T names.
        units: T texts; "" where unknown.
        kind: of all targets, one of `core.property_predictions.KINDS`.
        classes: of a multiclass target, in the order of their numbers.
        where: (M,) str, such as "mols.csv line 7".
        row: (M,) int64, of its file, the first being 0.
        is_test: (M,) bool, True for those of the file of the test set.
        group: (M,) str, cells of ``config.data.split_col``.
        rejected: where a row stands that cannot be used, and why not.
        info: where they are from; JSON-able.
    """

    store: ConformerStore
    chosen: np.ndarray
    keys: np.ndarray
    targets_MT: np.ndarray
    target_names: tuple[str, ...]
    units: tuple[str, ...]
    kind: str
    classes: tuple[str, ...]
    where: np.ndarray
    row: np.ndarray
    is_test: np.ndarray
    group: np.ndarray
    rejected: list[tuple[str, str]]
    info: Mapping[str, Any]

    def __len__(self) -> int:
        """Number of molecules."""
        return len(self.chosen)

    @property
    def atoms(self) -> np.ndarray:
        """(M,) heavy atoms."""
        return self.store.atoms[self.chosen]

    @property
    def conformers(self) -> np.ndarray:
        """(M,) number of geometries."""
        return self.store.conformers[self.chosen]

    @property
    def scaffold(self) -> np.ndarray:
        """(M,) int32, place in the scaffolds of the store."""
        return self.store.scaffold[self.chosen]

    @property
    def scaffolds(self) -> list[str]:
        """SMILES of all scaffolds; "" is that of molecules without rings."""
        return self.store.scaffolds

    def has_status(self, *names: str) -> np.ndarray:
        """Which molecules have one of these statuses: bool (M,)."""
        return self.store.has_status(*names)[self.chosen]

    def records(self, indices: Sequence[int] | np.ndarray) -> list[MoleculeRecord]:
        """Some molecules, in the order of the indices."""
        return self.store.records(self.chosen[np.asarray(indices, np.int64)])

    @functools.cached_property
    def statuses(self) -> dict[str, int]:
        """Number of molecules by status."""
        counts = Counter(self.store.status[self.chosen].tolist())
        names = conformer_codec.STATUS_CODES
        return {names[code]: number for code, number in sorted(counts.items())}

    @property
    def reasons(self) -> str:
        """How many rows cannot be used, with the first of them."""
        if not self.rejected:
            return "every row is used"
        first = "; ".join(f"{where}: {why}" for where, why in self.rejected[:3])
        more = "; ..." if len(self.rejected) > 3 else ""
        return f"{len(self.rejected)} rows left out ({first}{more})"


@dataclasses.dataclass(frozen=True)
class _Table:
    """Rows of both files one after the other, without their molecules."""

    inputs: list[MoleculeInput]
    starts: list[int]  # number of the first row of each file, and of the one after
    where: list[str]
    index: np.ndarray
    cells: dict[str, list[str]]


def open_labelled(data: Config) -> LabelledMolecules:
    """The molecules that ``config.data`` describes, with conformers made if need be.

    Args:
        data: see `configs.common.labelled`; all that splits and scales is not read.

    Raises:
        UserError: a file or a field cannot be used, or no row is left.
    """
    settings = _checked(data)
    inputs = [_open_path(data)]
    if data.test_path:
        inputs.append(_open(data.test_path, data))
    table = _read_table(inputs, data)
    besides = (*(one.smiles_col for one in inputs), data.split_col)
    labels = read_labels(
        table.cells, targets=tuple(data.targets), kind=data.kind, besides=besides
    )
    units = tuple(data.units) or ("",)
    units = units * len(labels.names) if len(units) == 1 else units
    if len(units) != len(labels.names):
        raise UserError(
            f"config.data.units has {len(units)} units for {len(labels.names)} targets "
            f"({', '.join(labels.names[:5])}): give one for each"
        )
    rejected = {n: fault for n, fault in enumerate(labels.faults) if fault}
    usable = np.array([n for n, fault in enumerate(labels.faults) if not fault], int)
    if not len(usable):
        raise UserError(
            f"no row of {data.path} has a label that can be used; of the first, "
            f"{labels.faults[0] if labels.faults else 'there is none'}"
        )
    usable = _fewer(usable, table, data)
    store = _open_store(data, settings, table, usable)
    for failure in store.ledger():
        rejected[int(usable[failure.line - 1])] = failure.message or failure.reason
    # By their rows, whatever the order in the store.
    chosen = np.argsort(store.lines, kind="stable")
    number = usable[store.lines[chosen] - 1]
    if not len(number):
        shown = "; ".join(f"{table.where[n]}: {rejected[n]}" for n in [*rejected][:3])
        raise UserError(f"no molecule of {data.path} can be used ({shown})")
    keys = np.array(store.keys[chosen])
    unknown = keys == np.uint64(molecule_key(""))
    # Other hashes meet small numbers once in a blue moon.
    keys[unknown] = number[unknown]
    group = table.cells.get(data.split_col, [""] * len(table.where))
    return LabelledMolecules(
        store=store,
        chosen=chosen,
        keys=keys,
        targets_MT=labels.values_RT[number],
        target_names=labels.names,
        units=units,
        kind=labels.kind,
        classes=labels.classes,
        where=np.array(table.where, np.str_)[number],
        row=table.index[number],
        is_test=number >= table.starts[1],
        group=np.array(group, np.str_)[number],
        rejected=[(table.where[n], rejected[n]) for n in sorted(rejected)],
        info={
            "inputs": [dict(one.identity) for one in inputs],
            "rows": len(table.where),
            "rejected": len(rejected),
            "geometry": data.geometry,
            "geometries": data.geometries,
            "conformers": dataclasses.asdict(settings),
            "max_atoms": data.max_atoms,
        },
    )


def _checked(data: Config) -> ConformerSettings:
    """How conformers are made, if all fields make sense."""
    if data.source != "file" or not data.path:
        raise UserError(
            f"config.data has source={data.source!r} and path={data.path!r}: labelled "
            "molecules are read from a file, so give source 'file' and its path"
        )
    if data.geometry not in GEOMETRIES:
        raise UserError(
            f"config.data.geometry={data.geometry!r} is unknown: use one of "
            f"{(*GEOMETRIES,)}"
        )
    if data.geometries and (data.test_path or data.geometry == "flat"):
        raise UserError(
            "config.data.geometries has the coordinates of config.data.path: it goes "
            "with neither config.data.test_path nor geometry 'flat'"
        )
    if data.max_rows < 0 or data.max_atoms < 1:
        raise UserError(
            f"config.data has max_rows={data.max_rows} and max_atoms={data.max_atoms}: "
            "give 0 (all) or more rows, and at least 1 atom"
        )
    return ConformerSettings(count=data.conformers, seed=data.conformer_seed)


def _open(path: str, data: Config) -> MoleculeInput:
    # A string that is no path would be taken for SMILES.
    file = pathlib.Path(path)
    return open_input(file, smiles_col=data.smiles_col, max_atoms=data.max_atoms)


def _open_path(data: Config) -> MoleculeInput:
    """The rows of ``data.path``, with records of ``data.geometries`` if there are."""
    if not data.geometries:
        return _open(data.path, data)
    geometries = _open(data.geometries, data)
    try:
        rows, named = _open(data.path, data), True
    except UserError:
        if data.smiles_col:
            raise
        # The molecules are those of the geometries; nothing else need name them.
        first = table_input.first_column(pathlib.Path(data.path).expanduser())
        file = pathlib.Path(data.path)
        rows, named = open_input(file, smiles_col=first), False

    def begin() -> Iterator[UnreadRow]:
        pairs = itertools.zip_longest(rows.unread_rows(), geometries.unread_rows())
        for row, geometry in pairs:
            if row is None:
                raise UserError(
                    f"{geometries.name} has more records than {rows.name} has rows "
                    f"({rows.length}): record i must be the geometry of row i"
                )
            smiles = row.columns.get(rows.smiles_col, "") if named else ""
            make = functools.partial(
                _of_geometry, geometry and geometry.make, smiles, row.where
            )
            yield row._replace(make=make)

    return dataclasses.replace(
        rows,
        begin=begin,
        smiles_col=rows.smiles_col if named else "",
        facts=lambda: {**rows.identity, "geometries": dict(geometries.identity)},
    )


def _of_geometry(
    make: Callable[[], MoleculeRecord] | None, smiles: str, where: str
) -> MoleculeRecord:
    """A record with coordinates, if it is that of the SMILES beside it."""
    if make is None:
        return failed_record(where, "config.data.geometries has no record for it")
    record = make()
    if smiles and record.has_bonds:
        wanted, found = read_molecule(smiles), read_molecule(record.smiles)
        if wanted.neutral != found.neutral:
            return failed_record(
                where,
                f"its geometry is of {record.smiles}, its SMILES {smiles[:100]}",
            )
    return record


def _read_table(inputs: Sequence[MoleculeInput], data: Config) -> _Table:
    """All cells, by column."""
    where, index, starts = [], [], [0]
    cells: dict[str, list[str]] = {}
    for one in inputs:
        for row in one.unread_rows():
            for name, cell in row.columns.items():
                column = cells.setdefault(name, [])
                column.extend([""] * (len(where) - len(column)))
                column.append(cell)
            where.append(row.where)
            index.append(row.index)
        starts.append(len(where))
        if starts[-1] == starts[-2]:
            raise UserError(f"{one.name} has no rows")
    for column in cells.values():
        column.extend([""] * (len(where) - len(column)))
    if data.split_col and data.split_col not in cells:
        raise UserError(
            f"there is no column config.data.split_col={data.split_col!r}: columns are "
            f"{', '.join(map(repr, cells)) or 'none'}"
        )
    return _Table(list(inputs), starts, where, np.array(index, np.int64), cells)


def _fewer(usable: np.ndarray, table: _Table, data: Config) -> np.ndarray:
    """``max_rows`` random rows of the first file, and all of the second."""
    first = usable[usable < table.starts[1]]
    if not data.max_rows or data.max_rows >= len(first):
        return usable
    key = [data.split_seed, _ROWS_STREAM]
    drawn = np.random.Generator(np.random.Philox(key=key)).permutation(first)
    kept = np.sort(drawn[: data.max_rows])
    return np.concatenate([kept, usable[usable >= table.starts[1]]])


def _open_store(
    data: Config, settings: ConformerSettings, table: _Table, usable: np.ndarray
) -> ConformerStore:
    """The store of the given rows; line i of it is row ``usable[i - 1]``."""
    key: dict[str, Any] = {
        "inputs": [dict(one.identity) for one in table.inputs],
        "geometry": data.geometry,
        "conformers": dataclasses.astuple(settings),
        "relax_work": RELAX_WORK,
        "max_atoms": data.max_atoms,
        "rows": hashlib.sha256(usable.astype("<i8").tobytes()).hexdigest(),
        "store": [conformer_store.SCHEMA_VERSION, conformer_codec.VERSION],
        "rdkit": importlib.metadata.version("rdkit"),
    }
    wanted = np.zeros(len(table.where), bool)
    wanted[usable] = True

    def rows() -> Iterator[UnreadRow]:
        both = itertools.chain.from_iterable(one.unread_rows() for one in table.inputs)
        for number, row in enumerate(both):
            if wanted[number]:
                yield row

    def fill(folder: pathlib.Path) -> None:
        made = conformed(rows(), settings, geometry=data.geometry, total=len(usable))
        records = (row.record for row in made)
        store_records(records, folder / _STORE, float32=True)

    return ConformerStore.open(derived_folder("labelled", key, fill) / _STORE)
