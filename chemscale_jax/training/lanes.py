"""Runs that share shapes train as lanes of one program.

Every array of the state and of a batch gets a leading axis of lanes. A lane has its
own seed, data order, learning rate, weight decay, loss weights, plateau, early stop
and training speed, and equals the same run alone: the program maps the step of the
solo loop, and the host keeps a `Host` for each lane. On disk a lane is an ordinary
run, with its own log and checkpoints, from which it is also resumed; so lanes need
not stand at the same step, and one of them may go on alone.

Lanes go through their epochs side by side. One whose epoch is shorter, that is done
or that has failed stands still: its state does not move.
"""

import collections
import contextlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Stream
from chemscale_jax.core.task import Metrics, Task
from chemscale_jax.training import evaluation
from chemscale_jax.training.host import (
    LAG,
    LOG_INTERVAL,
    Due,
    Host,
    Outcome,
    paused_after,
    planned_steps,
)
from chemscale_jax.training.lane_programs import Lane, LanePrograms
from chemscale_jax.training.meter import Meter
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.setup import differences
from chemscale_jax.training.signals import StopRequest

# Outcomes of all lanes -> ``pause_after``.
OnRest = Callable[[list[Outcome]], Sequence[int | None]]
# Fields in which the configs of lanes may differ; all else is shared by the program.
_OWN = re.compile(
    "name|form|seed|workdir|loss[.](alpha_|final_alpha_|schedule|change_).*"
    "|optimizer[.](lr|weight_decay|schedule|warmup_steps|decay_steps|final_fraction"
    "|cooldown_fraction)|train[.](epochs|max_steps|early_stop_epochs|use_plateau"
    "|plateau[.].*)"
)


def train(
    lanes: Sequence[Lane],
    mesh: Mesh,
    on_first_step: Callable[[], None] = lambda: None,
    pause_after: Sequence[int | None] = (),
    on_rest: OnRest | None = None,
) -> list[Outcome]:
    """Trains every lane until a rule tells it to stop, resuming those that can.

    A lane whose loss is not finite fails, if its config says to stop then; the others
    go on as if it were not there.

    Args:
        lanes: their tasks differ in loss weights at most.
        mesh: the devices; lanes are spread over them, or rows where devices are more.
        on_first_step: called once the first step's result is there.
        pause_after: of each lane, completed epochs after which it waits to be gone on
            with; None or nothing: it does not wait.
        on_rest: called once no lane moves any more, with all saved; gives
            ``pause_after`` anew, and training goes on if that lets a lane move.

    Raises:
        UserError: the configs differ in more than lanes can; or every lane failed, and
            there is no ``on_rest`` that was told.
    """
    check(lanes)
    lead = jax.process_index() == 0
    task = lanes[0].task
    programs = LanePrograms(lanes, mesh)
    hosts = [Host(ln.task, ln.stream, ln.config, ln.workdir, lead) for ln in lanes]
    closing = contextlib.ExitStack()
    for host, epochs in zip(hosts, pause_after or [None] * len(lanes), strict=True):
        host.pause_after = epochs
        closing.callback(host.close)
    with closing:
        groups = programs.stack(
            [
                host.start(programs.init, programs.solo, lane.start_from)
                for lane, host in zip(lanes, hosts, strict=True)
            ]
        )
        bar = tqdm(
            total=max(map(_planned, hosts)),
            initial=max(host.progress.step for host in hosts),
            unit=f"step of {len(lanes)} lanes",
            dynamic_ncols=True,
            disable=not lead,
            mininterval=0.1 if sys.stderr.isatty() else LOG_INTERVAL,
        )
        closing.callback(bar.close)
        meter = Meter()
        failed: dict[int, str] = {}
        cut_short: set[int] = set()  # by a signal, in the middle of an epoch
        due: collections.deque[dict[int, Due]] = collections.deque()
        first = True

        def look(moved: dict[int, Due]) -> None:
            """Takes in one result of each lane that moved: refuse, log, show."""
            nonlocal first
            found = programs.fetch(groups, moved)
            outs = [item.output for item in found.values()]
            if first:
                on_first_step()
                first = False
            meter.add(float(sum(out.metrics[task.counter].total for out in outs)))
            pace = meter.pace()
            for k, item in found.items():
                try:
                    if k not in failed:
                        hosts[k].look(item, pace)
                except UserError as error:
                    failed[k] = str(error)
                    bar.write(f"lane {k} failed: {error}", file=sys.stderr)
            losses = [out.loss for out in outs]
            bar.set_postfix_str(
                f"loss {np.min(losses):.4g} to {np.max(losses):.4g}, "
                f"{pace.line(task.counter)}",
                refresh=False,
            )
            bar.update()

        def look_at_all() -> None:
            while due:
                look(due.popleft())

        def save(k: int, valid_loss: float | None) -> None:
            if k not in failed:
                hosts[k].save(programs.take(groups, k), valid_loss)

        def able() -> list[int]:
            """Lanes that have something to do."""
            return [
                k
                for k, host in enumerate(hosts)
                if k not in failed and not host.reason_to_stop() and not host.paused
            ]

        def outcomes() -> list[Outcome]:
            return [
                _outcome(host, failed.get(k, ""), request.received, k in cut_short)
                for k, host in enumerate(hosts)
            ]

        with StopRequest() as request:
            while True:
                live = able()
                if not live and on_rest is not None and not request.received:
                    for host in hosts:
                        host.checkpoints.wait()
                    pauses = on_rest(outcomes())
                    for host, epochs in zip(hosts, pauses, strict=True):
                        host.pause_after = epochs
                    live = able()
                if not live or request.received:
                    break
                groups = programs.gather(groups, live)
                epochs = {
                    k: lanes[k].stream.train_epoch(hosts[k].progress.epoch)
                    for k in live
                }
                feeds = {
                    k: lanes[k].stream.iterate(epoch, hosts[k].progress.batch)
                    for k, epoch in epochs.items()
                }

                # One epoch of each lane.
                while moving := [
                    k
                    for k in live
                    if k not in failed
                    and hosts[k].progress.batch < len(epochs[k])
                    and not hosts[k].cut
                ]:
                    with meter.waiting():
                        batches = {k: next(feeds[k]) for k in moving}
                    ends = {
                        k: hosts[k].progress.batch + 1 == len(epochs[k]) for k in moving
                    }
                    groups, outputs = programs.train_step(groups, batches, ends)
                    due.append({k: hosts[k].advance(o) for k, o in outputs.items()})
                    if len(due) > LAG:
                        look(due.popleft())
                    if request.after_step():
                        break
                    saving = [
                        k
                        for k in moving
                        if not hosts[k].cut and hosts[k].saves_now(len(epochs[k]))
                    ]
                    if saving:
                        look_at_all()
                        for k in saving:
                            save(k, None)
                look_at_all()
                if request.received:
                    for k in live:
                        # A lane at its last step still has to be validated, which
                        # it would not be if it went on from here.
                        if not hosts[k].cut:
                            save(k, None)
                    cut_short |= {*live}
                    break

                # Its end: validate, log, apply the rules, save.
                live = [k for k in live if k not in failed]
                found = {
                    name: programs.evaluate(
                        groups, {k: hosts[k].watched[name] for k in live}
                    )
                    for name in (hosts[0].watched if live else ())
                }
                results = {
                    k: {name: split[k] for name, split in found.items()} for k in live
                }
                if lead and live:
                    bar.write(_line(hosts, results, task), file=sys.stdout)
                    sys.stdout.flush()
                scalars = programs.scalars(groups)
                losses, scales = {}, {}
                for k in live:
                    losses[k], scales[k] = hosts[k].validated(
                        results[k], scalars[k], len(epochs[k])
                    )
                groups = programs.with_lr_scale(groups, scales)
                for k, loss in losses.items():
                    save(k, loss)
    if len(failed) == len(lanes) and on_rest is None:
        raise UserError(f"every lane failed; lane 0: {failed[0]}")
    return outcomes()


def obstacles(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """``field: one -> other`` for each field in which lanes may not differ, but do."""
    changed = differences(first, other)
    return [text for text in changed if not _OWN.fullmatch(text.split(":")[0])]


def check(lanes: Sequence[Lane]) -> None:
    """Raises unless the lanes can share a program."""
    first = lanes[0]
    # Says what is wrong with an optimiser before a folder is claimed.
    make_optimizer(first.config.optimizer, first.steps, ())
    for k, lane in enumerate(lanes[1:], start=1):
        other = obstacles(first.config.to_dict(), lane.config.to_dict())
        if other:
            raise UserError(
                f"lane {k} differs from lane 0 in {'; '.join(other)}; lanes of one "
                "program may differ in seed, learning rate and its schedule, weight "
                "decay, loss weights and rules to stop; train it apart"
            )
        if set(lane.task.loss_weights) != set(first.task.loss_weights):
            raise UserError(
                f"lane {k} has the loss terms {sorted(lane.task.loss_weights)}, lane 0 "
                f"{sorted(first.task.loss_weights)}; a weight of 0 takes a term out, "
                "so train it apart"
            )
        if _shapes(lane.stream) != _shapes(first.stream):
            raise UserError(
                f"batches of lane {k} have other shapes than those of lane 0; fix them "
                "in config.batch (graphs: nodes and edges; text: buckets)"
            )
    if any(lane.config.optimizer.offload for lane in lanes):
        raise UserError(
            "config.optimizer.offload is for a run that is trained by itself; take it "
            "out, or train the runs one after another"
        )
    if "wandb" in first.config.log.writers:
        raise UserError(
            "config.log.writers has 'wandb', which follows one run at a time; take it "
            "out, or train the runs one after another"
        )


def _shapes(stream: Stream) -> list[Any]:
    return [
        (x.shape, str(x.dtype))
        for spec in stream.batch_specs
        for x in jax.tree.leaves(spec)
    ]


def _planned(host: Host) -> int:
    length = len(host.stream.train_epoch(host.progress.epoch))
    return planned_steps(host.rules.epochs, host.rules.max_steps, length)


def _line(
    hosts: Sequence[Host], results: Mapping[int, Mapping[str, Metrics]], task: Task
) -> str:
    """One line per validation: the smallest and largest value over the lanes."""
    at = max(hosts[k].progress.epoch for k in results) + 1
    parts = [f"epoch {at}, {len(results)} of {len(hosts)} lanes"]
    for split, metrics in next(iter(results.values())).items():
        losses = [evaluation.loss(r[split], hosts[k].task) for k, r in results.items()]
        shown = [f"loss {min(losses):.4g} to {max(losses):.4g}"]
        for name in task.headline:
            if name in metrics:
                found = [evaluation.value(r[split][name]) for r in results.values()]
                unit = task.units[name]
                shown.append(f"{name} {min(found):.4g} to {max(found):.4g} {unit}")
        parts.append(f"{split}: " + ", ".join(shown))
    return " | ".join(parts)


def _outcome(host: Host, failure: str, signal: str, cut_short: bool) -> Outcome:
    if failure:
        return Outcome(host.progress, "failed", failure)
    reason = host.reason_to_stop()
    if reason and not cut_short:
        return Outcome(host.progress, "finished", reason)
    if host.paused and not cut_short:
        return Outcome(host.progress, "paused", paused_after(host.progress))
    return Outcome(host.progress, "interrupted", f"got {signal}")
