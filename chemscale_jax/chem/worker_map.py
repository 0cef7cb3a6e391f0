"""A function over many items in several processes, results in order of the items."""

import collections
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import TypeVar

from tqdm import tqdm

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.worker_processes import usable_processes, worker_processes

Item = TypeVar("Item")
Result = TypeVar("Result")

# Fewer items are done sooner than a process starts.
_WORTH_A_PROCESS = 500
_CHUNK = 100
# Chunks that wait for each worker; more would only take memory.
_AHEAD = 4
# Seconds between redrawings of the bar where nobody watches it move.
_LOG_INTERVAL = 30.0


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
    waiting: collections.deque[futures.Future] = collections.deque()
    with worker_processes(processes, "try again with fewer processes") as executor:
        submit = functools.partial(executor.submit, function)
        for chunk in chunks:
            waiting.append(submit(chunk))
            if len(waiting) > _AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
