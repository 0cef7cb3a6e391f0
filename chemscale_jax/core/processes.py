"""Starting JAX: several processes where the environment says so, and its caches."""

import os
import pathlib

import jax
from absl import logging

from chemscale_jax.core.errors import UserError

_ADDRESS, _COUNT, _INDEX = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
# Set by launchers that JAX knows how to ask for the rest.
_LAUNCHER_SIZES = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def start(cache_folder: pathlib.Path) -> None:
    """Joins the other processes, if there are any, and opens the compilation cache.

    Args:
        cache_folder: holds compiled programs, unless JAX_COMPILATION_CACHE_DIR is set.
    """
    # Orbax warns about each checkpoint that has no validation loss yet.
    logging.set_verbosity(logging.ERROR)
    _join()
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
