"""Starting JAX: several processes where the environment says so, and its caches."""

import contextlib
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import jax
from absl import logging

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.worker_processes import usable_processes

_ADDRESS, _COUNT, _INDEX = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
# Set by launchers that JAX knows how to ask for the rest.
_LAUNCHER_SIZES = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
# Seconds without a sign of life after which a process counts as dead and JAX ends the
# others, if they did not miss it in a collective operation before.
_HEARTBEAT, _HEARTBEAT_S = "CHEMSCALE_HEARTBEAT_S", "60"
_MOST_CPU_DEVICES = 8
# Seconds for which a CPU device may wait for another. XLA alone would end the process
# after 40, which is too soon where other programs slow one core down.
_PATIENCE_S = {
    "xla_cpu_collective_call_warn_stuck_timeout_seconds": 600,
    "xla_cpu_collective_call_terminate_timeout_seconds": 86_400,
}


class Cluster(NamedTuple):
    """Which of several processes this one is, where nothing else says so."""

    address: str  # host:port of the first process
    processes: int
    index: int


def start(
    cache_folder: pathlib.Path, cpu_devices: int = 1, cluster: Cluster | None = None
) -> None:
    """Joins the other processes, if there are any, and opens the compilation cache.

    Args:
        cache_folder: holds compiled programs, unless JAX_COMPILATION_CACHE_DIR is set.
        cpu_devices: how many a CPU is taken as, each of some cores, for steps of small
            models are too short to be shared by cores; never more than there are
            cores. One where processes train together. Changes nothing once JAX is in
            use.
        cluster: the processes; None: as JAX's variables, Slurm or a TPU say.
    """
    # Orbax warns about each checkpoint that has no validation loss yet.
    logging.set_verbosity(logging.ERROR)
    _join(cluster)
    chosen = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if cpu_devices > 1 and not (chosen or jax.distributed.is_initialized()):
        count = min(cpu_devices, usable_processes())
        _be_patient()
        # JAX refuses, rightly, once it is in use.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", count)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def devices_for_rows(rows: int, most: int) -> int:
    """How many devices a CPU is taken as where batches have so many rows.

    Args:
        rows: of a batch.
        most: devices at most; 0: as many as there are cores, up to 8, since each has
            all parameters.
    """
    most = min(most or _MOST_CPU_DEVICES, usable_processes())
    return max(n for n in range(1, max(most, 1) + 1) if max(rows, 1) % n == 0)


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """Where one of several processes fails, it says so and ends at once.

    Without that it would wait for the others, which wait for it in the next operation
    that they have in common.
    """
    try:
        yield
    except BaseException as error:
        # Asked first, since the number of processes starts JAX's devices.
        alone = not jax.distributed.is_initialized()
        count = 1 if alone else jax.process_count()
        if count == 1:
            raise
        if isinstance(error, UserError):
            told = str(error)
        else:
            traceback.print_exc()
            told = (
                "see above. If an operation of several processes failed, another one "
                "has ended before, and its output says why"
            )
        sys.stdout.flush()
        print(
            f"error: process {jax.process_index()} of {count} ends: {told}. Start the "
            "job again, with as many processes as there are: it goes on from its last "
            "checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2 if isinstance(error, UserError) else 1)


def _be_patient() -> None:
    """Lets CPU devices wait for each other; what the environment says stays."""
    flags = os.environ.get("XLA_FLAGS", "")
    missing = {name: s for name, s in _PATIENCE_S.items() if name not in flags}
    more = (f"--{name}={seconds}" for name, seconds in missing.items())
    os.environ["XLA_FLAGS"] = " ".join([flags, *more]).strip()


def _join(cluster: Cluster | None) -> None:
    if cluster is None and os.environ.get(_ADDRESS):
        missing = [name for name in (_COUNT, _INDEX) if not os.environ.get(name)]
        if missing:
            raise UserError(
                f"{_ADDRESS} is set but {' and '.join(missing)} is not; set all three "
                "or none"
            )
        cluster = Cluster(
            os.environ[_ADDRESS], int(os.environ[_COUNT]), int(os.environ[_INDEX])
        )
    bound = int(os.environ.get(_HEARTBEAT, _HEARTBEAT_S))
    if cluster is not None:
        jax.distributed.initialize(*cluster, heartbeat_timeout_seconds=bound)
    elif any(int(os.environ.get(name) or 1) > 1 for name in _LAUNCHER_SIZES) or (
        "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    ):
        jax.distributed.initialize(heartbeat_timeout_seconds=bound)
