"""Molecules as padded rows of integers and coordinates."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from chemscale_jax.chem.molecule_features import MoleculeFeatures
from chemscale_jax.core.batches import DenoisingRows, MoleculeRows
from chemscale_jax.core.errors import UserError

# Places of rows with the virtual atom, which the network puts before the others:
# multiples of 4, and of 8 and more where pairs are many.
_PLACES = (12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 260)
BUCKETS = tuple(places - 1 for places in _PLACES)
FORMS = ("budget", "equal")


class BatchShape(NamedTuple):
    """Batches of one static shape."""

    rows: int  # of a batch
    atoms: int  # that a row has room for


def batch_shapes(
    form: str, rows: int, budget: int, buckets: Sequence[int], atoms: np.ndarray
) -> tuple[BatchShape, ...]:
    """Shapes of the batches of all processes, by rising room.

    Args:
        form: "equal": each batch has ``rows`` rows. "budget": about as many as make
            ``budget`` pairs of places, which is what a batch costs; multiples of
            ``rows``, so that whatever divides these divides all of them.
        rows: see ``form``.
        budget: see ``form``; 0: what ``rows`` rows with most room have.
        buckets: atoms that rows may have room for; none: `BUCKETS`.
        atoms: of each molecule.

    Raises:
        UserError: a field cannot be used, or a molecule has no room.
    """
    if form not in FORMS:
        raise UserError(f"config.batch.form={form!r} is unknown: use one of {FORMS}")
    if rows < 1 or budget < 0:
        raise UserError(
            f"config.batch has rows={rows}, budget={budget}: give at least 1 row, and "
            "a budget of pairs or 0"
        )
    known = tuple(buckets) or BUCKETS
    if known[0] < 1 or any(b <= a for a, b in itertools.pairwise(known)):
        raise UserError(
            f"config.batch.buckets={known}: give rising numbers of atoms, such as "
            "(15, 31), or none for those of the package"
        )
    if (most := int(atoms.max(initial=0))) > known[-1]:
        raise UserError(
            f"a molecule has {most} heavy atoms, but config.batch.buckets end at "
            f"{known[-1]}: add one with more room, or leave such molecules out of the "
            "data"
        )
    occurring = np.unique(np.searchsorted(known, atoms))
    chosen = [known[number] for number in occurring]
    if form == "equal":
        return tuple(BatchShape(rows, room) for room in chosen)
    wanted = budget or rows * (chosen[-1] + 1) ** 2
    return tuple(
        BatchShape(rows * max(1, round(wanted / (rows * (room + 1) ** 2))), room)
        for room in chosen
    )


def batch_spec(shape: BatchShape) -> DenoisingRows:
    """Shapes and types of a batch."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), empty_denoising_rows(shape)
    )


def empty_rows(shape: BatchShape) -> MoleculeRows:
    """Rows of padding, as writable NumPy arrays."""
    B, N = shape
    return MoleculeRows(
        species_BN=_zeros(np.uint8, B, N),
        atom_BN8=_zeros(np.uint16, B, N, 8),
        bond_BNN3=_zeros(np.uint8, B, N, N, 3),
        path_BNN=_zeros(np.uint16, B, N, N),
        degree_BN=_zeros(np.uint8, B, N),
        positions_BN3=_zeros(np.float32, B, N, 3),
    )


def empty_denoising_rows(shape: BatchShape) -> DenoisingRows:
    """Likewise, with drawings and numbers."""
    return DenoisingRows(
        empty_rows(shape),
        flat_BN3=_zeros(np.float32, *shape, 3),
        number_B=_zeros(np.uint32, shape.rows),
    )


def _zeros(dtype: type[np.generic], *shape: int) -> Any:
    """A leaf of a batch: NumPy's here, JAX's where it is used."""
    return np.zeros(shape, dtype)


def molecule_rows(
    features: Sequence[MoleculeFeatures],
    positions: Sequence[np.ndarray],
    shape: BatchShape,
) -> MoleculeRows:
    """Rows of the given molecules; rows that are left over are padding.

    Args:
        features: ids of each molecule.
        positions: (N, 3) of each molecule, angstrom.
        shape: of the batch; all molecules fit.
    """
    rows = empty_rows(shape)
    for row, (ids, xyz) in enumerate(zip(features, positions, strict=True)):
        N = len(ids.token_N)
        rows.species_BN[row, :N] = ids.token_N
        rows.atom_BN8[row, :N] = ids.atom_N8
        rows.bond_BNN3[row, :N, :N] = ids.bond_NN3
        rows.path_BNN[row, :N, :N] = ids.path_NN
        rows.degree_BN[row, :N] = ids.degree_N
        rows.positions_BN3[row, :N] = xyz
    return rows


class MoleculePlan(NamedTuple):
    """The batches of an epoch.

    Batch b has shape number ``batches[b, 0]`` and holds what stands in ``places`` from
    ``batches[b, 1]`` to ``batches[b, 2]``, which may be fewer than its rows.
    """

    places: np.ndarray  # (molecules,) int64, places in the order of the epoch
    batches: np.ndarray  # (batches, 3) int64


def plan_batches(
    atoms: np.ndarray, shapes: Sequence[BatchShape], rng: np.random.Generator | None
) -> MoleculePlan:
    """Puts every molecule of an epoch into one batch, the smallest rooms first.

    What does not fill a batch goes on to the next room, so that only one batch of an
    epoch may have rows to spare.

    Args:
        atoms: of the molecules, in the order of the epoch.
        shapes: by rising room; the last one has room for all.
        rng: shuffles the batches; None: they stand by their room.
    """
    pool = np.arange(len(atoms))
    places, batches, before = [pool[:0]], [np.zeros((0, 3), np.int64)], 0
    for number, shape in enumerate(shapes):
        fits = atoms[pool] <= shape.atoms
        here, pool = pool[fits], pool[~fits]
        if number + 1 < len(shapes):
            whole = len(here) // shape.rows * shape.rows
            here, pool = here[:whole], np.sort(np.concatenate([here[whole:], pool]))
        first = np.arange(0, len(here), shape.rows)
        stop = np.minimum(first + shape.rows, len(here))
        bounds = before + np.stack([first, stop], axis=1)
        batches.append(np.insert(bounds, 0, number, axis=1))
        places.append(here)
        before += len(here)
    assert not len(pool), "the last shape has no room for a molecule"
    table = np.concatenate(batches)
    if rng is not None:
        table = rng.permutation(table)
    return MoleculePlan(np.concatenate(places), table)
