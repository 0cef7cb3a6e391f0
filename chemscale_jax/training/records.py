"""Writes the log of a run; ``core/workdir.py`` reads it."""

import importlib
import importlib.util
import json
import math
import time
from collections.abc import Mapping
from typing import Any, Protocol

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir

# Name in config.log.writers, which is also the extra that installs it: its module.
WRITERS = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Writer(Protocol):
    """Something that also wants the metrics, beside metrics.jsonl."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes values named ``split/name``."""
        ...

    def close(self) -> None:
        """Flushes what is pending."""
        ...


class MetricLog:
    """Appends records to metrics.jsonl, one flushed line each.

    Everything but the field ``time`` is a function of the config, so a resumed run
    writes the same records as an unbroken one.
    """

    def __init__(
        self, workdir: Workdir, lines: int, writers: tuple[Writer, ...] = ()
    ) -> None:
        """Opens the log and drops what was written after its first ``lines``."""
        truncate(workdir, lines)
        self.lines = lines
        self._file = workdir.metrics_jsonl.open("a")
        self._writers = writers
        self._start = time.monotonic()

    def write(
        self,
        step: int,
        epoch: int,
        split: str,
        values: Mapping[str, tuple[float, float, str]],
        timing: Mapping[str, float] | None = None,
    ) -> None:
        """Writes metrics of one moment.

        Args:
            step: batches seen.
            epoch: the running epoch, from 0.
            split: "train", "epoch" or the name of an evaluation set.
            values: {name: (value, count, unit)}; the count says over how many
                elements the value is a mean.
            timing: rates, which differ from run to run.
        """
        clock = {
            "unix": round(time.time(), 3),
            "run_s": round(time.monotonic() - self._start, 3),
            **(timing or {}),
        }
        for name, (value, count, unit) in values.items():
            record = {
                "step": step,
                "epoch": epoch,
                "split": split,
                "name": name,
                # JSON has no infinities; None stands for a value that is not finite.
                "value": value if math.isfinite(value) else None,
                "count": count,
                "unit": unit,
                "time": clock,
            }
            self._file.write(json.dumps(record) + "\n")
            self.lines += 1
        self._file.flush()
        named = {f"{split}/{name}": value for name, (value, _, _) in values.items()}
        for writer in self._writers:
            writer.write(step, named)

    def close(self) -> None:
        """Closes the file and the other writers."""
        self._file.close()
        for writer in self._writers:
            writer.close()


def truncate(workdir: Workdir, lines: int) -> None:
    """Keeps the first ``lines`` records of metrics.jsonl, those a checkpoint knew."""
    path = workdir.metrics_jsonl
    if not path.exists():
        return
    kept = path.read_text().split("\n")[:lines]
    draft = path.with_suffix(".jsonl.new")
    draft.write_text("".join(f"{line}\n" for line in kept))
    draft.replace(path)


def make_writers(
    names: tuple[str, ...], workdir: Workdir, config: Mapping[str, Any]
) -> tuple[Writer, ...]:
    """The additional writers of ``config.log.writers``."""
    made: list[Writer] = []
    for name in names:
        if name == "tensorboard":
            made.append(_TensorBoard(workdir))
        elif name == "wandb":
            made.append(_WeightsAndBiases(workdir, config))
    return tuple(made)


def check_writers(names: tuple[str, ...]) -> None:
    """Raises for a writer that there is not, or that is not installed."""
    for name in names:
        if name not in WRITERS:
            raise UserError(
                f"config.log.writers has {name!r}, expected some of {list(WRITERS)}"
            )
        if importlib.util.find_spec(WRITERS[name]) is None:
            raise UserError(
                f"config.log.writers has {name!r}, but {WRITERS[name]} is not "
                f"installed; pip install 'chemscale_jax[{name}]'"
            )


class _TensorBoard:
    def __init__(self, workdir: Workdir) -> None:
        tensorboard = importlib.import_module(WRITERS["tensorboard"])
        self._writer = tensorboard.SummaryWriter(str(workdir.path / "tensorboard"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, workdir: Workdir, config: Mapping[str, Any]) -> None:
        # The same id continues the same curve after a resume.
        self._run = importlib.import_module(WRITERS["wandb"]).init(
            project="chemscale_jax",
            id=workdir.path.name,
            resume="allow",
            dir=str(workdir.path),
            config=dict(config),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
