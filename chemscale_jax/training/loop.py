"""The one training loop, to be read from top to bottom."""

import collections
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Stream
from chemscale_jax.core.task import Metrics, Task
from chemscale_jax.core.types import Batch, Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training import checkpoint, evaluation, records
from chemscale_jax.training.optimizer import Optimizer
from chemscale_jax.training.progress import EarlyStop, Plateau, Progress
from chemscale_jax.training.signals import StopRequest
from chemscale_jax.training.step import (
    StepOutput,
    TrainState,
    choose_slices,
    make_eval_step,
    make_init,
    make_train_step,
)

# Steps that may be under way before the host looks at a result: enough to keep an
# accelerator busy, few enough to stop soon after a loss that is not finite.
_LAG = 2
# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0


class Outcome(NamedTuple):
    """How a run ended."""

    progress: Progress
    state: str  # "finished" or "interrupted"
    reason: str


class _Due(NamedTuple):
    """A step whose result the host has not looked at yet."""

    step: int
    epoch: int
    index: int
    output: StepOutput


def train(
    task: Task,
    stream: Stream,
    optimizer: Optimizer,
    config: Config,
    workdir: Workdir,
    mesh: Mesh,
    start_from: Callable[[checkpoint.Variables], checkpoint.Variables] | None = None,
    on_first_step: Callable[[], None] = lambda: None,
) -> Outcome:
    """Trains until a rule says stop, resuming from the workdir's last checkpoint.

    Args:
        task: the learning problem.
        stream: epochs of batches and evaluation sets.
        optimizer: see ``make_optimizer``.
        config: the whole config; this function reads ``seed``, ``train``,
            ``log`` and ``batch.rows``.
        workdir: an existing folder.
        mesh: the devices.
        start_from: replaces the initial parameters and constants of a new run.
        on_first_step: called once the first step's result is there.
    """
    lead = jax.process_index() == 0
    rules = config.train
    rows = partition.row_sharding(mesh)
    whole = partition.replicated(mesh)

    # Programs.
    slices = choose_slices(config.batch.rows, rules.rows_at_once, mesh)
    init, shardings = make_init(task, optimizer, config.mesh.rules.to_dict(), mesh)
    train_step = jax.jit(
        make_train_step(task, optimizer, config.seed, slices),
        in_shardings=(shardings, rows, whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
    eval_step = jax.jit(
        make_eval_step(task, optimizer.ema_decay > 0, slices),
        in_shardings=(shardings, rows),
        out_shardings=whole,
    )

    def put(batch: Batch) -> Batch:
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(rows, x), batch
        )

    # State: from the last checkpoint, or new.
    closing = contextlib.ExitStack()
    checkpoints = checkpoint.Checkpoints(workdir, stream.artifacts)
    closing.callback(checkpoints.close)
    if lead and checkpoints.ignored:
        print(f"ignored unfinished checkpoints: {', '.join(checkpoints.ignored)}")
    if checkpoints.latest is None:
        state = init(config.seed)
        if start_from is not None:
            initial = {"params": state.params, "constants": state.constants}
            state = _with_variables(state, start_from(initial), shardings)
        progress = Progress(
            plateau=Plateau(**rules.plateau.to_dict()),
            early_stop=EarlyStop(patience=rules.early_stop_epochs),
        )
    else:
        shapes = jax.eval_shape(lambda: init(config.seed))
        state, progress = checkpoints.restore(shapes, shardings, checkpoints.latest)
        if lead:
            print(f"resumed at step {progress.step}, epoch {progress.epoch}")

    log = None
    if lead:
        checkpoint.save_artifacts(workdir, stream.artifacts)
        log = records.MetricLog(
            workdir,
            progress.log_lines,
            records.make_writers(config.log.writers, workdir, config.to_dict()),
        )
        closing.callback(log.close)
    epoch_length = len(stream.train_epoch(progress.epoch))
    steps_planned = min(rules.epochs * epoch_length, rules.max_steps or sys.maxsize)
    bar = tqdm(
        total=steps_planned,
        initial=progress.step,
        unit="step",
        dynamic_ncols=True,
        disable=not lead,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    )
    closing.callback(bar.close)
    meter = _Meter(task.counter)
    due: collections.deque[_Due] = collections.deque()
    first = True

    def look(item: _Due) -> None:
        """Takes in the result of a step: refuse, log, show."""
        nonlocal first
        out = jax.device_get(item.output)
        if first:
            on_first_step()
            first = False
        if not out.finite and rules.on_nonfinite == "stop":
            ids = stream.train_epoch(item.epoch).record_ids(item.index)
            raise UserError(
                f"loss {out.loss} or gradient norm {out.grad_norm} is not finite at "
                f"step {item.step}, on records {_some(ids)}; last good checkpoint: "
                f"{_checkpoint_name(checkpoints)}; lower config.optimizer.lr, set "
                "config.optimizer.clip_norm, or config.train.on_nonfinite=skip"
            )
        meter.add(out.metrics)
        bar.set_postfix_str(
            f"loss {out.loss:.4g}, lr {out.lr:.3g}, "
            f"{meter.rate():.0f} {task.counter}/s",
            refresh=False,
        )
        bar.update()
        if log and item.step % config.log.every_steps == 0:
            log.write(
                item.step,
                item.epoch,
                "train",
                {
                    "loss": (float(out.loss), 1, ""),
                    "lr": (float(out.lr), 1, ""),
                    "grad_norm": (float(out.grad_norm), 1, ""),
                    **evaluation.values(out.metrics, task),
                },
                {f"{task.counter}_per_s": round(meter.rate(), 1)},
            )

    def look_at_all() -> None:
        while due:
            look(due.popleft())

    def save(valid_loss: float | None) -> None:
        nonlocal progress
        progress = dataclasses.replace(progress, log_lines=log.lines if log else 0)
        checkpoints.save(state, progress, valid_loss)

    with closing, StopRequest() as request:
        while True:
            reason = _reason_to_stop(progress, rules)
            if reason:
                outcome = Outcome(progress, "finished", reason)
                break
            epoch = stream.train_epoch(progress.epoch)
            batches = stream.iterate(epoch, progress.batch)

            # One epoch.
            for index in range(progress.batch, len(epoch)):
                ends = index + 1 == len(epoch)
                state, output = train_step(
                    state, put(next(batches)), jax.device_put(np.bool_(ends), whole)
                )
                progress = dataclasses.replace(
                    progress, step=progress.step + 1, batch=index + 1
                )
                due.append(_Due(progress.step, progress.epoch, index, output))
                if len(due) > _LAG:
                    look(due.popleft())
                cut = bool(rules.max_steps) and progress.step >= rules.max_steps
                if request.received or cut:
                    break
                every = rules.checkpoint_every_steps
                if every and progress.step % every == 0 and not ends:
                    look_at_all()
                    save(None)
            look_at_all()
            if request.received:
                save(None)
                outcome = Outcome(progress, "interrupted", f"got {request.received}")
                break

            # Its end: log, validate, apply the rules, save.
            ended = progress.batch == len(epoch)
            if log and ended:
                _log_epoch(log, progress, state, len(epoch))
            results = {}
            for name, split in stream.evals.items():
                results[name] = evaluation.evaluate(
                    eval_step, state, stream.iterate(split, 0), put
                )
            loss = evaluation.loss(results["valid"], task)
            if log:
                for name, metrics in results.items():
                    values = {"loss": (evaluation.loss(metrics, task), 1, "")}
                    values |= evaluation.values(metrics, task)
                    log.write(progress.step, progress.epoch, name, values)
                bar.write(evaluation.line(progress, results, task), file=sys.stdout)
                sys.stdout.flush()
            if ended:
                state, progress = _apply_rules(state, progress, loss, config, whole)
            if loss < progress.best_loss:
                progress = dataclasses.replace(
                    progress, best_loss=loss, best_step=progress.step
                )
            if ended:
                progress = dataclasses.replace(
                    progress, epoch=progress.epoch + 1, batch=0
                )
            save(loss)
    return outcome


def _reason_to_stop(progress: Progress, rules: Config) -> str:
    if progress.early_stop.stop:
        return (
            f"validation loss did not improve for {progress.early_stop.stale_epochs} "
            "epochs"
        )
    if progress.epoch >= rules.epochs:
        return f"{rules.epochs} epochs done"
    if rules.max_steps and progress.step >= rules.max_steps:
        return f"{rules.max_steps} steps done"
    return ""


def _apply_rules(
    state: TrainState, progress: Progress, loss: float, config: Config, whole: Any
) -> tuple[TrainState, Progress]:
    """Plateau and early stop, once per epoch, on the validation loss."""
    progress = dataclasses.replace(
        progress, early_stop=progress.early_stop.update(loss)
    )
    if not config.train.use_plateau:
        return state, progress
    # The rule is stated in learning rates; the state holds the factor.
    lr = config.optimizer.lr * float(jax.device_get(state.lr_scale))
    plateau, new_lr = progress.plateau.update(loss, lr)
    if new_lr != lr:
        scale = np.float32(new_lr / config.optimizer.lr)
        state = state._replace(lr_scale=jax.device_put(scale, whole))
    return state, dataclasses.replace(progress, plateau=plateau)


def _with_variables(
    state: TrainState, variables: checkpoint.Variables, shardings: TrainState
) -> TrainState:
    params = jax.device_put(variables["params"], shardings.params)
    constants = jax.device_put(variables["constants"], shardings.constants)
    ema = jax.tree.map(lambda x: x.copy(), params) if state.ema_params else {}
    return state._replace(params=params, constants=constants, ema_params=ema)


def _log_epoch(
    log: records.MetricLog, progress: Progress, state: TrainState, steps: int
) -> None:
    """The record per epoch: mean training loss and every form of TSE."""
    speed = jax.device_get(state.tse)
    log.write(
        progress.step,
        progress.epoch,
        "epoch",
        {
            "train_loss": (float(speed.last), steps, ""),
            "tse": (float(speed.tse), progress.epoch + 1, ""),
            "tse_last": (float(speed.last), 1, ""),
            "tse_ema": (float(speed.ema), progress.epoch + 1, ""),
            "skipped_steps": (float(jax.device_get(state.skipped)), 1, ""),
        },
    )


def _some(ids: list[str], most: int = 8) -> str:
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def _checkpoint_name(checkpoints: checkpoint.Checkpoints) -> str:
    checkpoints.wait()
    latest = checkpoints.latest
    return "none yet" if latest is None else f"checkpoints/{latest}"


class _Meter:
    """Examples per second over the last steps."""

    def __init__(self, counter: str) -> None:
        self._counter = counter
        self._seen: collections.deque[tuple[float, float]] = collections.deque(
            maxlen=50
        )

    def add(self, metrics: Metrics) -> None:
        self._seen.append((time.monotonic(), float(metrics[self._counter].total)))

    def rate(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        elapsed = self._seen[-1][0] - self._seen[0][0]
        return sum(n for _, n in list(self._seen)[1:]) / max(elapsed, 1e-9)
