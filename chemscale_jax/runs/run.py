"""One run, or several seeds of it trained together, from config to report."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from chemscale_jax.analysis.reports import report
from chemscale_jax.core import partition, processes, selftest
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data import cache
from chemscale_jax.inference import members
from chemscale_jax.runs.assembly import make_lane, with_start
from chemscale_jax.runs.endings import ENDINGS, end_runs
from chemscale_jax.training import lane_programs, lanes, loop, records, setup
from chemscale_jax.training.host import Outcome
from chemscale_jax.training.optimizer import make_optimizer

# Tasks whose lanes predict together; of others, each lane has its own report.
ENSEMBLES = ("force_field",)
# Of the trained model: none, without dynamics, with dynamics.
CHECKS = ("none", "static", "full")


@processes.end_together()
def run(
    config: Config,
    started: float | None = None,
    pause_after: int | None = None,
    cluster: processes.Cluster | None = None,
) -> str:
    """Trains as the config says, then writes predictions, table, plots and card.

    Args:
        config: the whole config.
        started: when the program was started, by ``time.monotonic``; None: now.
        pause_after: completed epochs after which the run waits, with a checkpoint and
            without a report; None: it does not wait.
        cluster: which of several processes this one is; None: as the environment says.

    Returns:
        "finished", "paused" or "interrupted"; the same call goes on where it was.
    """
    start = time.monotonic() if started is None else started

    def elapsed() -> float:
        return round(time.monotonic() - start, 1)

    if config.task not in ENDINGS:
        raise UserError(
            f"config.task is {config.task!r}, only {', '.join(sorted(ENDINGS))} are "
            "trained; the text at the top of the config says how it is used"
        )
    config = with_start(config)
    cpu_devices = config.train.ensemble
    if cpu_devices <= 1:
        rows, most = config.batch.rows, config.mesh.cpu_devices
        cpu_devices = processes.devices_for_rows(rows, most)
    processes.start(cache.cache_folder() / "xla", cpu_devices, cluster)
    lead = jax.process_index() == 0
    selftest.check_arithmetic()
    workdir = setup.open_workdir(config.to_dict(), lead)
    mesh = partition.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    if not lane_programs.spreads_lanes(config.train.ensemble, mesh):
        partition.check_rows(config.batch.rows, mesh)
    if lead:
        print(
            f"{config.name}, form {config.form}, on {mesh.size} x "
            f"{jax.devices()[0].device_kind}, workdir {workdir.path}",
            flush=True,
        )
    records.check_writers(config.log.writers)
    if config.check not in CHECKS:
        raise UserError(f"config.check is {config.check!r}, expected {CHECKS}")
    if config.train.ensemble > 1 and config.task == "property_regression":
        raise UserError(
            "config.train.ensemble is for force fields; several seeds of this task are "
            "trained by chemscale finetune --seeds=N"
        )
    if config.train.ensemble > 1:
        return run_ensemble(config, workdir, mesh, elapsed, pause_after)
    lane = make_lane(config, workdir)
    frozen = tuple(config.init_freeze)
    optimizer = make_optimizer(
        config.optimizer,
        lane.steps,
        frozen,
        lane.stream.artifacts["planned"]["steps_per_epoch"],
    )
    if lead:
        setup.claim(workdir, config.to_dict())
        print(lane.stream.summary, flush=True)
    with noted(workdir, lead) as note:
        outcome = loop.train(
            lane.task,
            lane.stream,
            optimizer,
            config,
            workdir,
            mesh,
            lane.start_from,
            on_first_step=lambda: note(first_step_s=elapsed()),
            pause_after=pause_after,
        )
    if lead:
        print(f"{outcome.state} at step {outcome.progress.step}: {outcome.reason}")
    note(**ending_fields(outcome, elapsed()))
    if outcome.state == "finished":
        for table in end_runs([lane], lead):
            print(table)
    return outcome.state


def run_ensemble(
    config: Config,
    workdir: Workdir,
    mesh: Mesh,
    elapsed: Callable[[], float],
    pause_after: int | None = None,
) -> str:
    """Trains runs of several seeds together, each an ordinary run in ``lanes/<k>``."""
    lead = jax.process_index() == 0
    made = []
    for k in range(config.train.ensemble):
        own = config.copy_and_resolve_references()
        own.train.ensemble = 0
        own.seed = config.seed + k
        own.workdir = str(workdir.path / "lanes" / str(k))
        made.append(make_lane(own, setup.open_workdir(own.to_dict(), lead)))
    lanes.check(made)
    if lead:
        setup.claim(workdir, config.to_dict())
        for lane in made:
            setup.claim(lane.workdir, lane.config.to_dict())
        print(made[0].stream.summary, flush=True)
    with noted(workdir, lead) as note:
        outcomes = lanes.train(
            made,
            mesh,
            on_first_step=lambda: note(first_step_s=elapsed()),
            pause_after=[pause_after] * len(made),
        )
    for k, (lane, outcome) in enumerate(zip(made, outcomes, strict=True)):
        if lead:
            at = outcome.progress.step
            print(f"lane {k} {outcome.state} at step {at}: {outcome.reason}")
            setup.update_run(lane.workdir, **ending_fields(outcome, elapsed()))
    states = {outcome.state for outcome in outcomes}
    open_ends = [state for state in ("interrupted", "paused") if state in states]
    state = (*open_ends, "finished")[0]
    reasons = sorted({outcome.reason for outcome in outcomes})
    note(state=state, stop_reason="; ".join(reasons), total_s=elapsed())
    if state == "finished":
        done = [
            lane
            for lane, outcome in zip(made, outcomes, strict=True)
            if outcome.state == "finished"
        ]
        end_runs(done, lead)
        if lead and len(done) > 1 and config.task in ENSEMBLES:
            members.write_ensemble(workdir, [lane.workdir for lane in done])
            print(report.write_report(workdir))
    return state


@contextlib.contextmanager
def noted(workdir: Workdir, lead: bool) -> Iterator[Callable[..., None]]:
    """Gives a function that merges fields into run.json; notes a failure by itself."""

    def note(**fields: Any) -> None:
        if lead:
            setup.update_run(workdir, **fields)

    try:
        yield note
    except BaseException as error:
        note(state="failed", stop_reason=" ".join(str(error).split()))
        raise


def ending_fields(outcome: Outcome, total_s: float) -> dict[str, Any]:
    """What run.json says of how a run ended."""
    return {
        "state": outcome.state,
        "stop_reason": outcome.reason,
        "steps": outcome.progress.step,
        "total_s": total_s,
    }
