"""Which molecules share a row of tokens, and the rows themselves.

Rows of whole molecules are filled by best fit, longest molecules first, in windows of
a shuffled epoch: each molecule goes to the fullest row that still has room for it.
Where rows of several lengths are allowed, the shortest take what fills them well and
leave the rest to longer ones, because attention makes a place of a long row dearer.
The faithful alternative cuts one long text of all molecules into rows.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.batches import TokenRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text.token_store import TokenStore

# Molecules packed at once: enough for full rows, few enough to keep rows random.
WINDOW = 10_000
# A place in a row of L tokens is taken to cost 1 + L / 128: on a CPU, attention of a
# narrow model costs as much as everything else at about this length.
_ATTENTION_LENGTH = 128
# Rows this full are kept whatever a longer row would cost.
_FULL = 0.97
# What lengths that are chosen from the data are multiples of, the longest that are
# tried, the molecules they are tried on, and what one more length has to save, since
# it means one more compilation.
_STEP, _LONGEST_TRIED, _SAMPLE, _WORTH = 16, 256, 2048, 1.03


class RowShape(NamedTuple):
    """Batches of one static shape."""

    rows: int  # of a batch
    length: int  # tokens of a row


class RowPlan(NamedTuple):
    """Rows of whole molecules, and the batches they make.

    Row r holds the molecules ``order[starts[r]:starts[r + 1]]``. Batch b has shape
    number ``batches[b, 0]`` and holds the rows from ``batches[b, 1]`` to
    ``batches[b, 2]``, which may be fewer than the shape has.
    """

    order: np.ndarray  # (molecules,) int32
    starts: np.ndarray  # (rows + 1,) int64
    batches: np.ndarray  # (batches, 3) int64

    @property
    def rows(self) -> int:
        """How many rows hold a molecule."""
        return len(self.starts) - 1

    def members(self, first: int, stop: int) -> list[np.ndarray]:
        """The molecules of each row of a range; rows past the last are empty."""
        bounds = self.starts[np.minimum(np.arange(first, stop + 1), self.rows)]
        return [self.order[a:b] for a, b in itertools.pairwise(bounds)]


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The row of each molecule, by best fit in the order of falling length.

    Equal lengths and rows with equal room are dealt with together, so the cost is
    that of a sort; the result is that of going molecule by molecule.

    Args:
        lengths: (molecules,) tokens of each, 1 to ``capacity``.
        capacity: tokens that a row has room for.

    Returns:
        (molecules,) int64, numbers of rows from 0 without gaps.
    """
    rows_with: list[list[int]] = [[] for _ in range(capacity + 1)]  # by room left
    placed = [np.zeros(0, np.int64)]
    rows = 0
    counts = np.bincount(lengths, minlength=capacity + 1)
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        room = length
        while left:
            # The fullest rows with room enough, else new ones.
            while room < capacity and not rows_with[room]:
                room += 1
            times = room // length
            wanted = -(-left // times)
            if room == capacity:
                rows_with[room] += range(rows, rows + wanted)
                rows += wanted
            taken = rows_with[room][-wanted:]
            del rows_with[room][-wanted:]
            put = min(left, times * len(taken))
            placed.append(np.repeat(taken, times)[:put])
            left -= put
            in_last = put - times * (len(taken) - 1)
            rows_with[room - in_last * length].append(taken.pop())
            rows_with[room - times * length] += taken
    row_of = np.empty(len(lengths), np.int64)
    row_of[np.argsort(-lengths, kind="stable")] = np.concatenate(placed)
    return row_of


class _Rows(NamedTuple):
    """Molecules row after row, and how many each row has."""

    order: np.ndarray
    counts: np.ndarray

    def take(self, rows: np.ndarray) -> "_Rows":
        """Some of the rows, in the given order."""
        counts = self.counts[rows]
        first = (np.cumsum(self.counts) - self.counts)[rows]
        place = np.repeat(
            (first - (np.cumsum(counts) - counts)).astype(np.int32), counts
        )
        place += np.arange(len(place), dtype=np.int32)
        return _Rows(self.order[place], counts)


def _pack(
    order: np.ndarray, lengths: np.ndarray, capacity: int, rng: np.random.Generator
) -> _Rows:
    """Rows of one length, those of each window in random order."""
    orders, counts = [order[:0]], [np.zeros(0, np.int64)]
    # A short rest joins the last full window.
    windows = max(1, round(len(order) / WINDOW))
    for window in np.array_split(order, windows):
        row_of = best_fit(lengths[window], capacity)
        rows = int(row_of.max()) + 1 if len(row_of) else 0
        row_of = rng.permutation(rows)[row_of]
        orders.append(window[np.argsort(row_of, kind="stable")])
        counts.append(np.bincount(row_of, minlength=rows))
    return _Rows(np.concatenate(orders), np.concatenate(counts))


def _place_cost(length: Any) -> Any:
    """What a place in a row of this length costs, in places of very short rows."""
    return 1 + length / _ATTENTION_LENGTH


def _well_filled(
    rows: _Rows, lengths: np.ndarray, shape: RowShape, longer: int
) -> np.ndarray:
    """Numbers of the rows to keep at this length: full ones, in whole batches.

    A row goes on to the next length where a full row of that length is cheaper.
    """
    if not len(rows.counts):
        return rows.counts
    first = np.cumsum(rows.counts) - rows.counts
    fill = np.add.reduceat(lengths[rows.order], first) / shape.length
    enough = min(_FULL, _place_cost(shape.length) / _place_cost(longer))
    good = np.flatnonzero(fill >= enough)
    whole = len(good) // shape.rows * shape.rows
    return np.sort(good[np.argsort(-fill[good], kind="stable")[:whole]])


def plan_rows(
    order: np.ndarray,
    lengths: np.ndarray,
    shapes: Sequence[RowShape],
    rng: np.random.Generator,
) -> RowPlan:
    """Packs every molecule exactly once.

    Args:
        order: numbers of the molecules, in the order of the epoch.
        lengths: tokens of each molecule of the corpus; those in ``order`` fit the
            longest row.
        shapes: of the batches, by rising length. Only the longest has a batch that is
            not full.
        rng: shuffles rows, and batches where there are several shapes.
    """
    starts, batches = [np.zeros(1, np.int64)], [np.zeros((0, 3), np.int64)]
    orders = []
    rows_before = molecules_before = 0
    pool = order
    for number, shape in enumerate(shapes):
        fits = lengths[pool] <= shape.length
        rows = _pack(pool[fits], lengths, shape.length, rng)
        if number + 1 < len(shapes):
            longer = shapes[number + 1].length
            kept = _well_filled(rows, lengths, shape, longer)
            passed = np.delete(np.arange(len(rows.counts)), kept)
            pool = np.concatenate([pool[~fits], rows.take(passed).order])
            pool = rng.permutation(pool)
            rows = rows.take(kept)
        elif not fits.all():
            longest = int(lengths[pool].max())
            raise ValueError(f"{longest} tokens do not fit a row of {shape.length}")
        first = np.arange(0, len(rows.counts), shape.rows)
        stop = np.minimum(first + shape.rows, len(rows.counts))
        bounds = rows_before + np.stack([first, stop], 1)
        batches.append(np.insert(bounds, 0, number, axis=1))
        orders.append(rows.order)
        starts.append(molecules_before + np.cumsum(rows.counts))
        rows_before += len(rows.counts)
        molecules_before += len(rows.order)
    table = np.concatenate(batches)
    if len(shapes) > 1:
        table = rng.permutation(table)
    return RowPlan(np.concatenate(orders), np.concatenate(starts), table)


def check_lengths(lengths: Sequence[int]) -> None:
    """Raises a `UserError` unless the lengths of rows rise and hold a molecule."""
    if not lengths or lengths[0] < 3 or list(lengths) != sorted(set(lengths)):
        raise UserError(
            f"config.batch.buckets={tuple(lengths)}: give rising lengths of at least "
            "3 tokens, such as (80, 256), or none to choose them from the data"
        )


def choose_lengths(lengths: np.ndarray, longest: int) -> tuple[int, ...]:
    """Up to three lengths of rows at which the corpus is cheapest to train on.

    Tried on a sample. The cheapest is taken among those that fill 95 % of the places,
    if there are any.

    Args:
        lengths: tokens of each molecule.
        longest: tokens that no row exceeds.
    """
    rng = np.random.default_rng(0)
    usable = lengths[lengths <= longest]
    if not len(usable):
        raise UserError(
            f"no molecule fits a row of config.batch.length={longest} tokens: raise it"
        )
    needed = min(longest, -(-int(usable.max()) // _STEP) * _STEP)
    sample = rng.choice(usable, min(_SAMPLE, len(usable)), replace=False)
    order = np.arange(len(sample))
    tried = {*range(2 * _STEP, min(longest, _LONGEST_TRIED) + 1, _STEP), needed}
    best = ((True, np.inf), (needed,))
    for chosen in (
        few for k in (1, 2, 3) for few in itertools.combinations(sorted(tried), k)
    ):
        if chosen[-1] < needed:
            continue
        shapes = [RowShape(1, length) for length in chosen]
        plan = plan_rows(order, sample, shapes, np.random.default_rng(0))
        rows = np.diff(plan.batches[:, 1:]).ravel()
        row_lengths = np.array(chosen)[plan.batches[:, 0]]
        fill = sample.sum() / (rows * row_lengths).sum()
        price = (rows * row_lengths * _place_cost(row_lengths)).sum()
        price *= _WORTH ** len(chosen)
        best = min(best, ((bool(fill < 0.95), float(price)), chosen))
    return best[1]


def tokens_per_molecule(store: TokenStore) -> np.ndarray:
    """(molecules,) int32: symbols, ``[CLS]`` and ``[SEP]``."""
    return (np.diff(store.offsets) + 2).astype(np.int32)


def long_text(store: TokenStore, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[CLS] symbols [SEP]`` of molecules one after another: (tokens,), (molecules,).

    The second array has the number of tokens of each.
    """
    first = store.offsets[members]
    n_symbols = store.offsets[members + 1] - first
    n_tokens = n_symbols + 2
    stops = np.cumsum(n_tokens)
    starts = stops - n_tokens
    tokens = np.empty(int(n_tokens.sum()), np.int32)
    is_symbol = np.ones(len(tokens), bool)
    is_symbol[starts] = is_symbol[stops - 1] = False
    tokens[starts], tokens[stops - 1] = (
        store.vocabulary.begin,
        store.vocabulary.end,
    )
    before = np.cumsum(n_symbols) - n_symbols
    place = np.arange(int(n_symbols.sum())) + np.repeat(first - before, n_symbols)
    tokens[is_symbol] = store.tokens[place]
    return tokens, n_tokens


def empty_rows(shape: RowShape, vocabulary: Vocabulary) -> TokenRows:
    """Rows of padding, as writable NumPy arrays."""

    def full(value: int) -> Any:
        return np.full(shape, value, np.int32)

    return TokenRows(full(vocabulary.pad), full(0), full(0))


def packed_rows(
    store: TokenStore, rows: Sequence[np.ndarray], length: int
) -> TokenRows:
    """Rows of whole molecules; each is a segment with positions of its own.

    Args:
        store: the molecules.
        rows: which molecules each row has; they must fit.
        length: tokens of a row.
    """
    shape = RowShape(len(rows), length)
    batch = empty_rows(shape, store.vocabulary)
    tokens, n_tokens = long_text(store, np.concatenate(rows))
    counts = np.array([len(members) for members in rows])
    row = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(n_tokens)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.cumsum(n_tokens) - n_tokens
    row_starts = starts[np.flatnonzero(within == 0)]
    filled = np.cumsum(counts > 0) - 1
    column = starts - row_starts[filled[row]]
    position = np.arange(len(tokens)) - np.repeat(starts, n_tokens)
    place = position + np.repeat(row * length + column, n_tokens)
    batch.tokens_BL.reshape(-1)[place] = tokens
    batch.segment_BL.reshape(-1)[place] = np.repeat(within + 1, n_tokens)
    batch.position_BL.reshape(-1)[place] = position
    return batch


class CutPlan(NamedTuple):
    """One long text of all molecules, to be cut into rows wherever they end."""

    order: np.ndarray  # (molecules,) int32
    stops: np.ndarray  # (molecules,) int64, tokens up to the end of each
    rows: int

    def members(self, first: int, stop: int) -> np.ndarray:
        """The molecules of which text tokens ``first`` to ``stop`` have a part."""
        within = np.searchsorted(self.stops, [first, stop], side="right")
        # The last one may end where the text does.
        ends = self.stops[within[1] - 1] == stop if within[1] else stop == 0
        return self.order[within[0] : within[1] + (not ends)]


def plan_cut(
    order: np.ndarray, lengths: np.ndarray, length: int, whole: bool
) -> CutPlan:
    """Rows cut from one long text, as language models of text are trained.

    Args:
        order: numbers of the molecules, in the order of the epoch.
        lengths: tokens of each molecule of the corpus.
        length: tokens of a row.
        whole: keep the last row, which is not full, instead of dropping it.
    """
    stops = np.cumsum(lengths[order], dtype=np.int64)
    total = int(stops[-1]) if len(stops) else 0
    return CutPlan(order, stops, -(-total // length) if whole else total // length)


def cut_rows(
    store: TokenStore, plan: CutPlan, first: int, stop: int, length: int
) -> TokenRows:
    """Rows ``first`` to ``stop`` of a long text: each a single segment.

    Attention, positions and predictions run across the molecules of a row, as in the
    paper. Rows past the last of the plan are padding.
    """
    batch = empty_rows(RowShape(stop - first, length), store.vocabulary)
    total = int(plan.stops[-1]) if len(plan.stops) else 0
    end = min(stop, plan.rows) * length
    begin, end = first * length, min(end, total)
    if begin >= end:
        return batch
    members = plan.members(begin, end)
    tokens, n_tokens = long_text(store, members)
    number = int(np.searchsorted(plan.stops, begin, side="right"))
    skipped = begin - int(plan.stops[number] - n_tokens[0])
    real = end - begin
    batch.tokens_BL.reshape(-1)[:real] = tokens[skipped : skipped + real]
    batch.segment_BL.reshape(-1)[:real] = 1
    batch.position_BL.reshape(-1)[:real] = np.arange(real) % length
    return batch
