"""Epochs of molecules with coordinates: each batch is a function of (seed, epoch)."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.core.batches import DenoisingRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Epoch
from chemscale_jax.core.types import Config
from chemscale_jax.data.conformers import molecule_rows
from chemscale_jax.data.conformers.molecule_epoch import (
    MoleculeEpoch,
    Molecules,
    Reader,
)
from chemscale_jax.data.conformers.molecule_rows import BatchShape, MoleculePlan
from chemscale_jax.data.conformers.molecule_sources import open_molecules
from chemscale_jax.data.conformers.molecule_split import MoleculeSplit, split_molecules
from chemscale_jax.data.conformers.scaffold_sampling import KINDS, ScaffoldSampler
from chemscale_jax.data.feeding import ALONE, Feeding

SAMPLINGS = ("once", *KINDS)
# Molecules in which elements are counted.
_COUNTED = 20_000


class MoleculeStream:
    """Training epochs and the validation set of molecules with coordinates.

    Attributes:
        molecules: all of them.
        split: numbers of the molecules of each part.
        shapes: of the batches of all processes, one per room for atoms.
        evals: "valid".
        artifacts: what readers of a checkpoint need to know; JSON-able.
        batch_specs: shapes and types of the batches of all processes.
    """

    def __init__(
        self,
        molecules: Molecules,
        split: MoleculeSplit,
        shapes: Sequence[BatchShape],
        *,
        sampling: str = "once",
        tau: float = 0.005,
        temperature: float = 2.0,
        epoch_molecules: int = 0,
        feeding: Feeding = ALONE,
    ):
        """Plans the validation set and the first epoch.

        Args:
            molecules: a store of conformers.
            split: which of them to train and validate on; all fit the last shape.
            shapes: of the batches of all processes, by rising room.
            sampling: "once": each molecule once an epoch, in random order. Else one of
                `scaffold_sampling.KINDS`: an epoch is of draws with replacement.
            tau: of sampling "softmax".
            temperature: of sampling "tempered".
            epoch_molecules: draws of an epoch; 0: as many as there are molecules.
            feeding: order of epochs, and share of this process.

        Raises:
            UserError: processes cannot share the rows, or sampling makes no sense.
        """
        for shape in shapes:
            feeding.local(shape.rows)
        if sampling not in SAMPLINGS:
            raise UserError(
                f"config.data.sampling={sampling!r} is unknown: use one of {SAMPLINGS}"
            )
        if sampling == "once" and epoch_molecules:
            raise UserError(
                f"config.data.epoch_molecules={epoch_molecules} is for epochs of draws,"
                " but config.data.sampling is 'once'; set it to 0"
            )
        self.molecules = molecules
        self.split = split
        self.shapes = tuple(shapes)
        self._feeding = feeding
        self._read = Reader(molecules)
        self._atoms = np.asarray(molecules.atoms)
        self._counts = np.asarray(molecules.conformers)
        self._draws = epoch_molecules or len(split.train)
        self._sampling = sampling
        self._sampler = None
        if sampling != "once":
            self._sampler = ScaffoldSampler(
                np.asarray(molecules.scaffold)[split.train],
                sampling,
                seed=feeding.seed,
                tau=tau,
                temperature=temperature,
            )
        self.batch_specs = tuple(molecule_rows.batch_spec(s) for s in self.shapes)
        # A plan of millions of molecules takes seconds, and is asked for repeatedly.
        self._train_epochs = functools.lru_cache(maxsize=2)(self._train_epoch)
        plan = molecule_rows.plan_batches(self._atoms[split.valid], self.shapes, None)
        # The noise of a molecule is its own, whatever it is validated with.
        self._valid = self._epoch(
            split.valid, np.zeros(len(split.valid), int), split.valid, plan
        )
        self.evals: Mapping[str, Epoch] = {"valid": self._valid}
        self.artifacts: Mapping[str, Any] = self._artifacts()

    def _epoch(
        self,
        order: np.ndarray,
        conformers: np.ndarray,
        numbers: np.ndarray,
        plan: MoleculePlan,
    ) -> MoleculeEpoch:
        numbers = numbers.astype(np.uint32)
        return MoleculeEpoch(
            self._read, order, conformers, numbers, plan, self.shapes, self._feeding
        )

    def _train_epoch(self, epoch: int) -> MoleculeEpoch:
        rng = self._feeding.rng(epoch)
        if self._sampler is None:
            order = rng.permutation(self.split.train)
        else:
            order = self.split.train[self._sampler.draw(epoch, 0, self._draws)]
        conformers = (rng.random(len(order)) * self._counts[order]).astype(np.int64)
        plan = molecule_rows.plan_batches(self._atoms[order], self.shapes, rng)
        return self._epoch(order, conformers, np.arange(len(order)), plan)

    def train_epoch(self, epoch: int) -> MoleculeEpoch:
        """One pass over the training set, or as many draws.

        Order and conformers depend on seed and epoch only.
        """
        return self._train_epochs(epoch)

    def iterate(self, epoch: Epoch, start: int) -> Iterator[DenoisingRows]:
        """``epoch[start]``, ``epoch[start + 1]``, ... made ahead of time."""
        return self._feeding.iterate(epoch, start)

    @property
    def summary(self) -> str:
        """What was read, how it is split and batched, in one line."""
        split, facts = self.artifacts["split"], self.artifacts
        train, valid = facts["training_set"], facts["validation_set"]
        shapes = ", ".join(f"{rows} x {atoms}" for rows, atoms in self.shapes)
        kind = "scaffolds of their own" if split["kind"] == "scaffold" else "random"
        return (
            f"data: {facts['molecules']} molecules, {facts['left_out']} without usable "
            f"coordinates left out; {train['molecules']} to train on "
            f"({train['heavy_atoms']} heavy atoms, {train['conformers']} conformers, "
            f"{train['scaffolds']} scaffolds, sampled {self._sampling}), "
            f"{valid['molecules']} to validate ({kind}); batches of rows x atoms: "
            f"{shapes}, {facts['fill']['train']:.1%} of the rows filled"
        )

    def _artifacts(self) -> dict[str, Any]:
        counted = self.split.train[:_COUNTED]
        elements = np.zeros(256, np.int64)
        # The training set is in random order, so its beginning is a sample.
        for start in range(0, len(counted), 1024):
            for record in self.molecules.records(counted[start : start + 1024]):
                elements += np.bincount(record.species_N, minlength=256)
        return {
            "molecules": len(self.molecules),
            "left_out": len(self.molecules) - self.split.summary["molecules"],
            "training_set": size_of(self.molecules, self.split.train),
            "validation_set": size_of(self.molecules, self.split.valid),
            "elements": {str(z): int(elements[z]) for z in np.flatnonzero(elements)},
            "fill": {
                "train": round(self.train_epoch(0).fill, 4),
                "valid": round(self._valid.fill, 4),
            },
            "sampling": self._sampling,
            "batches": {"shapes": [list(shape) for shape in self.shapes]},
            "split": self.split.summary,
            "source": {k: v for k, v in self.molecules.info.items() if k != "shards"},
        }


def size_of(molecules: Molecules, members: np.ndarray) -> dict[str, int]:
    """Counts of some molecules, for people."""
    return {
        "molecules": len(members),
        "heavy_atoms": int(np.asarray(molecules.atoms)[members].sum(dtype=np.int64)),
        "conformers": int(
            np.asarray(molecules.conformers)[members].sum(dtype=np.int64)
        ),
        "scaffolds": len(np.unique(np.asarray(molecules.scaffold)[members])),
    }


def usable(molecules: Molecules, statuses: Sequence[str], max_atoms: int) -> np.ndarray:
    """Numbers of the molecules with coordinates to train on.

    Args:
        molecules: all of them.
        statuses: of records, such as "3d".
        max_atoms: larger ones are left out; 0: none are.
    """
    wanted = molecules.has_status(*statuses) & (np.asarray(molecules.conformers) > 0)
    if max_atoms:
        wanted = wanted & (np.asarray(molecules.atoms) <= max_atoms)
    if not wanted.any():
        raise UserError(
            f"none of {len(molecules)} molecules has coordinates of config.data."
            f"statuses={tuple(statuses)} and at most max_atoms={max_atoms} heavy atoms "
            "(0: any number); change them, or use other data"
        )
    return np.flatnonzero(wanted)


def make_molecule_stream(
    config: Config, process_index: int, process_count: int
) -> MoleculeStream:
    """The stream that a config describes.

    Args:
        config: its ``seed``, ``data`` and ``batch`` are read.
        process_index: which of the processes this is.
        process_count: how many processes share each batch.

    Raises:
        UserError: something in the config or the data cannot be used.
    """
    data, batch = config.data, config.batch
    molecules = open_molecules(data)
    members = usable(molecules, tuple(data.statuses), data.max_atoms)
    split = split_molecules(
        members,
        molecules.keys,
        molecules.scaffold,
        kind=data.split,
        seed=data.split_seed,
        valid_fraction=data.valid_fraction,
        valid_max=data.valid_molecules_max,
        train_max=data.train_molecules,
    )
    shapes = molecule_rows.batch_shapes(
        batch.form,
        batch.rows,
        batch.budget,
        tuple(batch.buckets),
        np.asarray(molecules.atoms)[members],
    )
    return MoleculeStream(
        molecules,
        split,
        shapes,
        sampling=data.sampling,
        tau=data.tau,
        temperature=data.temperature,
        epoch_molecules=data.epoch_molecules,
        feeding=Feeding.of(config, process_index, process_count),
    )
