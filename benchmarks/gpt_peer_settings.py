"""Settings of the peer of the ChemGPT benchmarks: threads, allocator, compiler."""

import argparse
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from turns import Worker

KEEP_BYTES = 1 << 34
# Environments of the peer. The last keeps freed memory instead of giving it back to the
# kernel, which would have to map and clear it again in the next step.
ALLOCATORS = {
    "default": "",
    "huge": "GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
    "kept": "GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
    f"glibc.malloc.trim_threshold={KEEP_BYTES}",
}


class Peer(NamedTuple):
    """A setting of the peer."""

    threads: int = 2
    allocator: str = "kept"
    compile: bool = False


def best_setting(
    start: Callable[[Peer], Worker], steps: int, preload: Sequence[str], compile: bool
) -> Peer:
    """The peer's fastest setting, found one choice at a time.

    Args:
        start: a worker of the peer.
        steps: of a pass; the better of two passes counts.
        preload: libraries of allocators to try besides ``ALLOCATORS``.
        compile: whether to try torch.compile.
    """

    def trial(setting: Peer) -> float:
        try:
            found = start(setting)
        except SystemExit as error:
            print(f"{setting}: {error}")
            return np.inf
        seconds = np.reshape(found.step(2 * steps), (2, steps)).min(0).sum()
        found.close()
        print(f"{setting}: {seconds / steps:.3f} s a step", flush=True)
        return float(seconds)

    best, best_s = Peer(), trial(Peer())
    changes: list[dict[str, Any]] = [{"threads": 1}]
    names = [name for name in (*ALLOCATORS, *preload) if name != best.allocator]
    changes += [{"allocator": name} for name in names]
    if compile:
        changes.append({"compile": True})
    for change in changes:
        setting = best._replace(**change)
        if (seconds := trial(setting)) < best_s:
            best, best_s = setting, seconds
    return best


def peer_command(python: str, setting: Peer, *fields: str) -> list[str]:
    """What starts gpt_neo_peer.py, but for the number of threads."""
    env = ALLOCATORS.get(setting.allocator, f"LD_PRELOAD={setting.allocator}")
    return [
        *(["env", env] if env else []),
        python,
        str(pathlib.Path(__file__).with_name("gpt_neo_peer.py")),
        *fields,
        *(["--compile"] if setting.compile else []),
    ]


def add_peer_arguments(parser: argparse.ArgumentParser) -> None:
    """What concerns the peer, for both benchmarks."""
    parser.add_argument(
        "--peer-python",
        help="Python with torch and transformers; without it only our side runs",
    )
    parser.add_argument(
        "--peer", type=json.loads, help='its setting, such as [2, "kept", false]'
    )
    parser.add_argument(
        "--preload", nargs="*", default=[], help="allocators to try with the peer, .so"
    )
    parser.add_argument(
        "--no-compile", action="store_true", help="do not try torch.compile"
    )
