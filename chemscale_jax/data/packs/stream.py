"""Epochs of packed molecules: each batch is a function of (seed, epoch, index)."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Epoch
from chemscale_jax.data.feeding import ALONE, Feeding
from chemscale_jax.data.frames import duplicates, label_check
from chemscale_jax.data.frames.reference import ReferenceEnergies, reference_energies
from chemscale_jax.data.frames.source import FrameSource
from chemscale_jax.data.frames.sources import open_source
from chemscale_jax.data.frames.splits import Split, split_records
from chemscale_jax.data.frames.training_facts import training_facts
from chemscale_jax.data.packs import exact_batches, graphs, packing
from chemscale_jax.data.packs.neighbor_table import NeighborTable

# Keeps the order of an evaluation set apart from the orders of the epochs.
_EVAL_EPOCH = (1 << 32) + 1


class PackEpoch:
    """Batches of packs in a planned order; picklable, safe to read from threads."""

    def __init__(
        self,
        source: FrameSource,
        plan: packing.EpochPlan,
        budget: packing.PackBudget,
        edges: NeighborTable,
        pairs: NeighborTable | None,
        reference: ReferenceEnergies,
        rows: int,
        local_rows: slice,
    ):
        self.plan = plan
        self.budget = budget
        self._source = source
        self._edges = edges
        self._pairs = pairs
        self._reference = reference
        self._rows = rows
        self._local_rows = local_rows

    def __len__(self) -> int:
        return -(-len(self.plan) // self._rows)

    def _packs(self, index: int) -> list[np.ndarray]:
        """Record indices of this process's rows of a batch."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)}")
        first = index * self._rows
        packs = range(first, first + self._rows)[self._local_rows]
        return [self.plan.pack(p) for p in packs]

    def __getitem__(self, index: int) -> GraphPack:
        packs = self._packs(index)
        batch = graphs.empty_pack(len(packs), self.budget, self._source.periodic)
        for row, members in enumerate(packs):
            composition = self._source.composition(members)
            graphs.fill_row(
                batch,
                row,
                [self._source[int(i)] for i in members],
                [self._edges[int(i)] for i in members],
                self._reference.total(composition),
                None if self._pairs is None else [self._pairs[int(i)] for i in members],
            )
        return batch

    def record_ids(self, index: int) -> list[str]:
        """Names of the records in this process's rows of batch ``index``, in order."""
        packs = self._packs(index)
        return [self._source.record_id(int(i)) for members in packs for i in members]

    def record_indices(self, index: int) -> np.ndarray:
        """Source indices (int64) of the same records, in the same order."""
        return np.concatenate(self._packs(index))

    def fill(self) -> dict[str, float]:
        """Mean share of the rows that real atoms, edges and molecules take."""
        return packing.fill_fractions(
            self.plan, self._source.n_atoms, self._edges.counts, self.budget
        )


class GraphStream:
    """Training epochs and evaluation sets of packed molecules.

    Attributes:
        source: the records.
        split: record indices of each part.
        reference: energies of the elements, which the batches leave out.
        budget: array sizes of a row.
        rows: rows of a batch, of all processes together.
        evals: "valid", and "heldout" and "test" where the split has them.
        artifacts: what readers of a checkpoint need to know; JSON-able.
        batch_specs: shapes and types of the one kind of batch, of all processes.
    """

    def __init__(
        self,
        source: FrameSource,
        split: Split,
        *,
        cutoff_ang: float,
        molecules: int,
        nodes: int = 0,
        edges: int = 0,
        rows: int = 1,
        exact_molecules: int = 0,
        passes: int = 1,
        long_range: float | None = None,
        reference: str = "fit",
        labels: Mapping[str, Any] | None = None,
        feeding: Feeding = ALONE,
    ):
        """Prepares neighbour lists, reference energies and evaluation sets.

        Args:
            source: the records.
            split: which of them to train and evaluate on.
            cutoff_ang: longest edge.
            molecules: records per row, on average.
            nodes: atoms that a row has room for, one for padding among them; 0
                chooses it from the data.
            edges: edges that a row has room for; 0 chooses it from the data.
            rows: rows of a batch, of all processes together.
            exact_molecules: records of every training batch but the last, for
                studies of batch size; 0: as many as fill the rows.
            passes: how often an epoch takes each training record.
            long_range: longest distance in a second pair list, ``math.inf`` for all
                pairs of a molecule; None for no such list.
            reference: which energies of the elements to leave out, see
                `reference_energies`.
            labels: outcome of the label check; None where there was none.
            feeding: order of epochs, and share of this process.

        Raises:
            UserError: a record does not fit the budget, or processes cannot share
                the rows.
        """
        self._local_rows = feeding.local(rows)
        self.source = source
        self.split = split
        self.rows = rows
        self._feeding = feeding
        self._edges = NeighborTable(source, cutoff_ang)
        self._pairs = None if long_range is None else NeighborTable(source, long_range)
        n_pairs = None if self._pairs is None else self._pairs.counts
        self._sizes = {
            "n_atoms": source.n_atoms,
            "n_edges": self._edges.counts,
            "n_pairs": n_pairs,
        }
        self._exact = exact_molecules
        self.budget = _budget_for(
            source, split, molecules, self._sizes, exact_molecules, rows
        )
        self.budget = self.budget._replace(
            nodes=nodes or self.budget.nodes, edges=edges or self.budget.edges
        )
        packing.check_budget(
            self.budget, **self._sizes, among=split.used, name_of=source.record_id
        )
        self.reference = reference_energies(source, split.train, reference)
        self._labels = labels or {"outcome": "off", "reason": "not asked for"}
        self.batch_specs = (graphs.pack_spec(rows, self.budget, source.periodic),)
        # A plan of millions of records takes seconds, and is asked for several times.
        self._train_epochs = functools.lru_cache(maxsize=2)(
            functools.partial(
                self._epoch, split.train, exact=exact_molecules, passes=passes
            )
        )
        self.evals: Mapping[str, Epoch] = {
            name: self._epoch(indices, _EVAL_EPOCH)
            for name, indices in split.evaluated.items()
        }
        self.artifacts: Mapping[str, Any] = self._artifacts()

    @property
    def summary(self) -> str:
        """What was read and how it is split, in one line."""
        report, split, fill, labels, repeated = (
            self.artifacts[name]
            for name in ("source", "split", "fill", "label_check", "duplicates")
        )
        advice = self.source.train_warning(split["train"])
        skipped = sum(report.get("skipped", {}).values())
        units = ", ".join(report.get("units", {}).values())
        return (
            f"data: {report.get('path', report.get('name'))}, "
            f"method {report.get('method')}, {report.get('rows')} rows read in {units}"
            f" and converted to eV and angstrom; {report.get('nan_rows', 0)} rows with "
            f"NaN and {skipped} bad ones left out; {split['train']} frames to train on,"
            f" {split['valid']} to validate, {split['heldout']} of "
            f"{split['heldout_groups']} held-out molecules, {split['test']} to test "
            f"(split: {split['kind']}); {duplicates.summary_of(repeated)}; "
            f"{label_check.summary_of(labels)}; packs filled to "
            f"{fill['nodes']:.0%} (atoms) and {fill['edges']:.0%} (edges)"
            f"{advice and '; '}{advice}"
        )

    def _epoch(
        self, indices: np.ndarray, epoch: int, exact: int = 0, passes: int = 1
    ) -> PackEpoch:
        rng = self._feeding.rng(epoch)
        order = np.concatenate([rng.permutation(indices) for _ in range(passes)])
        sizes = self._sizes
        if exact:
            plan = exact_batches.plan_exact(
                order, budget=self.budget, molecules=exact, rows=self.rows, **sizes
            )
        else:
            plan = packing.plan_epoch(order, budget=self.budget, **sizes)
        return PackEpoch(
            self.source,
            plan,
            self.budget,
            self._edges,
            self._pairs,
            self.reference,
            self.rows,
            self._local_rows,
        )

    def train_epoch(self, epoch: int) -> PackEpoch:
        """One pass over the training set; the order depends on seed and epoch only."""
        return self._train_epochs(epoch)

    def iterate(self, epoch: Epoch, start: int) -> Iterator[GraphPack]:
        """``epoch[start]``, ``epoch[start + 1]``, ... made ahead by grain."""
        return self._feeding.iterate(epoch, start)

    def _artifacts(self) -> dict[str, Any]:
        train = self.split.train
        first = self.train_epoch(0)
        facts = training_facts(self.source, train)
        edges_per_atom = (
            self._edges.counts[train].sum() / self.source.n_atoms[train].sum()
        )
        return {
            "units": {"energy": "eV", "force": "eV/angstrom", "length": "angstrom"},
            "elements": self.source.element_symbols,
            "reference_energies_ev": self.reference.as_dict(),
            "reference_fit": self.reference.statistics,
            "split": self.split.summary,
            "label_check": dict(self._labels),
            "duplicates": duplicates.find_duplicates(self.source, self.split),
            "source": self.source.report,
            "data_identity": self.source.identity,
            "cutoff_ang": self._edges.cutoff_ang,
            "long_range_ang": None if self._pairs is None else self._pairs.cutoff_ang,
            "mean_atoms": float(self.source.n_atoms[train].mean()),
            # Named like the hyperparameters that may be taken from the training set.
            "statistics": {
                "elements": [int(z) for z in self.source.elements],
                "avg_num_neighbors": float(edges_per_atom),
                "energy_scale": facts.force_rms,
            },
            "training_range": facts.range,
            "labelled": facts.labelled,
            "budget": self.budget._asdict(),
            "rows": self.rows,
            "fill": {name: round(share, 4) for name, share in first.fill().items()},
        }


def _budget_for(
    source: FrameSource,
    split: Split,
    molecules: int,
    sizes: dict[str, Any],
    exact: int,
    rows: int,
) -> packing.PackBudget:
    """Row sizes from the training split, widened to hold every evaluated record."""
    parts: dict[str, Any] = {
        n: None if s is None else s[split.train] for n, s in sizes.items()
    }
    if exact:
        budget = exact_batches.choose_exact_budget(molecules=exact, rows=rows, **parts)
    else:
        budget = packing.choose_budget(molecules=molecules, **parts)
    used = split.used
    largest = {n: 0 if s is None else int(s[used].max()) for n, s in sizes.items()}
    return packing.PackBudget(
        nodes=max(budget.nodes, largest["n_atoms"] + 1),
        edges=max(budget.edges, largest["n_edges"]),
        molecules=budget.molecules,
        pairs=max(budget.pairs, largest["n_pairs"]),
    )


def make_stream(
    config: ml_collections.ConfigDict,
    cutoff_ang: float | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
) -> GraphStream:
    """The stream that a config describes.

    Args:
        config: its ``seed``, ``data`` and ``batch`` are read.
        cutoff_ang: longest edge; ``config.model.cutoff_ang`` if not given.
        process_index: which of the processes this is.
        process_count: how many processes share each batch. JAX is asked where one of
            the two is not given.

    Raises:
        UserError: something in the config or the data cannot be used.
    """
    if process_index is None or process_count is None:
        process_index, process_count = jax.process_index(), jax.process_count()
    # The type checker knows nothing of the fields of a ConfigDict.
    fields: Any = config
    cutoff = fields.model.cutoff_ang if cutoff_ang is None else cutoff_ang
    if not (cutoff > 0 and math.isfinite(cutoff)):
        raise UserError(
            f"config.model.cutoff_ang={cutoff}: the cutoff must be a positive length"
        )
    source = open_source(fields.data)
    split = split_records(
        source,
        fields.data.split_seed,
        kind=fields.data.split,
        block_frames=fields.data.block_frames,
        gap_frames=fields.data.gap_frames,
        max_train_atoms=fields.data.max_train_atoms,
        max_frames=fields.data.max_frames,
        train_size=fields.data.train_size,
        valid_size=fields.data.valid_size,
        heldout=fields.data.heldout,
    )
    labels = label_check.checked_labels(source, split.train, fields.data.label_check)
    return GraphStream(
        source,
        split,
        labels=labels,
        reference=fields.data.reference,
        cutoff_ang=cutoff,
        # Some models take a second pair list, of all pairs where this is infinite.
        long_range=fields.data.long_range_ang or None,
        passes=fields.data.passes,
        feeding=Feeding.of(fields, process_index, process_count),
        **{k: x for k, x in fields.batch.items() if k not in Feeding._fields},
    )
