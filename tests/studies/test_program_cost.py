from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.studies.program_cost import cost_of

X = jax.ShapeDtypeStruct((256, 64), np.float32)
W = jax.ShapeDtypeStruct((64, 128), np.float32)
V = jax.ShapeDtypeStruct((128, 32), np.float32)


def loss(weights, x):
    w, v = weights
    return jnp.sum((jnp.tanh(x @ w) @ v) ** 2)


def test_products_and_elementwise_are_counted_by_formula():
    cost = cost_of(lambda x, w: jnp.tanh(x @ w), X, W)
    assert cost.flops == 2 * 256 * 64 * 128 + 256 * 128
    assert cost.operations == 2
    assert cost.open_loops == 0


def test_a_step_without_loops_agrees_with_xla():
    step = jax.value_and_grad(loss)
    found = jax.jit(step).lower((W, V), X).compile()
    xla: Any = found.cost_analysis()
    ours = cost_of(step, (W, V), X)
    # XLA counts functions such as tanh apart.
    assert ours.flops == pytest.approx(xla["flops"] + xla["transcendentals"], rel=0.01)
    memory: Any = found.memory_analysis()
    temporary = memory.temp_size_in_bytes
    assert temporary <= ours.peak_bytes <= 4 * temporary


def test_the_body_of_a_scan_counts_as_often_as_it_runs():
    def chain(x, kernels):
        return jax.lax.scan(lambda x, k: (jnp.tanh(x @ k), None), x, kernels)[0]

    def cost(layers):
        kernels = jax.ShapeDtypeStruct((layers, 64, 64), np.float32)
        return cost_of(jax.grad(lambda x, k: jnp.sum(chain(x, k))), X, kernels)

    one, ten = cost(1), cost(10)
    # A product forward and one backward in each layer.
    body = 2 * 2 * 256 * 64 * 64
    assert ten.flops - one.flops == pytest.approx(9 * body, rel=0.1)
    # What the backward pass reads is kept for every layer.
    assert ten.peak_bytes > 5 * one.peak_bytes / 2


def test_programs_within_programs_and_branches():
    def inner(x, w):
        return x @ w

    plain = cost_of(inner, X, W).flops
    assert cost_of(jax.jit(inner), X, W).flops == plain
    assert cost_of(jax.checkpoint(inner), X, W).flops == plain

    def either(flag, x, w):
        return jax.lax.cond(flag, lambda: x @ w, lambda: jnp.zeros((256, 128)))

    flag = jax.ShapeDtypeStruct((), np.bool_)
    assert cost_of(either, flag, X, W).flops == pytest.approx(plain, rel=1e-6)


def test_a_loop_of_unknown_length_is_said():
    def until(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 1, lambda x: x + 1, x)

    assert cost_of(until, X).open_loops == 1


def test_sums_over_segments_count_what_goes_in():
    ids = jax.ShapeDtypeStruct((256,), np.int32)
    cost = cost_of(lambda x, i: jax.ops.segment_sum(x, i, 8), X, ids)
    assert 256 * 64 <= cost.flops < 2 * 256 * 64
