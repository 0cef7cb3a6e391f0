"""Trains a model from a config, or resumes it.

    python -m chemscale_jax.main --config=configs/painn_ani1x.py
    python -m chemscale_jax.main --config=configs/painn_ani1x.py:smoke --workdir=DIR

The same command resumes. Any field of the config can be set on the command line:

    --config.optimizer.lr=3e-4 --config.data.path=ani1x-release.h5

Other flags: --list-configs, --help.
"""

import os
import sys
import time

_START = time.monotonic()  # before the imports, which count as start-up
# XLA's loader of cached CPU programs prints pages of processor features as errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from typing import Any  # noqa: E402

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from chemscale_jax.core import config_files  # noqa: E402
from chemscale_jax.core.errors import UserError  # noqa: E402
from chemscale_jax.core.types import Config  # noqa: E402


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

    from chemscale_jax.analysis import report
    from chemscale_jax.core import partition, processes, selftest
    from chemscale_jax.data import STREAMS, cache
    from chemscale_jax.inference import predict
    from chemscale_jax.tasks import TASKS
    from chemscale_jax.training import checkpoint, loop, records, setup
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
    stream = STREAMS[config.data.stream](
        config, jax.process_index(), jax.process_count()
    )
    task = TASKS[config.task](config, stream.batch_specs, stream.artifacts)
    steps = config.train.epochs * len(stream.train_epoch(0))
    steps = min(steps, config.train.max_steps or steps)
    optimizer = make_optimizer(config.optimizer, steps, tuple(config.init_freeze))
    start_from = checkpoint.starter(config.init_from, tuple(config.init_fresh), workdir)
    records.check_writers(config.log.writers)
    if lead:
        setup.claim(workdir, config.to_dict())
        print(stream.summary, flush=True)

    def note(**fields: Any) -> None:
        if lead:
            setup.update_run(workdir, **fields)

    try:
        outcome = loop.train(
            task,
            stream,
            optimizer,
            config,
            workdir,
            mesh,
            start_from,
            on_first_step=lambda: note(
                first_step_s=round(time.monotonic() - _START, 1)
            ),
        )
    except BaseException as error:
        note(state="failed", stop_reason=" ".join(str(error).split()))
        raise
    if lead:
        print(f"{outcome.state} at step {outcome.progress.step}: {outcome.reason}")
    note(
        state=outcome.state,
        stop_reason=outcome.reason,
        steps=outcome.progress.step,
        total_s=round(time.monotonic() - _START, 1),
    )
    if outcome.state == "finished":
        predict.write_predictions(task, config, workdir, lead)
        if lead:
            print(report.write_report(workdir))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
