"""Epochs of token rows: each batch is a function of (seed, epoch, index)."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from chemscale_jax.core.batches import TokenRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Epoch
from chemscale_jax.core.types import Config
from chemscale_jax.data.feeding import ALONE, Feeding
from chemscale_jax.data.text import token_rows
from chemscale_jax.data.text.corpus_split import CorpusSplit, Subset, split_corpus
from chemscale_jax.data.text.token_rows import RowShape
from chemscale_jax.data.text.token_sources import open_corpus
from chemscale_jax.data.text.token_store import TokenStore

FORMS = ("packed", "cut", "bucketed")
# Keeps the order of an evaluation set apart from the orders of the epochs.
_EVAL_EPOCH = (1 << 32) + 1
# Molecules that are named in the artifacts if no row holds them.
_MOST_NAMED = 100


class PackedEpoch:
    """Batches of rows of whole molecules; safe to read from threads."""

    def __init__(
        self,
        store: TokenStore,
        plan: token_rows.RowPlan,
        shapes: Sequence[RowShape],
        feeding: Feeding,
    ):
        """Batches of a plan.

        Args:
            store: the molecules.
            plan: which of them share a row.
            shapes: of the batches of all processes together.
            feeding: share of this process.
        """
        self.plan = plan
        self.rows = plan.rows
        self._store = store
        self._shapes = tuple(shapes)
        self._feeding = feeding

    def __len__(self) -> int:
        return len(self.plan.batches)

    def _members(self, index: int) -> tuple[list[np.ndarray], int]:
        """Molecules of each row of this process, and the length of the rows."""
        _check_index(self, index)
        number, first, stop = self.plan.batches[index]
        shape = self._shapes[number]
        rows = self.plan.members(first, stop)
        rows += [self.plan.order[:0]] * (shape.rows - len(rows))
        return rows[self._feeding.local(shape.rows)], shape.length

    def __getitem__(self, index: int) -> TokenRows:
        rows, length = self._members(index)
        return token_rows.packed_rows(self._store, rows, length)

    def record_indices(self, index: int) -> np.ndarray:
        """Numbers of the molecules in this process's rows, in order."""
        return np.concatenate(self._members(index)[0])

    def record_ids(self, index: int) -> list[str]:
        """Lines of the source of the same molecules."""
        return _names(self._store, self.record_indices(index))

    def places(self) -> int:
        """Tokens that the rows with a molecule have room for."""
        number, first, stop = self.plan.batches.T
        lengths = np.array([shape.length for shape in self._shapes])
        return int(((stop - first) * lengths[number]).sum())


class CutEpoch:
    """Batches of rows that are cut from one long text; safe to read from threads."""

    def __init__(
        self,
        store: TokenStore,
        plan: token_rows.CutPlan,
        shape: RowShape,
        feeding: Feeding,
    ):
        """Batches of a plan; arguments as those of `PackedEpoch`."""
        self.plan = plan
        self.rows = plan.rows
        self._store = store
        self._shape = shape
        self._feeding = feeding

    def __len__(self) -> int:
        return -(-self.rows // self._shape.rows)

    def _range(self, index: int) -> tuple[int, int]:
        """First and last row of this process; the last ones may not exist."""
        _check_index(self, index)
        local = self._feeding.local(self._shape.rows)
        first = index * self._shape.rows
        return first + local.start, first + local.stop

    def __getitem__(self, index: int) -> TokenRows:
        return token_rows.cut_rows(
            self._store, self.plan, *self._range(index), self._shape.length
        )

    def record_indices(self, index: int) -> np.ndarray:
        """Numbers of the molecules that have a part in this process's rows."""
        first, stop = (
            min(row, self.rows) * self._shape.length for row in self._range(index)
        )
        return self.plan.members(first, stop)

    def record_ids(self, index: int) -> list[str]:
        """Lines of the source of the same molecules."""
        return _names(self._store, self.record_indices(index))

    def places(self) -> int:
        """Tokens that the rows with a molecule have room for."""
        return self.rows * self._shape.length


def _check_index(epoch: Epoch, index: int) -> None:
    if not 0 <= index < len(epoch):
        raise IndexError(f"batch {index} of an epoch of {len(epoch)}")


def _names(store: TokenStore, members: np.ndarray) -> list[str]:
    return [f"line {line}" for line in store.lines[members]]


class TokenStream:
    """Training epochs and the validation set of a corpus of molecules.

    Attributes:
        store: the molecules.
        split: numbers of the molecules of each part.
        shapes: of the batches of all processes, one per length of rows.
        evals: "valid".
        artifacts: what readers of a checkpoint need to know; JSON-able.
        batch_specs: shapes and types of the batches of all processes.
    """

    def __init__(
        self,
        store: TokenStore,
        split: CorpusSplit,
        shapes: Sequence[RowShape],
        *,
        form: str,
        feeding: Feeding = ALONE,
    ):
        """Plans the validation set and the first epoch.

        Args:
            store: the molecules.
            split: which of them to train and validate on; all fit the longest row.
            shapes: of the batches of all processes, by rising length; one of them
                unless rows are bucketed.
            form: of the rows, one of ``FORMS``.
            feeding: order of epochs, and share of this process.

        Raises:
            UserError: processes cannot share the rows, or no row is full.
        """
        for shape in shapes:
            feeding.local(shape.rows)
        self.store = store
        self.split = split
        self.shapes = tuple(shapes)
        self._form = form
        self._feeding = feeding
        self._lengths = token_rows.tokens_per_molecule(store)
        leaves: Any = [
            [jax.ShapeDtypeStruct(shape, np.int32)] * 3 for shape in self.shapes
        ]
        self.batch_specs = tuple(TokenRows(*leaf) for leaf in leaves)
        # A plan of millions of molecules takes seconds, and is asked for repeatedly.
        self._train_epochs = functools.lru_cache(maxsize=2)(self._train_epoch)
        self.evals: Mapping[str, Epoch] = {
            "valid": self._epoch(split.valid, np.random.default_rng(0), whole=True)
        }
        self.artifacts: Mapping[str, Any] = self._artifacts()

    def _epoch(
        self, order: np.ndarray, rng: np.random.Generator, whole: bool
    ) -> PackedEpoch | CutEpoch:
        if self._form == "cut":
            (shape,) = self.shapes
            plan = token_rows.plan_cut(order, self._lengths, shape.length, whole)
            return CutEpoch(self.store, plan, shape, self._feeding)
        plan = token_rows.plan_rows(order, self._lengths, self.shapes, rng)
        return PackedEpoch(self.store, plan, self.shapes, self._feeding)

    def _train_epoch(self, epoch: int) -> PackedEpoch | CutEpoch:
        rng = self._feeding.rng(epoch)
        return self._epoch(rng.permutation(self.split.train), rng, whole=False)

    def train_epoch(self, epoch: int) -> PackedEpoch | CutEpoch:
        """One pass over the training set; the order depends on seed and epoch only."""
        return self._train_epochs(epoch)

    def iterate(self, epoch: Epoch, start: int) -> Iterator[TokenRows]:
        """``epoch[start]``, ``epoch[start + 1]``, ... made ahead of time."""
        return self._feeding.iterate(epoch, start)

    @property
    def summary(self) -> str:
        """What was read, how it is split and how it fills the rows, in one line."""
        facts, split = self.artifacts, self.artifacts["split"]
        train, valid = facts["training_set"], facts["validation_set"]
        doubles, too_long = split["duplicates"], sum(split["too_long"].values())
        leaked = (
            doubles["train_in_valid_canonical"] + doubles["train_in_valid_neutral_only"]
        )
        repeats = doubles["repeats_in_train"] + doubles["repeats_in_valid"]
        kept = "removed" if doubles["removed"] else "kept"
        shapes = " or ".join(f"{rows} x {length}" for rows, length in self.shapes)
        return (
            f"data: {split['molecules']} molecules as {facts['notation']}, vocabulary "
            f"of {len(facts['vocabulary']['tokens'])}; {train['molecules']} to train "
            f"on ({train['tokens']} tokens, {train['rows']} rows), "
            f"{valid['molecules']} to validate ({valid['tokens']} tokens); {leaked} "
            f"left out for being in the validation set, {repeats} repeats {kept}, "
            f"{too_long} longer than a row left out; {self._form} rows, batches of "
            f"{shapes}, filled to {facts['fill']['train']:.1%}"
        )

    def _artifacts(self) -> dict[str, Any]:
        first, valid = self.train_epoch(0), self.evals["valid"]
        assert isinstance(valid, PackedEpoch | CutEpoch)
        if not first.rows:
            raise UserError(
                f"{self._size(self.split.train, 0)['tokens']} tokens to train on do "
                f"not fill one row of {self.shapes[-1].length}: use more data, shorter "
                "rows (config.batch.length), or packed ones"
            )
        named = self.split.too_long[:_MOST_NAMED]
        sizes = {
            "training_set": self._size(self.split.train, first.rows),
            "validation_set": self._size(self.split.valid, valid.rows),
        }
        used = {"train": sizes["training_set"], "valid": sizes["validation_set"]}
        places = {"train": first.places(), "valid": valid.places()}
        return {
            "vocabulary": self.store.vocabulary.to_json(),
            "notation": self.store.vocabulary.notation,
            **sizes,
            "fill": {
                name: round(min(size["tokens"] / places[name], 1.0), 4)
                for name, size in used.items()
            },
            "rows": {
                "form": self._form,
                "shapes": [list(shape) for shape in self.shapes],
            },
            "split": self.split.summary,
            "too_long": _names(self.store, named),
            "source": dict(self.store.info),
        }

    def _size(self, members: np.ndarray, rows: int) -> dict[str, int]:
        """A set in all units: tokens with and without special ones, atoms, rows."""
        tokens = int(self._lengths[members].sum(dtype=np.int64))
        return {
            "molecules": len(members),
            "tokens": tokens,
            "symbols": tokens - 2 * len(members),
            "heavy_atoms": int(self.store.heavy_atoms[members].sum(dtype=np.int64)),
            "rows": rows,
        }


def row_shapes(
    form: str,
    rows: int,
    length: int,
    buckets: Sequence[int],
    tokens: int,
    lengths: np.ndarray,
) -> tuple[RowShape, ...]:
    """Shapes of the batches of all processes.

    Args:
        form: one of ``FORMS``.
        rows: of a batch; of several lengths, batches have multiples of it, so that
            whatever divides it divides all of them.
        length: tokens of a row; where rows are bucketed, of the longest one allowed.
        buckets: lengths of rows where they are bucketed; none: chosen from the data.
        tokens: wanted in each batch where rows are bucketed; 0: what ``rows`` of the
            longest rows hold.
        lengths: tokens of each molecule of the corpus.

    Raises:
        UserError: a field cannot be used.
    """
    if form not in FORMS:
        raise UserError(f"config.batch.form={form!r} is unknown: use one of {FORMS}")
    if rows < 1 or length < 3 or tokens < 0:
        raise UserError(
            f"config.batch has rows={rows}, length={length}, tokens={tokens}: give at "
            "least 1 row of at least 3 tokens"
        )
    if form != "bucketed":
        return (RowShape(rows, length),)
    if buckets:
        token_rows.check_lengths(buckets)
    chosen = tuple(buckets) or token_rows.choose_lengths(lengths, length)
    wanted = tokens or rows * chosen[-1]
    return tuple(
        RowShape(rows * max(1, round(wanted / (rows * length))), length)
        for length in chosen
    )


def make_token_stream(
    config: Config, process_index: int, process_count: int
) -> TokenStream:
    """The stream that a config describes.

    Args:
        config: its ``seed``, ``data`` and ``batch`` are read.
        process_index: which of the processes this is.
        process_count: how many processes share each batch.

    Raises:
        UserError: something in the config or the data cannot be used.
    """
    data, batch = config.data, config.batch
    store = open_corpus(data, config.init_from)
    lengths = token_rows.tokens_per_molecule(store)
    shapes = row_shapes(
        batch.form,
        batch.rows,
        batch.length,
        tuple(batch.buckets),
        batch.tokens,
        lengths,
    )
    split = split_corpus(
        store.keys,
        lengths,
        seed=data.split_seed,
        valid_fraction=data.valid_fraction,
        valid_max=data.valid_molecules_max,
        # A text that is cut anywhere has room for all.
        longest=0 if batch.form == "cut" else shapes[-1].length,
        subset=Subset(
            data.train_molecules, data.train_tokens, data.train_rows, batch.length
        ),
        deduplicate=data.deduplicate,
    )
    return TokenStream(
        store,
        split,
        shapes,
        form=batch.form,
        feeding=Feeding.of(config, process_index, process_count),
    )
