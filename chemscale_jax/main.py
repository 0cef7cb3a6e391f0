"""Trains a model from a config, or resumes it.

    python -m chemscale_jax.main --config=configs/painn_ani1x.py
    python -m chemscale_jax.main --config=configs/painn_ani1x.py:smoke --workdir=DIR

The same command resumes. Any field of the config can be set on the command line:

    --config.optimizer.lr=3e-4 --config.data.path=ani1x-release.h5

Other flags: --list-configs, --help.
"""

import contextlib
import os
import sys
import time

_START = time.monotonic()  # before the imports, which count as start-up
# XLA's loader of cached CPU programs prints pages of processor features as errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable, Iterator  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from chemscale_jax.core import config_files  # noqa: E402
from chemscale_jax.core.errors import UserError  # noqa: E402
from chemscale_jax.core.types import Config  # noqa: E402
from chemscale_jax.core.workdir import Workdir  # noqa: E402

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from chemscale_jax.training.host import Outcome
    from chemscale_jax.training.lane_programs import Lane

# Of the trained model: none, without dynamics, with dynamics.
CHECKS = ("none", "static", "full")


def main(argv: list[str]) -> int:
    """Parses the command line and runs; a user's mistake gives one line."""
    if any(flag in argv for flag in ("--help", "-h", "-help", "--helpfull")):
        print(__doc__)
        return 0
    if "--list-configs" in argv:
        for name, title in config_files.list_configs().items():
            print(f"{name:<28} {title}")
        return 0
    try:
        return run(parse(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse(argv: list[str]) -> Config:
    """The config that ``--config`` names, with the overrides of the command line."""
    names, rest = [], []
    for argument in argv[1:]:
        flag, equals, value = argument.partition("=")
        (names if equals and flag in ("--config", "-config") else rest).append(
            value if flag.lstrip("-") == "config" else argument
        )
    if len(names) != 1:
        raise UserError(
            f"give --config=FILE once, found it {len(names)} times; chemscale "
            "--list-configs names some"
        )
    config = config_files.load(names[0])
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "folder of the run", flag_values=values)
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=rest
        )
        unparsed = values([argv[0], *rest])[1:]
    except (AttributeError, KeyError) as error:
        detail = " ".join(str(error.args[0]).split())
        raise UserError(f"the config has no such field: {detail}") from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from None
    if unparsed:
        raise UserError(f"cannot read argument {unparsed[0]!r}; see --help")
    # The overrides went into the config that the flag was defined with.
    config.workdir = values["workdir"].value or config.workdir
    return config


def run(config: Config) -> int:
    """Trains as the config says, then writes predictions, table, plots and card."""
    # Imported here so that --help and mistakes in the command line answer at once.
    import jax

    from chemscale_jax.core import partition, processes, selftest
    from chemscale_jax.data import cache
    from chemscale_jax.training import loop, records, setup
    from chemscale_jax.training.optimizer import make_optimizer

    processes.start(cache.cache_folder() / "xla")
    lead = jax.process_index() == 0
    selftest.check_arithmetic()
    workdir = setup.open_workdir(config.to_dict(), lead)
    mesh = partition.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
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
    if config.train.ensemble > 1:
        return run_ensemble(config, workdir, mesh)
    lane = make_lane(config, workdir)
    frozen = tuple(config.init_freeze)
    optimizer = make_optimizer(config.optimizer, lane.steps, frozen)
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
            on_first_step=lambda: note(first_step_s=_elapsed()),
        )
    if lead:
        print(f"{outcome.state} at step {outcome.progress.step}: {outcome.reason}")
    note(**_ending(outcome))
    if outcome.state == "finished":
        table = finish(lane, lead)
        if lead:
            print(table)
    return 0


def run_ensemble(config: Config, workdir: Workdir, mesh: "Mesh") -> int:
    """Trains runs of several seeds together, each an ordinary run in ``lanes/<k>``."""
    import jax

    from chemscale_jax.analysis import report
    from chemscale_jax.inference import members
    from chemscale_jax.training import lanes, setup

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
            made, mesh, on_first_step=lambda: note(first_step_s=_elapsed())
        )
    for k, (lane, outcome) in enumerate(zip(made, outcomes, strict=True)):
        if lead:
            at = outcome.progress.step
            print(f"lane {k} {outcome.state} at step {at}: {outcome.reason}")
            setup.update_run(lane.workdir, **_ending(outcome))
    states = {outcome.state for outcome in outcomes}
    state = "interrupted" if "interrupted" in states else "finished"
    reasons = sorted({outcome.reason for outcome in outcomes})
    note(state=state, stop_reason="; ".join(reasons), total_s=_elapsed())
    if state == "finished":
        done = [
            lane
            for lane, outcome in zip(made, outcomes, strict=True)
            if outcome.state == "finished"
        ]
        for lane in done:
            finish(lane, lead)
        if lead and len(done) > 1:
            members.write_ensemble(workdir, [lane.workdir for lane in done])
            print(report.write_report(workdir))
    return 0


def make_lane(config: Config, workdir: Workdir) -> "Lane":
    """Everything a run needs besides devices: its data, task and initial weights."""
    import jax

    from chemscale_jax.data import STREAMS
    from chemscale_jax.tasks import TASKS
    from chemscale_jax.training import checkpoint, host, setup
    from chemscale_jax.training.lane_programs import Lane

    stream = STREAMS[config.data.stream](
        config, jax.process_index(), jax.process_count()
    )
    length = len(stream.train_epoch(0))
    steps = host.planned_steps(config.train.epochs, config.train.max_steps, length)
    inherited = setup.inherit_statistics(stream.artifacts, config.init_from, workdir)
    planned = {"steps": steps, "steps_per_epoch": length}
    stream.artifacts = {**inherited, "planned": planned}
    return Lane(
        task=TASKS[config.task](config, stream.batch_specs, stream.artifacts),
        stream=stream,
        config=config,
        workdir=workdir,
        steps=steps,
        start_from=checkpoint.starter(
            config.init_from, tuple(config.init_fresh), workdir
        ),
    )


def finish(lane: "Lane", lead: bool) -> str:
    """Calibrates, predicts, checks and reports a finished run; returns its table."""
    from chemscale_jax.analysis import report
    from chemscale_jax.inference import calibrate, check, predict

    calibrate.write_calibration(lane.task, lane.config, lane.workdir, lead)
    predict.write_predictions(lane.task, lane.config, lane.workdir, lead)
    if not lead:
        return ""
    if lane.config.check != "none":
        print(check.write_check(lane.workdir, nve=lane.config.check == "full"))
    return report.write_report(lane.workdir)


@contextlib.contextmanager
def noted(workdir: Workdir, lead: bool) -> Iterator[Callable[..., None]]:
    """Gives a function that merges fields into run.json; notes a failure by itself."""
    from chemscale_jax.training import setup

    def note(**fields: Any) -> None:
        if lead:
            setup.update_run(workdir, **fields)

    try:
        yield note
    except BaseException as error:
        note(state="failed", stop_reason=" ".join(str(error).split()))
        raise


def _ending(outcome: "Outcome") -> dict[str, Any]:
    return {
        "state": outcome.state,
        "stop_reason": outcome.reason,
        "steps": outcome.progress.step,
        "total_s": _elapsed(),
    }


def _elapsed() -> float:
    return round(time.monotonic() - _START, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
