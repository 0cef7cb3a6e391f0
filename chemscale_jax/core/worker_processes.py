"""Fresh processes of one thread each, for work that keeps many cores busy."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

from chemscale_jax.core.errors import UserError

# Numerical libraries read these when they are loaded.
_ONE_THREAD: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


def usable_processes() -> int:
    """How many processes this one may keep busy."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Processes that are started meanwhile compute in one thread."""
    before = {name: os.environ[name] for name in _ONE_THREAD if name in os.environ}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name in _ONE_THREAD:
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def worker_processes(count: int, advice: str) -> Iterator[futures.ProcessPoolExecutor]:
    """An executor whose processes end with this one, however it ends.

    Args:
        count: of processes; they start afresh, so functions must be importable.
        advice: what to do if one dies.

    Raises:
        UserError: a worker died.
    """
    with one_thread():
        executor = futures.ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), end_with_parent
        )
        try:
            yield executor
        except BrokenProcessPool:
            raise UserError(
                f"a worker process died, perhaps for lack of memory: {advice}"
            ) from None
        finally:
            executor.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Lets a worker end when the main process was killed and cannot tell it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
