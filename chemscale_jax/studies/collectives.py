"""What devices send to one another, read from a compiled program.

XLA decides where the arrays of a sharded program are exchanged, so its result is read
rather than guessed: every collective operation with its size and its groups of devices,
as often as the loops around it run.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

_BYTES = {
    **{"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2},
    **{"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8},
}
_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# Started and finished apart; what is finished has been counted when it started.
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})(?:-start)?\(")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_WHILE = re.compile(r"\bwhile\(.*body=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{}]*\})\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{}]*\})\}")


class Exchange(NamedTuple):
    """Bytes that one device sends in one call of a program."""

    within: float  # to devices of its host
    across: float  # to devices of other hosts
    by_kind: Mapping[str, float]  # of operation, all together


def exchange_of(text: str, devices: int, per_host: int) -> Exchange:
    """What a compiled program of several devices sends.

    Rings are assumed: of n devices each sends (n - 1)/n of an array that is gathered or
    scattered, and twice that of one that is summed.

    Args:
        text: of the compiled program, ``compiled.as_text()``.
        devices: that it runs on.
        per_host: how many of them, one after another, are on one host.
    """
    own: dict[str, list[tuple[str, float, bool]]] = defaultdict(list)
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)
    entry = name = ""
    for line in text.splitlines():
        begins = _COMPUTATION.match(line)
        if begins:
            name = begins[1]
            entry = name if line.startswith("ENTRY") else entry
            continue
        operation = _OPERATION.search(line)
        if operation:
            own[name].append(_sent(line, operation, devices, per_host))
        loop, trips = _WHILE.search(line), _TRIPS.search(line)
        for called in _CALLED.findall(line):
            often = int(trips[1]) if loop and trips and called == loop[1] else 1
            calls[name].append((called, often))
    within = across = 0.0
    by_kind: dict[str, float] = defaultdict(float)
    todo = [(entry, 1)]
    while todo:
        name, times = todo.pop()
        for kind, sent, is_within in own.get(name, ()):
            by_kind[kind] += times * sent
            within += times * sent * is_within
            across += times * sent * (not is_within)
        todo += [(called, times * often) for called, often in calls.get(name, ())]
    return Exchange(within, across, dict(by_kind))


def _sent(
    line: str, operation: re.Match[str], devices: int, per_host: int
) -> tuple[str, float, bool]:
    """Kind, bytes that a device sends, and whether they stay within a host."""
    shapes, kind = operation.groups()
    arrays = [
        _BYTES.get(dtype, 4) * math.prod(int(n) for n in sizes.split(",") if n)
        for dtype, sizes in _SHAPE.findall(shapes)
    ]
    # What is started gives its argument beside its result.
    size = float(max(arrays) if f"{kind}-start(" in line else sum(arrays))
    groups = _groups(line, devices)
    n = groups.shape[1]
    is_within = bool((groups // per_host == groups[:, :1] // per_host).all())
    share = {
        "all-reduce": 2 * (n - 1) / n,
        "all-gather": (n - 1) / n,
        "reduce-scatter": float(n - 1),
        "all-to-all": (n - 1) / n,
        "collective-permute": 1.0,
    }[kind]
    return kind, share * size, is_within


def _groups(line: str, devices: int) -> np.ndarray:
    """Groups of devices that exchange, (groups, devices of each)."""
    iota = _IOTA.search(line)
    if iota:
        shape, dims, order = (
            tuple(int(n) for n in part.split(",")) if part else None
            for part in iota.groups()
        )
        return np.arange(devices).reshape(dims).transpose(order).reshape(shape)
    axes = _AXES.search(line)
    if axes:
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", axes[1])}
        among = re.findall(r"'(\w+)'", axes[2])
        order = [name for name in sizes if name not in among] + among
        places = np.arange(devices).reshape(tuple(sizes.values()))
        places = places.transpose([list(sizes).index(name) for name in order])
        return places.reshape(-1, math.prod(sizes[name] for name in among))
    listed = _LISTED.search(line) or _PAIRS.search(line)
    if listed:
        found = re.findall(r"\{([\d,]+)\}", listed[1])
        return np.array([[int(n) for n in group.split(",")] for group in found])
    return np.arange(devices)[None]
