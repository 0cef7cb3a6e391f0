"""Batches of exactly n molecules, for studies of batch size.

Elsewhere a batch is what fills its rows, see `packing`. Here its size is a number of
molecules, as in the papers, at the price of emptier rows.
"""

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.packs.packing import (
    EpochPlan,
    PackBudget,
    deal,
    round_up,
    row_shares,
)

# Batches sampled to choose a budget, and swaps tried to keep a batch within it.
_SAMPLES = 256
_SWAPS = 64


def check_exact(molecules: int, rows: int) -> None:
    """Raises a `UserError` unless ``rows`` rows can share ``molecules`` evenly."""
    if molecules < rows or molecules % rows:
        raise UserError(
            f"config.batch.exact_molecules={molecules} cannot be spread evenly over "
            f"config.batch.rows={rows}; make rows a divisor of it (equal to it, each "
            "row is one molecule)"
        )


def choose_exact_budget(
    n_atoms: np.ndarray,
    n_edges: np.ndarray,
    molecules: int,
    rows: int,
    n_pairs: np.ndarray | None = None,
) -> PackBudget:
    """Row sizes for batches of exactly ``molecules`` records in ``rows`` rows.

    The largest row of sampled batches sets the budget, but at least the largest
    record; `plan_exact` exchanges records where a batch still exceeds it.

    Args:
        n_atoms: atoms of each record of the training split.
        n_edges: edges of each record.
        molecules: records of a batch.
        rows: rows of a batch.
        n_pairs: pairs of each record in the second list, if there is one.
    """
    check_exact(molecules, rows)
    columns = [n_atoms, n_edges] + ([] if n_pairs is None else [n_pairs])
    sizes = np.stack(columns, 1).astype(np.int64)
    loads = sizes.max(0)
    rng = np.random.default_rng(0)
    for _ in range(_SAMPLES if molecules > rows else 0):
        chosen = sizes[rng.integers(len(sizes), size=molecules)]
        row_of = deal(chosen / np.maximum(sizes.mean(0), 1), rows)
        sums = [np.bincount(row_of, column, rows).max() for column in chosen.T]
        loads = np.maximum(loads, sums)
    nodes = round_up(loads[0] + 1, 2)
    edges, *pairs = (round_up(load, 8) for load in loads[1:])
    return PackBudget(nodes, max(edges, 1), molecules // rows + 1, *pairs)


def plan_exact(
    permutation: np.ndarray,
    n_atoms: np.ndarray,
    n_edges: np.ndarray,
    budget: PackBudget,
    *,
    molecules: int,
    rows: int,
    n_pairs: np.ndarray | None = None,
) -> EpochPlan:
    """Batches of exactly ``molecules`` records, each in ``rows`` packs; the last: rest.

    A batch is a stretch of the permutation, so it is a uniform sample, as in studies
    of batch size; its records are spread evenly over its rows. The rare batch that
    does not fit swaps its largest record for the smallest one of the lightest batch.

    Args:
        permutation: record indices in the order of the epoch.
        n_atoms: atoms of each record of the source.
        n_edges: edges of each record of the source.
        budget: what a row holds, see `choose_exact_budget`.
        molecules: records of a batch.
        rows: rows of a batch.
        n_pairs: pairs of each record in the second list, if there is one.

    Raises:
        UserError: batches of this size do not fit the budget.
    """
    check_exact(molecules, rows)
    columns = [n_atoms, n_edges] + ([] if n_pairs is None else [n_pairs])
    shares = row_shares(np.stack(columns, 1), budget)
    cuts = range(molecules, len(permutation), molecules)
    batches = [part.copy() for part in np.split(permutation, cuts)]
    dealt = [deal(shares[batch], rows) for batch in batches]
    weight = np.array([shares[batch].sum(0).max() for batch in batches])

    def overfull(b: int) -> bool:
        columns = shares[batches[b]].T
        loads = [np.bincount(dealt[b], column, rows).max() for column in columns]
        return max(loads) > 1 + 1e-9

    for b in range(len(batches)):
        for _ in range(_SWAPS):
            if not overfull(b):
                break
            light = int(np.argmin(weight))
            give = np.argmax(shares[batches[b]].max(1))
            take = np.argmin(shares[batches[light]].max(1))
            kept = batches[b][give]
            batches[b][give] = batches[light][take]
            batches[light][take] = kept
            for c in (b, light):
                dealt[c] = deal(shares[batches[c]], rows)
                weight[c] = shares[batches[c]].sum(0).max()
    if any(overfull(b) for b in range(len(batches))):
        raise UserError(
            f"batches of exactly {molecules} molecules in {rows} rows do not fit "
            f"{budget}: raise config.batch.nodes and config.batch.edges, or set them "
            "to 0"
        )
    order, counts = [], []
    for batch, row_of in zip(batches, dealt, strict=True):
        order.append(batch[np.argsort(row_of, kind="stable")])
        counts.append(np.bincount(row_of, minlength=rows))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts), dtype=np.int64)])
    return EpochPlan(np.concatenate(order), starts)
