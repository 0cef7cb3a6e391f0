"""Trains a model from a config, or resumes it.

    python -m chemscale_jax.main --config=configs/painn_ani1x.py
    python -m chemscale_jax.main --config=configs/painn_ani1x.py:smoke --workdir=DIR

The same command resumes. Any field of the config can be set on the command line:

    --config.optimizer.lr=3e-4 --config.data.path=ani1x-release.h5

Other flags: --pause_after_epochs=N (waits after N epochs, without a report, until it
is given another N or none), --list-configs, --help. For process I of N that train
together, where neither Slurm nor a TPU says so: --processes=N --process=I
--coordinator=HOST:PORT (a free port of the host of process 0).
"""

import sys
import time

_START = time.monotonic()  # before the imports, which count as start-up

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from chemscale_jax.core import config_files  # noqa: E402
from chemscale_jax.core.errors import UserError  # noqa: E402
from chemscale_jax.core.run_flags import take_run_flags  # noqa: E402
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
        own, argv = take_run_flags(argv)
        config = parse(argv)
        # Imported here so that --help and mistakes in the command line answer at once.
        from chemscale_jax.runs.run import run

        run(config, _START, own.pause_after, own.cluster)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
