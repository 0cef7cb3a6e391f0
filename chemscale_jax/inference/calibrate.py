"""Energies after training on forces alone: one constant per element.

Forces fix the energy of a molecule up to a constant. The constant that labels ask for
is fitted as a sum over its atoms, ``E_label - E_predicted = sum_z n_z c_z``, by least
squares over training frames, and is added to predictions from then on. What the atoms'
elements cannot explain, such as a constant that differs between isomers, stays.
"""

from collections.abc import Mapping

import jax
import numpy as np

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.task import Task
from chemscale_jax.core.types import Config, Params
from chemscale_jax.core.workdir import Workdir, read_json, write_json
from chemscale_jax.data import STREAMS
from chemscale_jax.data.packs.stream import GraphStream
from chemscale_jax.inference.predict import GraphEpoch, predict_split
from chemscale_jax.tasks.force_losses import trains_energy
from chemscale_jax.training.checkpoint import best_step, load_variables

# Training frames that are looked at; a handful of constants needs no more.
FRAMES = 10_000


def calibrate_energy(
    task: Task,
    variables: Mapping[str, Params],
    stream: GraphStream,
    frames: int = FRAMES,
) -> dict[str, float]:
    """The constant of each element: ``{symbol: eV}``; empty without energy labels.

    Args:
        task: its ``predict_fn`` gives energies without reference energies.
        variables: ``params`` and ``constants``.
        stream: its training frames are used, in the order of the first epoch.
        frames: about how many.
    """
    epoch = stream.train_epoch(0)
    found = predict_split(task, variables, _First(epoch, frames))
    total = stream.source.total_energy[found.index]
    labelled = np.isfinite(total)
    if not labelled.any():
        return {}
    composition = stream.source.composition(found.index)
    missing = total - stream.reference.total(composition) - found.energy_pred
    solution, *_ = np.linalg.lstsq(composition[labelled], missing[labelled], rcond=None)
    return dict(zip(stream.source.element_symbols, solution.tolist(), strict=True))


def write_calibration(task: Task, config: Config, workdir: Workdir, lead: bool) -> None:
    """Adds ``calibration_ev`` to artifacts.json of a run that trained on forces alone.

    It belongs to the best checkpoint, whose step is kept as ``calibration_step``. Does
    nothing for runs that trained on energies, or on other things than molecules.

    Args:
        task: the task of the run.
        config: the whole config of the run.
        workdir: has at least one complete checkpoint.
        lead: whether this is the process that writes.
    """
    if not lead or config.task != "force_field" or trains_energy(config.loss):
        return
    stream = STREAMS[config.data.stream](config, 0, 1)
    if not isinstance(stream, GraphStream):
        return
    step = best_step(workdir)
    variables = jax.device_put(load_variables(workdir, step))
    found = calibrate_energy(task, variables, stream)
    if not found:
        return
    artifacts = read_json(workdir.artifacts_json)
    write_json(
        workdir.artifacts_json,
        {**artifacts, "calibration_ev": found, "calibration_step": step},
    )
    constants = ", ".join(f"{symbol} {energy:.4g}" for symbol, energy in found.items())
    print(f"trained on forces alone; energies calibrated by (eV per atom): {constants}")


class _First:
    """The first batches of an epoch, until they hold enough records."""

    def __init__(self, epoch: GraphEpoch, frames: int) -> None:
        self._epoch = epoch
        self._length, seen = 0, 0
        while self._length < len(epoch) and seen < frames:
            seen += len(epoch.record_indices(self._length))
            self._length += 1

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> GraphPack:
        return self._epoch[index]

    def record_ids(self, index: int) -> list[str]:
        return self._epoch.record_ids(index)

    def record_indices(self, index: int) -> np.ndarray:
        return self._epoch.record_indices(index)
