"""Which molecules share a row: plans that fill fixed budgets of atoms and edges.

A plan goes through a permutation in windows of a few thousand records. The records
of a window are dealt to packs the way one deals cards, largest first, each round
giving the larger records to the packs that are emptier so far, by edges and by atoms
in turn; then full and empty packs swap records. So packs come out nearly equal in
size, and each is a stratified sample of the window. Packs leave the window in the
order of their first record.

For studies of batch size, `exact_batches` has plans of a given number of molecules.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from chemscale_jax.core.errors import UserError

WINDOW = 4096
# Windows sampled to choose a budget.
_SAMPLES = 8
# The fill that a budget with exactly the wanted number of molecules has to reach.
_GOOD_FILL = 0.92


class PackBudget(NamedTuple):
    """Array sizes of one row. One atom and one molecule of them are always padding."""

    nodes: int
    edges: int
    molecules: int
    pairs: int = 0  # size of the second pair list; 0 without one


class EpochPlan(NamedTuple):
    """Packs of record indices; pack p is ``order[starts[p]:starts[p + 1]]``."""

    order: np.ndarray  # (records,) int64
    starts: np.ndarray  # (packs + 1,) int64

    def pack(self, index: int) -> np.ndarray:
        """The records of a pack; empty past the last pack."""
        if index >= len(self):
            return self.order[:0]
        return self.order[self.starts[index] : self.starts[index + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1


def row_shares(sizes: np.ndarray, budget: PackBudget) -> np.ndarray:
    """Sizes (records, 2 or 3) as fractions of what a row can hold."""
    room = np.array([budget.nodes - 1, budget.edges, budget.pairs], np.float64)
    return sizes / np.maximum(room[: sizes.shape[1]], 1)


def deal(shares: np.ndarray, n_packs: int) -> np.ndarray:
    """The pack of each record: (records,) int64."""
    n_records, n_sizes = shares.shape
    by_size = np.argsort(-shares.max(1), kind="stable")
    firsts = range(0, n_records, n_packs)
    # Records of each pack; an empty place holds one past the last record.
    table = np.full((n_packs, len(firsts)), n_records)
    loads = np.zeros((n_packs, n_sizes))
    for place, first in enumerate(firsts):
        chosen = by_size[first : first + n_packs]
        # Edges and atoms in turn. The last, finest round levels the edges, which
        # differ most.
        axis = (len(firsts) - place) % n_sizes
        chosen = chosen[np.argsort(-shares[chosen, axis], kind="stable")]
        emptiest = np.argsort(loads[:, axis], kind="stable")[: len(chosen)]
        table[emptiest, place] = chosen
        loads[emptiest] += shares[chosen]
    _level(table, np.concatenate([shares, np.zeros((1, n_sizes))]))
    pack_of = np.empty(n_records + 1, np.int64)
    pack_of[table] = np.arange(n_packs)[:, None]
    return pack_of[:-1]


def _level(table: np.ndarray, shares: np.ndarray) -> None:
    """Swaps records between full and empty packs while that lowers the fuller one.

    Args:
        table: (packs, places) records of each pack; changed in place.
        shares: (records + 1, sizes), the last row zero.
    """
    half, places = len(table) // 2, table.shape[1]
    if half == 0 or places < 2:
        return
    # A sweep tries places^2 swaps for each pair of packs; large packs need few.
    for _ in range(min(6, 32 // places)):
        loads = shares[table].sum(1)
        by_load = np.argsort(loads.max(1), kind="stable")
        low, high = by_load[:half], by_load[::-1][:half]
        change = shares[table[low]][:, None] - shares[table[high]][:, :, None]
        worst = np.maximum(
            loads[high][:, None, None] + change, loads[low][:, None, None] - change
        ).max(-1)
        best = worst.reshape(half, -1).argmin(1)
        better = worst.reshape(half, -1)[np.arange(half), best]
        pairs = np.flatnonzero(better < loads[high].max(1) - 1e-9)
        if not len(pairs):
            return
        of_high, of_low = np.divmod(best[pairs], places)
        high, low = high[pairs], low[pairs]
        moved = table[high, of_high]
        table[high, of_high] = table[low, of_low]
        table[low, of_low] = moved


def _shrink(
    members: np.ndarray, shares: np.ndarray, molecules: int, left: list[int]
) -> np.ndarray:
    """The members that stay in an overfull pack; the others are added to ``left``."""
    load = shares[members].sum(0)
    while load.max() > 1 + 1e-9 or len(members) > molecules:
        # The smallest record that is enough goes, else the largest.
        own = shares[members].max(1)
        enough = np.flatnonzero(own >= load.max() - 1)
        drop = enough[np.argmin(own[enough])] if len(enough) else np.argmax(own)
        left.append(int(members[drop]))
        members = np.delete(members, drop)
        load = shares[members].sum(0)
    return members


def _plan_window(
    shares: np.ndarray, molecules: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Packs of window positions, each in order, and the positions that did not fit."""
    needed = max(shares.sum(0).max(), len(shares) / molecules)
    n_packs = max(1, int(np.ceil(needed - 1e-9)))
    pack_of = deal(shares, n_packs)
    by_pack = np.argsort(pack_of, kind="stable")
    bounds = np.searchsorted(pack_of[by_pack], np.arange(n_packs + 1))
    packs = np.split(by_pack, bounds[1:-1])
    loads = np.stack([np.bincount(pack_of, column, n_packs) for column in shares.T])
    overfull = (loads.max(0) > 1 + 1e-9) | (np.diff(bounds) > molecules)
    left: list[int] = []
    for p in np.flatnonzero(overfull):
        packs[p] = _shrink(packs[p], shares, molecules, left)
    packs.sort(key=lambda members: members[0])
    return packs, np.sort(np.array(left, np.int64))


def plan_epoch(
    permutation: np.ndarray,
    n_atoms: np.ndarray,
    n_edges: np.ndarray,
    budget: PackBudget,
    *,
    n_pairs: np.ndarray | None = None,
    window: int = WINDOW,
) -> EpochPlan:
    """Packs every record of a permutation exactly once.

    Args:
        permutation: record indices in the order of the epoch.
        n_atoms: atoms of each record of the source.
        n_edges: edges of each record of the source.
        budget: what a row holds; every record must fit, see `check_budget`.
        n_pairs: pairs of each record in the second list, if there is one.
        window: how many records are dealt at once; short windows keep closer to the
            order and fill less well.

    Raises:
        ValueError: a record does not fit.
    """
    columns = [n_atoms, n_edges] + ([] if n_pairs is None else [n_pairs])
    order, counts = [], []
    waiting = np.zeros(0, np.int64)
    done = 0
    while done < len(permutation) or len(waiting):
        fresh = permutation[done : done + window]
        # A short rest joins the last full window.
        if len(permutation) - done < 1.5 * window:
            fresh = permutation[done:]
        done += len(fresh)
        records = np.concatenate([waiting, fresh])
        shares = row_shares(np.stack([c[records] for c in columns], 1), budget)
        if shares.max() > 1 + 1e-9:
            raise ValueError(f"a record does not fit {budget}: call check_budget first")
        packs, left = _plan_window(shares, budget.molecules - 1)
        order += [records[members] for members in packs]
        counts += [len(members) for members in packs]
        waiting = records[left]
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return EpochPlan(np.concatenate([np.zeros(0, np.int64), *order]), starts)


def _largest_loads(sizes: np.ndarray, molecules: int) -> np.ndarray:
    """Largest pack in sampled windows when each pack has ``molecules`` records."""
    rng = np.random.default_rng(0)
    largest = sizes.max(0).astype(np.float64)
    window = min(WINDOW, len(sizes))
    for _ in range(_SAMPLES):
        chosen = sizes[rng.integers(len(sizes), size=window)]
        n_packs = max(1, -(-window // molecules))
        pack_of = deal(chosen / sizes.mean(0), n_packs)
        loads = [np.bincount(pack_of, column, n_packs) for column in chosen.T]
        largest = np.maximum(largest, np.max(loads, axis=1))
    return largest


def round_up(value: float, step: int) -> int:
    """The smallest multiple of ``step`` that is at least ``value``."""
    return int(-(-value // step) * step)


def choose_budget(
    n_atoms: np.ndarray,
    n_edges: np.ndarray,
    molecules: int,
    n_pairs: np.ndarray | None = None,
) -> PackBudget:
    """Row sizes for about ``molecules`` records of the given statistics.

    From a few molecules on, packs of exactly that many records come out so equal that
    the largest one sets the budget. Few molecules vary too much for that; then the
    budget is their mean size, or the largest record, and packs hold more small
    records or fewer large ones.

    Args:
        n_atoms: atoms of each record of the training split.
        n_edges: edges of each record.
        molecules: wanted records per pack.
        n_pairs: pairs of each record in the second list, if there is one.
    """
    if molecules < 1:
        raise UserError(f"batch.molecules is {molecules}: a row needs at least 1")
    columns = [n_atoms, n_edges] + ([] if n_pairs is None else [n_pairs])
    sizes = np.stack(columns, 1).astype(np.int64)
    mean, largest = sizes.mean(0), sizes.max(0)
    loads = _largest_loads(sizes, molecules)
    cap = molecules
    if np.any(mean * molecules < _GOOD_FILL * loads):
        loads = np.maximum(largest, mean * molecules)
        cap = int(np.ceil(1.6 * molecules)) + 1 if molecules > 1 else 1
    # One more atom and molecule for padding; round sizes keep memory aligned.
    steps = (8, 32, 32) if loads[0] > 256 else (2, 8, 8)
    nodes = round_up(loads[0] + 1, steps[0])
    edges, *pairs = (
        round_up(load, step) for load, step in zip(loads[1:], steps[1:], strict=False)
    )
    return PackBudget(nodes, max(edges, 1), cap + 1, *pairs)


def check_budget(
    budget: PackBudget,
    n_atoms: np.ndarray,
    n_edges: np.ndarray,
    name_of: Callable[[int], str],
    among: np.ndarray,
    n_pairs: np.ndarray | None = None,
) -> None:
    """Raises a `UserError` that names a record which no row can hold.

    Args:
        budget: sizes of a row.
        n_atoms: atoms of each record of the source.
        n_edges: edges of each record.
        name_of: index of a record -> its name.
        among: indices of the records that will be used.
        n_pairs: pairs of each record in the second list, if there is one.
    """
    rows = [
        ("atoms", "batch.nodes", n_atoms, budget.nodes - 1, budget.nodes),
        ("edges", "batch.edges", n_edges, budget.edges, budget.edges),
    ]
    if n_pairs is not None:
        rows.append(("pairs", "pairs", n_pairs, budget.pairs, budget.pairs))
    for what, field, sizes, room, size in rows:
        worst = int(among[np.argmax(sizes[among])])
        if sizes[worst] > room:
            raise UserError(
                f"record {name_of(worst)} has {sizes[worst]} {what}, but {field} = "
                f"{size} leaves room for {room}: set config.{field} to at least "
                f"{sizes[worst] + size - room}, or 0 to choose it from the data"
            )
    if budget.molecules < 2:
        raise UserError(
            f"a row of {budget.molecules} molecules holds only the padding one: "
            "set config.batch.molecules to at least 1"
        )


def fill_fractions(
    plan: EpochPlan,
    n_atoms: np.ndarray,
    n_edges: np.ndarray,
    budget: PackBudget,
) -> dict[str, float]:
    """Mean share of each row that holds real atoms, edges and molecules."""
    packs = max(1, len(plan))
    return {
        "nodes": float(n_atoms[plan.order].sum() / (packs * budget.nodes)),
        "edges": float(n_edges[plan.order].sum() / (packs * budget.edges)),
        "molecules": float(len(plan.order) / (packs * (budget.molecules - 1))),
    }
