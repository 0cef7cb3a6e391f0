import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.devices import DEVICES, Cost, find_device, measure_cpu

H100 = DEVICES["h100"]
NOTHING = Cost(0.0, 0.0, 0.0, 0.0, 0)


def test_a_step_takes_as_long_as_its_slowest_part():
    products = NOTHING._replace(flops=1e15)
    assert H100.step_seconds(products, "bfloat16") == pytest.approx(
        1e15 / (0.35 * 989e12)
    )
    assert H100.step_seconds(products, "float32") > H100.step_seconds(
        products, "bfloat16"
    )
    small = NOTHING._replace(flops=1e6, operations=2000)
    assert H100.step_seconds(small, "float32") == pytest.approx(2e-3)
    moved = NOTHING._replace(traffic_bytes=1e12)
    assert H100.step_seconds(moved, "float32") == pytest.approx(3 / 3.35)


def test_devices_are_found_by_name():
    assert find_device("h200").memory == 141e9
    with pytest.raises(UserError, match="abacus is unknown; give cpu"):
        find_device("abacus")


def test_the_processor_is_measured():
    cpu = measure_cpu(0.02)
    assert 1e8 < cpu.peak_f32 < 1e14
    assert 1e8 < cpu.bandwidth < 1e13
    assert cpu.memory > 1e8
    assert "cpu: " in cpu.assumptions
