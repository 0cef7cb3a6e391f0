"""The one training loop, to be read from top to bottom."""

import collections
import contextlib
import sys
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from chemscale_jax.core import partition
from chemscale_jax.core.stream import Stream
from chemscale_jax.core.task import Task
from chemscale_jax.core.types import Batch, Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training import evaluation
from chemscale_jax.training.host import (
    LAG,
    LOG_INTERVAL,
    Due,
    Host,
    Outcome,
    Scalars,
    StartFrom,
    paused_after,
    planned_steps,
)
from chemscale_jax.training.meter import Meter
from chemscale_jax.training.optimizer import Optimizer
from chemscale_jax.training.signals import StopRequest
from chemscale_jax.training.step import (
    choose_slices,
    make_eval_step,
    make_init,
    make_train_step,
)


def train(
    task: Task,
    stream: Stream,
    optimizer: Optimizer,
    config: Config,
    workdir: Workdir,
    mesh: Mesh,
    start_from: StartFrom | None = None,
    on_first_step: Callable[[], None] = lambda: None,
    pause_after: int | None = None,
) -> Outcome:
    """Trains until a rule says stop, resuming from the workdir's last checkpoint.

    Args:
        task: the learning problem.
        stream: epochs of batches and evaluation sets.
        optimizer: see ``make_optimizer``.
        config: the whole config; this function and the `Host` read ``seed``,
            ``train``, ``log``, ``optimizer.lr`` and ``batch.rows``.
        workdir: an existing folder.
        mesh: the devices.
        start_from: replaces the initial parameters and constants of a new run.
        on_first_step: called once the first step's result is there.
        pause_after: completed epochs after which the run waits to be gone on with.
    """
    lead = jax.process_index() == 0
    rules = config.train
    rows = partition.row_sharding(mesh)
    whole = partition.replicated(mesh)

    # Programs.
    slices = choose_slices(task.batch_specs, rules.rows_at_once, mesh)
    init, shardings = make_init(task, optimizer, config.mesh.rules.to_dict(), mesh)
    # The seed is an argument, so that runs of all seeds share one program.
    train_step = jax.jit(
        lambda state, batch, ends, seed: make_train_step(task, optimizer, seed, slices)(
            state, batch, ends
        ),
        in_shardings=(shardings, rows, whole, whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
    seed = jax.device_put(np.int32(config.seed), whole)
    eval_step = jax.jit(
        make_eval_step(task, optimizer.ema_decay > 0, slices),
        in_shardings=(shardings, rows),
        out_shardings=whole,
    )

    def put(batch: Batch) -> Batch:
        if jax.process_count() == 1:
            return jax.device_put(batch, rows)
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(rows, x), batch
        )

    # State: from the last checkpoint, or new.
    closing = contextlib.ExitStack()
    host = Host(task, stream, config, workdir, lead, pause_after)
    closing.callback(host.close)
    state = host.start(init, shardings, start_from)
    bar = tqdm(
        total=planned_steps(
            rules.epochs, rules.max_steps, len(stream.train_epoch(host.progress.epoch))
        ),
        initial=host.progress.step,
        unit="step",
        dynamic_ncols=True,
        disable=not lead,
        mininterval=0.1 if sys.stderr.isatty() else LOG_INTERVAL,
    )
    closing.callback(bar.close)
    meter = Meter()
    due: collections.deque[Due] = collections.deque()
    first = True

    def look(item: Due) -> None:
        """Takes in the result of a step: refuse, log, show."""
        nonlocal first
        out = jax.device_get(item.output)
        if first:
            on_first_step()
            first = False
        meter.add(float(out.metrics[task.counter].total))
        pace = meter.pace()
        host.look(item._replace(output=out), pace)
        bar.set_postfix_str(
            f"loss {out.loss:.4g}, lr {out.lr:.3g}, {pace.line(task.counter)}",
            refresh=False,
        )
        bar.update()

    def look_at_all() -> None:
        while due:
            look(due.popleft())

    with closing, jax.set_mesh(mesh), StopRequest() as request:
        while not (reason := host.reason_to_stop()):
            if host.paused:
                return Outcome(host.progress, "paused", paused_after(host.progress))
            epoch = stream.train_epoch(host.progress.epoch)
            batches = stream.iterate(epoch, host.progress.batch)

            # One epoch.
            for index in range(host.progress.batch, len(epoch)):
                ends = index + 1 == len(epoch)
                with meter.waiting():
                    batch = next(batches)
                state, output = train_step(
                    state,
                    put(batch),
                    jax.device_put(np.bool_(ends), whole),
                    seed,
                )
                due.append(host.advance(output))
                if len(due) > LAG:
                    look(due.popleft())
                if request.after_step() or host.cut:
                    break
                if host.saves_now(len(epoch)):
                    look_at_all()
                    host.save(state, None)
            look_at_all()
            if request.received:
                host.save(state, None)
                return Outcome(host.progress, "interrupted", f"got {request.received}")

            # Its end: validate, log, apply the rules, save.
            results = {
                name: evaluation.evaluate(
                    eval_step, state, stream.iterate(split, 0), put
                )
                for name, split in host.watched.items()
            }
            if lead:
                line = evaluation.line(host.progress, results, task)
                bar.write(line, file=sys.stdout)
                sys.stdout.flush()
            scalars = Scalars(state.tse, state.skipped, state.lr_scale)
            loss, lr_scale = host.validated(
                results, jax.device_get(scalars), len(epoch)
            )
            state = state._replace(lr_scale=jax.device_put(lr_scale, whole))
            host.save(state, loss)
    return Outcome(host.progress, "finished", reason)
