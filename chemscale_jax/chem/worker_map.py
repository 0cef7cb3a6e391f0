"""A function over many items in several processes, results in order of the items."""

import collections
import functools
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from chemscale_jax.core.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Fewer items are done sooner than a process starts.
_WORTH_A_PROCESS = 500
_CHUNK = 100
# Chunks that wait for each worker; more would only take memory.
_AHEAD = 4
# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0
_ONE_THREAD: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


def usable_processes() -> int:
    """How many processes this one may keep busy."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Sequence[Item]], list[Result]],
    items: Sequence[Item],
    *,
    processes: int | None = None,
    label: str,
    unit: str = "mol",
    progress: bool = True,
) -> Iterator[Result]:
    """Results of a function, one for each item and in their order.

    Args:
        function: makes the results of some items. Worker processes start afresh, so
            it must be importable by name; each worker has one thread.
        items: what to work on.
        processes: default all that may be used; few items stay in this process.
        label: stands before the progress bar.
        unit: of the bar.
        progress: whether there is a bar.

    Raises:
        UserError: a worker died, or fewer than one process is asked for.
    """
    if processes is not None and processes < 1:
        raise UserError(f"processes is {processes}: it must be at least 1")
    processes = min(
        processes or usable_processes(), max(1, len(items) // _WORTH_A_PROCESS)
    )
    chunks = [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]
    with tqdm(
        total=len(items),
        unit=unit,
        desc=label,
        disable=not progress or len(items) < _WORTH_A_PROCESS,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    ) as bar:
        parts = (
            map(function, chunks)
            if processes == 1
            else _in_processes(function, chunks, processes)
        )
        for part in parts:
            bar.update(len(part))
            yield from part


def _in_processes(
    function: Callable[[Sequence[Item]], list[Result]],
    chunks: list[Sequence[Item]],
    processes: int,
) -> Iterator[list[Result]]:
    # Workers inherit these; numerical libraries read them when they are loaded.
    before = {name: os.environ[name] for name in _ONE_THREAD if name in os.environ}
    os.environ.update(_ONE_THREAD)
    executor = futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _end_with_parent
    )
    waiting: collections.deque[futures.Future] = collections.deque()
    try:
        submit = functools.partial(executor.submit, function)
        for chunk in chunks:
            waiting.append(submit(chunk))
            if len(waiting) > _AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps for lack of memory: try again with fewer "
            "processes"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)
        for name in _ONE_THREAD:
            del os.environ[name]
        os.environ.update(before)


def _end_with_parent() -> None:
    """Lets a worker end when the main process was killed and cannot tell it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
