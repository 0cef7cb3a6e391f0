"""Parts of embeddings: what is known of rows, and the values of what they hold."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from chemscale_jax.chem.conformers import ConformerSettings
from chemscale_jax.chem.molecule_record import MoleculeRecord
from chemscale_jax.core.embedding_readers import COLUMN
from chemscale_jax.data.inputs.conformed_rows import conformed
from chemscale_jax.data.inputs.molecule_input import InputRow, MoleculeInput
from chemscale_jax.inference.embed_settings import EmbedSettings
from chemscale_jax.inference.result_parts import Part, Reading, Rows, texts

# Of rows whose model needs no coordinates; see `molecule_record.STATUSES` for others.
READ = "read"


class AnyRow(Protocol):
    """What `InputRow` and its kin have; see there."""

    @property
    def index(self) -> int:
        """Of the row."""
        ...

    @property
    def where(self) -> str:
        """It stands."""
        ...

    @property
    def record(self) -> MoleculeRecord:
        """Of its molecule."""
        ...

    @property
    def columns(self) -> dict[str, str]:
        """All cells of the row."""
        ...


def conformed_parts(
    source: MoleculeInput, settings: EmbedSettings, reading: Reading, size: int
) -> Rows:
    """Rows with the conformers or drawings that settings ask for.

    Args:
        source: the rows.
        settings: from `embedder.Embedder.settled`.
        reading: how they are read.
        size: rows of a part.
    """
    making = ConformerSettings(count=settings.conformers, seed=settings.seed)

    def read(start: int) -> Iterator[InputRow]:
        return conformed(
            source.unread_rows(start),
            making,
            geometry=settings.geometry,
            workers=reading.workers,
            cache=reading.cache,
            progress=False,
        )

    total = len(source) if reading.progress else None
    return Rows(read, total, size, "embed", reading.progress)


def row_fields(rows: Sequence[AnyRow], columns: Sequence[str] = ()) -> Part:
    """What is known of rows, whatever was computed of them.

    Args:
        rows: of the input.
        columns: of the input that become fields "input/NAME".
    """
    records = [row.record for row in rows]
    cells = {
        f"{COLUMN}{name}": texts([row.columns.get(name, "") for row in rows])
        for name in columns
    }
    return {
        **cells,
        "index": np.array([row.index for row in rows], np.int64),
        "where": texts([row.where for row in rows]),
        "smiles": texts([record.smiles for record in records]),
        "status": texts([record.status for record in records]),
        "reason": texts([record.reason for record in records]),
        "atoms": np.array([len(record.species_N) for record in records], np.int32),
    }


def marked(row: InputRow, reason: str) -> InputRow:
    """The row with the status "failed" for a reason, or `READ` for none."""
    status = "failed" if reason else READ
    return row._replace(record=row.record._replace(status=status, reason=reason))


def value_fields(
    rows: Sequence[AnyRow],
    values: Sequence[np.ndarray | None],
    level: str,
    shape: tuple[int, ...],
    name: str = "values",
) -> Part:
    """The values of all rows, one after another.

    Args:
        rows: of the input.
        values: of each row: ``shape`` for a molecule, (N, *shape) for its heavy atoms,
            (N N, *shape) for their pairs; None where there are none.
        level: see `EmbedSettings`.
        shape: of one value.
        name: of the field.
    """
    nothing = np.full(shape, np.nan) if level == "molecule" else np.zeros((0, *shape))
    stack = np.stack if level == "molecule" else np.concatenate
    found = stack([nothing if value is None else value for value in values])
    return {name: found.astype(np.float32)}


def place_fields(rows: Sequence[AnyRow], counted: Sequence[bool], level: str) -> Part:
    """Which atoms or pairs the values are of; nothing at the level of molecules.

    Args:
        rows: of the input.
        counted: whether each row has values.
        level: see `EmbedSettings`.
    """
    if level == "molecule":
        return {}
    molecule, first, second, species = [], [], [], []
    for row, has_values in zip(rows, counted, strict=True):
        if not has_values:
            continue
        N = len(row.record.species_N)
        one, two = np.divmod(np.arange(N * N), N)
        one = np.arange(N) if level == "atom" else one
        molecule.append(np.full(len(one), row.index))
        first.append(one)
        second.append(two)
        species.append(row.record.species_N[one])
    fields = {"molecule": (molecule, np.int64), "first": (first, np.int32)}
    if level == "pair":
        fields["second"] = (second, np.int32)
    fields["species"] = (species, np.uint8)
    return {
        name: np.concatenate([np.zeros(0, dtype), *lists]).astype(dtype)
        for name, (lists, dtype) in fields.items()
    }
