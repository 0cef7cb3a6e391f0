"""Epochs of molecules with labels: each batch is a function of (seed, epoch)."""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from chemscale_jax.core.batches import PropertyRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Epoch
from chemscale_jax.core.target_scaling import fit_scaling, no_scaling, scale
from chemscale_jax.core.types import Config
from chemscale_jax.data.conformers import molecule_rows
from chemscale_jax.data.conformers.molecule_epoch import (
    KnownMolecule,
    MoleculeEpoch,
    Reader,
)
from chemscale_jax.data.conformers.molecule_rows import BatchShape, MoleculePlan
from chemscale_jax.data.conformers.molecule_stream import size_of
from chemscale_jax.data.feeding import ALONE, Feeding
from chemscale_jax.data.labels.labelled_molecules import (
    LabelledMolecules,
    open_labelled,
)
from chemscale_jax.data.labels.property_splits import PropertySplit, split_properties
from chemscale_jax.data.labels.split_files import write_split

FEATURES = ("keep", "drop")
# Rows that are left out, listed in the artifacts.
_LISTED = 20


class PropertyStream:
    """Training epochs, validation set and test set of molecules with labels.

    Attributes:
        molecules: all of them.
        split: numbers of the molecules of each part.
        shapes: of the batches of all processes, one per room for atoms.
        evals: "valid", and "heldout" where there is a test set; of each molecule the
            first conformer.
        artifacts: what readers of a checkpoint need to know; JSON-able.
        batch_specs: shapes and types of the batches of all processes.
    """

    def __init__(
        self,
        molecules: LabelledMolecules,
        split: PropertySplit,
        shapes: Sequence[BatchShape],
        *,
        scaling: str = "auto",
        features: str = "keep",
        feeding: Feeding = ALONE,
    ):
        """Fits the scaling and plans the first epoch.

        Args:
            molecules: with their labels.
            split: which of them to train and evaluate on; all fit the last shape.
            shapes: of the batches of all processes, by rising room.
            scaling: of numbers, one of `core.target_scaling.METHODS`.
            features: one of `FEATURES`.
            feeding: order of epochs, and share of this process.

        Raises:
            UserError: processes cannot share the rows, or labels cannot be scaled.
        """
        for shape in shapes:
            feeding.local(shape.rows)
        if features not in FEATURES:
            raise UserError(
                f"config.data.features={features!r} is unknown: use one of {FEATURES}"
            )
        self.molecules = molecules
        self.split = split
        self.shapes = tuple(shapes)
        self._feeding = feeding
        self._read = Reader(molecules, features == "drop")
        self._features = features
        self._atoms = np.asarray(molecules.atoms)
        self._counts = np.asarray(molecules.conformers)
        self._targets = _target_facts(molecules, split.train, scaling)
        self._make = MakePropertyRows(
            scale(molecules.targets_MT, self._targets["scaling"]).astype(np.float32)
        )
        self.batch_specs = tuple(
            jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
                self._make.empty(shape),
            )
            for shape in self.shapes
        )
        # A plan of millions of molecules takes seconds, and is asked for repeatedly.
        self._train_epochs = functools.lru_cache(maxsize=2)(self._train_epoch)
        self.evals: Mapping[str, Epoch] = {
            name: self.conformer_epoch(name, 1)
            for name in ("valid", "heldout")
            if len(self.members(name))
        }
        self.artifacts: Mapping[str, Any] = self._artifacts()

    def members(self, part: str) -> np.ndarray:
        """Numbers of the molecules of a part: train, valid, heldout."""
        return {
            "train": self.split.train,
            "valid": self.split.valid,
            "heldout": self.split.heldout,
        }[part]

    def _epoch(
        self,
        order: np.ndarray,
        conformers: np.ndarray,
        numbers: np.ndarray,
        plan: MoleculePlan,
    ) -> MoleculeEpoch:
        return MoleculeEpoch(
            self._read,
            order,
            conformers,
            numbers.astype(np.uint32),
            plan,
            self.shapes,
            self._feeding,
            self._make,
        )

    def _train_epoch(self, epoch: int) -> MoleculeEpoch:
        rng = self._feeding.rng(epoch)
        order = rng.permutation(self.split.train)
        conformers = (rng.random(len(order)) * self._counts[order]).astype(np.int64)
        plan = molecule_rows.plan_batches(self._atoms[order], self.shapes, rng)
        return self._epoch(order, conformers, np.arange(len(order)), plan)

    def train_epoch(self, epoch: int) -> MoleculeEpoch:
        """One pass over the training set, with a random conformer of each molecule.

        Order and conformers depend on seed and epoch only.
        """
        return self._train_epochs(epoch)

    def conformer_epoch(self, part: str, most: int = 0) -> MoleculeEpoch:
        """Every conformer of every molecule of a part once, for averages over them.

        `MoleculeEpoch.record_indices` tells which molecules a batch has.

        Args:
            part: train, valid or heldout.
            most: conformers of a molecule, the first ones; 0: all.
        """
        members = self.members(part)
        counts = self._counts[members].astype(np.int64)
        counts = np.minimum(counts, most) if most else counts
        order = np.repeat(members, counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        conformers = np.arange(len(order)) - first
        plan = molecule_rows.plan_batches(self._atoms[order], self.shapes, None)
        return self._epoch(order, conformers, np.arange(len(order)), plan)

    def iterate(self, epoch: Epoch, start: int) -> Iterator[PropertyRows]:
        """``epoch[start]``, ``epoch[start + 1]``, ... made ahead of time."""
        return self._feeding.iterate(epoch, start)

    def write_split(self, path: str | os.PathLike) -> None:
        """Writes the split as a table, which split "file" reads."""
        split, molecules = self.split, self.molecules
        parts = {"train": split.train, "valid": split.valid, "test": split.heldout}
        write_split(path, molecules.row, molecules.where, molecules.is_test, parts)

    @property
    def summary(self) -> str:
        """What was read, how it is split and batched, in one line."""
        facts = self.artifacts
        split, targets = facts["split"], facts["targets"]
        shapes = ", ".join(f"{rows} x {atoms}" for rows, atoms in self.shapes)
        statuses = ", ".join(f"{n} {name}" for name, n in facts["statuses"].items())
        names = ", ".join(
            f"{name} ({unit})" if unit else name
            for name, unit in zip(targets["names"], targets["units"], strict=True)
        )
        fold = f", fold {split['fold']} of {split['folds']}" if split["folds"] else ""
        return (
            f"data: {facts['molecules']} molecules ({statuses}), "
            f"{self.molecules.reasons}; {targets['kind']} of {names}; {split['train']} "
            f"to train on, {split['valid']} to validate, {split['heldout']} to test "
            f"(split {split['kind']}{fold}; {split['left_out_equal']} left out that "
            f"another part has too); batches of rows x atoms: {shapes}, "
            f"{facts['fill']:.1%} of the rows filled"
        )

    def _artifacts(self) -> dict[str, Any]:
        molecules, split = self.molecules, self.split
        info = molecules.info
        rows = {
            name: np.sort(molecules.row[self.members(name)]).tolist()
            for name in ("train", "valid", "heldout")
        }
        return {
            "targets": self._targets,
            "geometry": {
                "geometry": info["geometry"],
                "conformers": info["conformers"],
                "max_atoms": info["max_atoms"],
                "features": self._features,
            },
            "molecules": len(molecules),
            "left_out": len(molecules.rejected),
            "rejected": [list(one) for one in molecules.rejected[:_LISTED]],
            "statuses": molecules.statuses,
            "training_set": size_of(molecules, split.train),
            "validation_set": size_of(molecules, split.valid),
            "heldout_set": size_of(molecules, split.heldout),
            "fill": round(self.train_epoch(0).fill, 4),
            "batches": {"shapes": [list(shape) for shape in self.shapes]},
            "split": {**split.summary, "rows": rows},
            "source": dict(info),
        }


class MakePropertyRows:
    """Makes batches of labelled molecules; see `molecule_epoch.MakeBatch`."""

    def __init__(self, targets_MT: np.ndarray):
        """Keeps the labels of all molecules.

        Args:
            targets_MT: float32, scaled; NaN where there is no label.
        """
        self._targets_MT = targets_MT

    def empty(self, shape: BatchShape) -> PropertyRows:
        """Rows of padding, as writable arrays."""
        B, T = shape.rows, self._targets_MT.shape[1]
        targets: Any = np.zeros((B, T), np.float32)
        mask: Any = np.zeros((B, T), bool)
        number: Any = np.zeros(B, np.uint32)
        return PropertyRows(molecule_rows.empty_rows(shape), targets, mask, number)

    def __call__(
        self,
        known: Sequence[KnownMolecule],
        positions: Sequence[np.ndarray],
        indices: np.ndarray,
        numbers: np.ndarray,
        shape: BatchShape,
    ) -> PropertyRows:
        """The batch; see `molecule_epoch.MakeBatch`."""
        batch = self.empty(shape)
        labels = self._targets_MT[indices]
        labelled = np.isfinite(labels)
        batch.targets_BT[: len(known)] = np.where(labelled, labels, 0.0)
        batch.target_mask_BT[: len(known)] = labelled
        batch.number_B[: len(known)] = numbers
        features = [one.features for one in known]
        molecules = molecule_rows.molecule_rows(features, positions, shape)
        return batch._replace(molecules=molecules)


def _target_facts(
    molecules: LabelledMolecules, train: np.ndarray, method: str
) -> dict[str, Any]:
    """What the targets are, with what was fitted on the training set."""
    labels = molecules.targets_MT[train]
    names, T = molecules.target_names, len(molecules.target_names)
    labelled = np.isfinite(labels).sum(0)
    if not labelled.all():
        missing = [name for name, n in zip(names, labelled, strict=True) if not n]
        raise UserError(
            f"no molecule to train on has a label of {', '.join(missing[:5])}: leave "
            "these targets out, or split otherwise"
        )
    weight: list[float] = []
    scaling = no_scaling(T)
    if molecules.kind == "regression":
        scaling = fit_scaling(labels, method, names)
    elif molecules.kind == "binary":
        positive = (labels == 1).sum(0)
        # Without either kind, there is nothing to balance.
        weight = [
            float((n - p) / p) if 0 < p < n else 1.0
            for n, p in zip(labelled, positive, strict=True)
        ]
    return {
        "names": list(names),
        "units": list(molecules.units),
        "kind": molecules.kind,
        "classes": list(molecules.classes),
        "labelled": [int(n) for n in labelled],
        "scaling": scaling,
        "positive_weight": weight,
    }


def make_property_stream(
    config: Config, process_index: int, process_count: int
) -> PropertyStream:
    """The stream that a config describes.

    Args:
        config: its ``seed``, ``data`` and ``batch`` are read.
        process_index: which of the processes this is.
        process_count: how many processes share each batch.

    Raises:
        UserError: something in the config or the data cannot be used.
    """
    data, batch = config.data, config.batch
    molecules = open_labelled(data)
    split = split_properties(molecules, data)
    used = np.concatenate([split.train, split.valid, split.heldout])
    shapes = molecule_rows.batch_shapes(
        batch.form,
        batch.rows,
        batch.budget,
        tuple(batch.buckets),
        np.asarray(molecules.atoms)[used],
    )
    return PropertyStream(
        molecules,
        split,
        shapes,
        scaling=data.scaling,
        features=data.features,
        feeding=Feeding.of(config, process_index, process_count),
    )
