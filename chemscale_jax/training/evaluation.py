"""Metrics of whole splits, and how they are shown."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from chemscale_jax.core.task import Metrics, Task
from chemscale_jax.core.types import Batch
from chemscale_jax.training.progress import Progress
from chemscale_jax.training.step import TrainState


def evaluate(
    eval_step: Callable[[TrainState, Batch], Metrics],
    state: TrainState,
    batches: Iterator[Batch],
    put: Callable[[Batch], Batch],
) -> Metrics:
    """The metrics of a whole split, summed in float64 before they are divided."""
    total: Any = None
    for batch in batches:
        total = add(total, jax.device_get(eval_step(state, put(batch))))
    return total


def add(total: Any, part: Metrics) -> Any:
    """A sum in float64 on the host; a total of None is empty."""
    part = jax.tree.map(np.float64, part)
    return part if total is None else jax.tree.map(np.add, total, part)


def loss(metrics: Metrics, task: Task) -> float:
    """The task's loss, from means whose sums are on the host."""
    return float(sum(w * value(metrics[name]) for name, w in task.loss_weights.items()))


def value(mean: Any) -> float:
    """A mean as a number; 0 where nothing was counted."""
    return float(mean.total) / max(float(mean.count), 1.0)


def values(metrics: Metrics, task: Task) -> dict[str, tuple[float, float, str]]:
    """``{name: (value, count, unit)}`` for the log."""
    return {
        name: (value(mean), float(mean.count), task.units.get(name, ""))
        for name, mean in sorted(metrics.items())
        if name != task.counter
    }


def line(progress: Progress, results: Mapping[str, Metrics], task: Task) -> str:
    """One line per validation, in physical units beside the loss."""
    parts = [f"epoch {progress.epoch + 1}, step {progress.step}"]
    for split, metrics in results.items():
        shown = [f"loss {loss(metrics, task):.4g}"]
        shown += [
            f"{name} {value(metrics[name]):.4g} {task.units[name]}"
            for name in task.headline
            if name in metrics
        ]
        parts.append(f"{split}: " + ", ".join(shown))
    return " | ".join(parts)
