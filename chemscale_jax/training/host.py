"""The host's side of one run: where it is, its rules, its log and its checkpoints."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Stream
from chemscale_jax.core.task import Metrics, Task
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training import checkpoint, evaluation, records, tse
from chemscale_jax.training.meter import Pace
from chemscale_jax.training.progress import EarlyStop, Plateau, Progress
from chemscale_jax.training.step import StepOutput, TrainState

# Steps that may be under way before the host looks at a result: enough to keep an
# accelerator busy, few enough to stop soon after a loss that is not finite.
LAG = 2
# Seconds between redrawings of the bar where nobody watches it move.
LOG_INTERVAL = 30.0

StartFrom = Callable[[checkpoint.Variables], checkpoint.Variables]


class Outcome(NamedTuple):
    """How a run ended."""

    progress: Progress
    state: str  # "finished", "paused", "interrupted" or "failed"
    reason: str


class Due(NamedTuple):
    """A step whose result the host has not looked at yet."""

    step: int
    epoch: int
    index: int
    output: StepOutput


class Scalars(NamedTuple):
    """What the host reads of the state at the end of an epoch."""

    tse: tse.Tse
    skipped: Any
    lr_scale: Any


class Host:
    """One run as the host sees it. The device state stays with the caller.

    Attributes:
        watched: the evaluation sets of every epoch; "valid", which steers the run,
            always is one.
        pause_after: completed epochs at which the run waits to be gone on with; None:
            it does not wait.
    """

    def __init__(
        self,
        task: Task,
        stream: Stream,
        config: Config,
        workdir: Workdir,
        lead: bool,
        pause_after: int | None = None,
    ) -> None:
        """Opens the checkpoints of a run.

        Args:
            task: the learning problem.
            stream: epochs of batches and evaluation sets.
            config: the whole config; ``seed``, ``train``, ``log`` and ``optimizer.lr``
                are read.
            workdir: an existing folder.
            lead: whether this process writes.
            pause_after: see `Host`.
        """
        self.task, self.stream, self.config, self.workdir = (
            task,
            stream,
            config,
            workdir,
        )
        self.lead = lead
        self.pause_after = pause_after
        self.rules = config.train
        self.watched = {
            name: epoch
            for name, epoch in stream.evals.items()
            if name == "valid" or name in self.rules.watch
        }
        self.checkpoints = checkpoint.Checkpoints(workdir, stream.artifacts)
        self.progress = Progress(
            plateau=Plateau(**self.rules.plateau.to_dict()),
            early_stop=EarlyStop(patience=self.rules.early_stop_epochs),
        )
        self.log: records.MetricLog | None = None

    def start(
        self,
        init: Callable[[int], TrainState],
        shardings: TrainState,
        start_from: StartFrom | None,
    ) -> TrainState:
        """The state of the last checkpoint, or a new one; opens the log there.

        Args:
            init: seed -> new state.
            shardings: of the state.
            start_from: replaces the parameters and constants of a new state.
        """
        if self.lead and self.checkpoints.ignored:
            names = ", ".join(self.checkpoints.ignored)
            print(f"ignored unfinished checkpoints: {names}")
        seed = self.config.seed
        if self.checkpoints.latest is None:
            state = init(seed)
            if start_from is not None:
                initial = {"params": state.params, "constants": state.constants}
                state = _with_variables(state, start_from(initial), shardings)
        else:
            shapes = jax.eval_shape(init, seed)
            state, self.progress = self.checkpoints.restore(
                shapes, shardings, self.checkpoints.latest
            )
            if self.lead:
                at = self.progress
                print(f"resumed at step {at.step}, epoch {at.epoch}")
        if self.lead:
            checkpoint.save_artifacts(self.workdir, self.stream.artifacts)
            self.log = records.MetricLog(
                self.workdir,
                self.progress.log_lines,
                records.make_writers(
                    self.config.log.writers, self.workdir, self.config.to_dict()
                ),
            )
        return state

    def close(self) -> None:
        """Waits for checkpoints and closes the log."""
        if self.log:
            self.log.close()
        self.checkpoints.close()

    def reason_to_stop(self) -> str:
        """Why the run is done; empty where it goes on."""
        progress, rules = self.progress, self.rules
        if progress.early_stop.stop:
            stale = progress.early_stop.stale_epochs
            return f"validation loss did not improve for {stale} epochs"
        if progress.epoch >= rules.epochs:
            return f"{rules.epochs} epochs done"
        if self.cut:
            return f"{rules.max_steps} steps done"
        return ""

    @property
    def paused(self) -> bool:
        """Whether the run waits here; one that is done does not wait."""
        due = self.pause_after is not None and self.progress.epoch >= self.pause_after
        return due and not self.reason_to_stop()

    @property
    def cut(self) -> bool:
        """Whether the limit of steps is reached."""
        return bool(self.rules.max_steps) and self.progress.step >= self.rules.max_steps

    def advance(self, output: StepOutput) -> Due:
        """Counts a step that was started."""
        at = self.progress
        self.progress = dataclasses.replace(at, step=at.step + 1, batch=at.batch + 1)
        return Due(self.progress.step, at.epoch, at.batch, output)

    def saves_now(self, epoch_length: int) -> bool:
        """Whether it is time for a checkpoint within the epoch."""
        every, at = self.rules.checkpoint_every_steps, self.progress
        return bool(every) and at.step % every == 0 and at.batch < epoch_length

    def look(self, due: Due, pace: Pace) -> None:
        """Takes in the result of a step: refuse it or log it.

        Args:
            due: its output is on the host.
            pace: of the last steps.

        Raises:
            UserError: loss or gradient is not finite, and the rule says to stop.
        """
        out = due.output
        if not out.finite and self.rules.on_nonfinite == "stop":
            ids = self.stream.train_epoch(due.epoch).record_ids(due.index)
            raise UserError(
                f"loss {out.loss} or gradient norm {out.grad_norm} is not finite at "
                f"step {due.step}, on records {_some(ids)}; last good checkpoint: "
                f"{_checkpoint_name(self.checkpoints)}; lower config.optimizer.lr, set "
                "config.optimizer.clip_norm, or config.train.on_nonfinite=skip"
            )
        if self.log and due.step % self.config.log.every_steps == 0:
            self.log.write(
                due.step,
                due.epoch,
                "train",
                {
                    "loss": (float(out.loss), 1, ""),
                    "lr": (float(out.lr), 1, ""),
                    "grad_norm": (float(out.grad_norm), 1, ""),
                    **evaluation.values(out.metrics, self.task),
                },
                {
                    f"{self.task.counter}_per_s": round(pace.rate, 1),
                    "input_wait": round(pace.wait, 3),
                },
            )

    def save(self, state: TrainState, valid_loss: float | None) -> None:
        """Starts to save a checkpoint of this very moment."""
        lines = self.log.lines if self.log else 0
        self.progress = dataclasses.replace(self.progress, log_lines=lines)
        self.checkpoints.save(state, self.progress, valid_loss)

    def validated(
        self, results: Mapping[str, Metrics], scalars: Scalars, epoch_length: int
    ) -> tuple[float, Any]:
        """Logs a validation, applies the rules and moves on to the next epoch.

        Args:
            results: metrics of every watched set.
            scalars: of the state that was validated, on the host.
            epoch_length: batches of the running epoch. Where not all of them were
                trained on, the rules, which count epochs, are not applied.

        Returns:
            The validation loss, and the ``lr_scale`` to go on with.
        """
        at = self.progress
        ended = at.batch == epoch_length
        loss = evaluation.loss(results["valid"], self.task)
        if self.log:
            if ended:
                _log_epoch(self.log, at, scalars, epoch_length)
            for name, metrics in results.items():
                values = {"loss": (evaluation.loss(metrics, self.task), 1, "")}
                values |= evaluation.values(metrics, self.task)
                self.log.write(at.step, at.epoch, name, values)
        lr_scale = scalars.lr_scale
        if ended:
            at = dataclasses.replace(
                at, early_stop=at.early_stop.update(loss), epoch=at.epoch + 1, batch=0
            )
            if self.rules.use_plateau:
                # The rule is stated in learning rates; the state holds the factor.
                peak = self.config.optimizer.lr
                lr = peak * float(lr_scale)
                plateau, new_lr = at.plateau.update(loss, lr)
                at = dataclasses.replace(at, plateau=plateau)
                lr_scale = lr_scale if new_lr == lr else np.float32(new_lr / peak)
        if loss < at.best_loss:
            at = dataclasses.replace(at, best_loss=loss, best_step=at.step)
        self.progress = at
        return loss, lr_scale


def planned_steps(epochs: int, max_steps: int, epoch_length: int) -> int:
    """How many steps a run takes at most."""
    steps = epochs * epoch_length
    return min(steps, max_steps or steps)


def paused_after(progress: Progress) -> str:
    """Why a run waits."""
    return f"{progress.epoch} epochs done; goes on when asked to"


def _with_variables(
    state: TrainState, variables: checkpoint.Variables, shardings: TrainState
) -> TrainState:
    params = jax.device_put(variables["params"], shardings.params)
    constants = jax.device_put(variables["constants"], shardings.constants)
    ema = jax.tree.map(lambda x: x.copy(), params) if state.ema_params else {}
    return state._replace(params=params, constants=constants, ema_params=ema)


def _log_epoch(
    log: records.MetricLog, progress: Progress, scalars: Scalars, steps: int
) -> None:
    """The record per epoch: mean training loss and every form of TSE."""
    speed = scalars.tse
    log.write(
        progress.step,
        progress.epoch,
        "epoch",
        {
            "train_loss": (float(speed.last), steps, ""),
            "tse": (float(speed.tse), progress.epoch + 1, ""),
            "tse_last": (float(speed.last), 1, ""),
            "tse_ema": (float(speed.ema), progress.epoch + 1, ""),
            "skipped_steps": (float(scalars.skipped), 1, ""),
        },
    )


def _some(ids: list[str], most: int = 8) -> str:
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def _checkpoint_name(checkpoints: checkpoint.Checkpoints) -> str:
    checkpoints.wait()
    latest = checkpoints.latest
    return "none yet" if latest is None else f"checkpoints/{latest}"
