"""Flags of a run besides its config: when it waits, and whom it trains with."""

from typing import NamedTuple

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.processes import Cluster

_PAUSE = "pause_after_epochs"
_COORDINATOR, _COUNT, _INDEX = "coordinator", "processes", "process"


class RunFlags(NamedTuple):
    """What the command line says besides the config."""

    pause_after: int | None = None  # epochs
    cluster: Cluster | None = None


def take_run_flags(argv: list[str]) -> tuple[RunFlags, list[str]]:
    """Flags that are not the config's, and all other arguments.

    Raises:
        UserError: a value makes no sense, or those of several processes do not agree.
    """
    given, rest = {}, []
    for argument in argv:
        flag, _, value = argument.partition("=")
        name = flag.removeprefix("--").removeprefix("-")
        if flag != name and name in (_PAUSE, _COORDINATOR, _COUNT, _INDEX):
            given[name] = value
        else:
            rest.append(argument)

    def number(name: str, least: int) -> int:
        if not given[name].isdecimal() or int(given[name]) < least:
            raise UserError(
                f"--{name} is {given[name]!r}, expected a number from {least}"
            )
        return int(given[name])

    pause_after = number(_PAUSE, 1) if _PAUSE in given else None
    missing = [name for name in (_COORDINATOR, _COUNT, _INDEX) if name not in given]
    if len(missing) == 3:
        return RunFlags(pause_after), rest
    if missing:
        raise UserError(
            f"--{' and --'.join(missing)} missing: several processes that train "
            "together need all of --coordinator, --processes and --process"
        )
    cluster = Cluster(given[_COORDINATOR], number(_COUNT, 1), number(_INDEX, 0))
    if cluster.index >= cluster.processes or ":" not in cluster.address:
        raise UserError(
            f"process {cluster.index} of {cluster.processes} at "
            f"{cluster.address or 'nowhere'}: processes are numbered from 0, and "
            "--coordinator is HOST:PORT"
        )
    return RunFlags(pause_after, cluster), rest
