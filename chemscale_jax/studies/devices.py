"""What a device can do at best, and how much of it training reaches.

Peaks are from the vendors' data sheets, of dense products without sparsity, and links
count one direction, of two. The share of the peak that is reached and the time per
operation are assumptions, which a plan prints beside its hours; measured figures of a
run are better wherever there are some.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from chemscale_jax.core.errors import UserError


class Cost(NamedTuple):
    """What one call of a program takes."""

    flops: float  # floating-point operations
    operations: float  # arithmetic on arrays, each at least one kernel if not fused
    traffic_bytes: float  # in and out of products, gathers, scatters and reductions
    peak_bytes: float  # results alive at once besides the arguments: an upper bound
    open_loops: int  # loops of unknown length, whose body is counted once


@dataclasses.dataclass(frozen=True)
class Device:
    """One device of a cluster, or the processor of this machine."""

    name: str
    peak_bf16: float  # operations per second, bfloat16 factors
    peak_f32: float  # operations per second, float32 (tensor cores where there are)
    bandwidth: float  # bytes per second, of its memory
    memory: float  # bytes
    efficiency: float  # assumed share of the peak
    traffic: float  # assumed bytes moved, per byte of `Cost.traffic_bytes`
    overhead_s: float  # assumed time per operation of the program, after fusion
    link: float  # bytes per second that one device sends to others of its host
    network: float  # the same, to devices of other hosts
    host_link: float  # bytes per second between one device and its host's memory
    per_host: int  # devices of a host, or of a pod that is wired like one

    def step_seconds(self, cost: Cost, dtype: str) -> float:
        """Expected time of one step: what takes longest of three.

        The products at the assumed share of the peak, the memory traffic, or starting
        the kernels, which is what small models wait for.

        Args:
            cost: of the step.
            dtype: of matrix products: float32 or bfloat16.
        """
        peak = self.peak_bf16 if dtype == "bfloat16" else self.peak_f32
        return max(
            cost.flops / (self.efficiency * peak),
            self.traffic * cost.traffic_bytes / self.bandwidth,
            self.overhead_s * cost.operations,
        )

    def exchange_seconds(self, within: float, across: float) -> float:
        """Time of a step's exchange between devices, none of it hidden.

        Args:
            within: bytes that a device sends to others of its host.
            across: bytes that it sends to other hosts.
        """
        return within / self.link + across / self.network

    @property
    def assumptions(self) -> str:
        """One line for a person."""
        return (
            f"{self.name}: {self.peak_bf16 / 1e12:.3g} TFLOP/s in bfloat16 and "
            f"{self.peak_f32 / 1e12:.3g} in float32, {self.bandwidth / 1e9:,.0f} GB/s, "
            f"{self.memory / 1e9:.0f} GB; assumed: {self.efficiency:.0%} of the peak, "
            f"{self.traffic:g} times the bytes of products, gathers and reductions, "
            f"{self.overhead_s * 1e6:.2g} us per operation"
        )


# XLA's own count of compiled steps of PaiNN and SchNet is 3.0 and 3.2 times ours.
TRAFFIC = 3.0


def _gpu(
    name: str,
    bf16: float,
    f32: float,
    bandwidth: float,
    gb: float,
    link: float,
    host_link: float,
) -> Device:
    # A kernel starts in about 4 us, and fusion leaves about one for four operations.
    # Eight to a host, each with a ninth of the rate of its links to the network.
    return Device(
        *(name, bf16, f32, bandwidth, gb * 1e9, 0.35, TRAFFIC, 1e-6),
        *(link, link / 9, host_link, 8),
    )


def _tpu(
    name: str,
    bf16: float,
    f32: float,
    bandwidth: float,
    gb: float,
    link: float,
    pod: int,
) -> Device:
    return Device(
        *(name, bf16, f32, bandwidth, gb * 1e9, 0.4, TRAFFIC, 2e-7),
        *(link, 12.5e9, 16e9, pod),
    )


# float32 of the newer GPUs is TF32, which JAX uses there by default.
DEVICES = {
    device.name: device
    for device in (
        _gpu("v100", 125e12, 15.7e12, 0.9e12, 32, 150e9, 16e9),
        _gpu("a100", 312e12, 156e12, 2.0e12, 80, 300e9, 32e9),
        _gpu("h100", 989e12, 495e12, 3.35e12, 80, 450e9, 64e9),
        _gpu("h200", 989e12, 495e12, 4.8e12, 141, 450e9, 64e9),
        _tpu("tpu-v4", 275e12, 46e12, 1.2e12, 32, 150e9, 4096),
        _tpu("tpu-v5e", 197e12, 33e12, 0.82e12, 16, 100e9, 256),
        _tpu("tpu-v5p", 459e12, 77e12, 2.77e12, 95, 300e9, 8960),
    )
}
CPU = "cpu"
_FEWEST = 3  # calls that are timed


def find_device(name: str) -> Device:
    """A device by its name; ``cpu`` is this machine's, measured for a second.

    Raises:
        UserError: it is not in the table.
    """
    if name == CPU:
        return measure_cpu()
    if name not in DEVICES:
        raise UserError(
            f"--device={name} is unknown; give cpu (measured) or one of "
            f"{', '.join(DEVICES)}"
        )
    return DEVICES[name]


def measure_cpu(seconds: float = 0.5) -> Device:
    """This machine's processor: the rate of a large matrix product and of a copy."""
    n = 1024
    a, b = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
    c = np.empty_like(a)
    rate = _best_rate(lambda: np.matmul(a, b, out=c), 2.0 * n**3, seconds)
    source = np.ones(1 << 24, np.float32)
    target = np.empty_like(source)
    copied = 2.0 * source.nbytes
    bandwidth = _best_rate(lambda: np.copyto(target, source), copied, seconds)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # Small products are far from the rate of a large one.
    return Device(
        *(CPU, rate, rate, bandwidth, float(pages), 0.25, TRAFFIC, 2e-6),
        *(bandwidth, 1e9, bandwidth, os.cpu_count() or 1),
    )


def _best_rate(call: Callable[[], object], amount: float, seconds: float) -> float:
    """The highest of several measured rates: other programs only slow a call down."""
    call()  # the first touches new memory
    took: list[float] = []
    while len(took) < _FEWEST or sum(took) < seconds:
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return amount / min(took)
