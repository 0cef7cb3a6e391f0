"""Starting JAX: several processes where the environment says so, and its caches."""

import contextlib
import os
import pathlib

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


def start(cache_folder: pathlib.Path, lanes: int = 1) -> None:
    """Joins the other processes, if there are any, and opens the compilation cache.

    Args:
        cache_folder: holds compiled programs, unless JAX_COMPILATION_CACHE_DIR is set.
        lanes: runs that will train together. Where that is on a CPU, its cores become
            devices, up to one for each run: steps of small models are too short to be
            shared by cores. Changes nothing once JAX is in use.
    """
    # Orbax warns about each checkpoint that has no validation loss yet.
    logging.set_verbosity(logging.ERROR)
    _join()
    chosen = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if lanes > 1 and not chosen:
        # JAX refuses, rightly, once it is in use.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(lanes, usable_processes()))
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _join() -> None:
    if os.environ.get(_ADDRESS):
        missing = [name for name in (_COUNT, _INDEX) if not os.environ.get(name)]
        if missing:
            raise UserError(
                f"{_ADDRESS} is set but {' and '.join(missing)} is not; set all three "
                "or none"
            )
        jax.distributed.initialize(
            num_processes=int(os.environ[_COUNT]), process_id=int(os.environ[_INDEX])
        )
    elif any(int(os.environ.get(name) or 1) > 1 for name in _LAUNCHER_SIZES):
        jax.distributed.initialize()
    elif "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()
