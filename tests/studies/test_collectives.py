import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from chemscale_jax.core import partition
from chemscale_jax.studies.collectives import exchange_of

LAYERS = 5


def program(mesh, kernels_spec):
    """The gradient of a chain of products in a loop, rows spread over data."""

    def loss(kernels, x):
        out, _ = jax.lax.scan(lambda x, k: (jnp.tanh(x @ k), None), x, kernels)
        return jnp.sum(out)

    kernels = jax.ShapeDtypeStruct((LAYERS, 16, 16), np.float32)
    x = jax.ShapeDtypeStruct((64, 16), np.float32)
    placed = NamedSharding(mesh, PartitionSpec(*kernels_spec))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    step = jax.jit(jax.grad(loss), in_shardings=(placed, rows), out_shardings=placed)
    return step.lower(kernels, x).compile().as_text() or ""


def test_gradients_are_summed_once_for_each_time_a_loop_runs():
    text = program(partition.make_mesh(8), ())
    found = exchange_of(text, 8, 8)
    # All eight have a sum of every layer's gradient, in a ring.
    assert found.by_kind == {"all-reduce": LAYERS * 16 * 16 * 4 * 2 * 7 / 8}
    assert (found.within, found.across) == (found.by_kind["all-reduce"], 0)
    # On hosts of four devices the same bytes cross the network.
    assert exchange_of(text, 8, 4)[:2] == (0, found.within)


def test_groups_of_neighbours_stay_on_a_host():
    text = program(partition.make_mesh(2, 1, 4), (None, None, "tensor"))
    found = exchange_of(text, 8, 4)
    assert found.within > 0
    # Over data, between hosts: sums of a quarter of the gradient.
    assert found.across == LAYERS * 16 * 16 / 4 * 4 * 2 * 1 / 2


@pytest.mark.parametrize(
    ("line", "within", "across"),
    [
        ("all-gather(%a), replica_groups={{0,1},{2,3}}, dimensions={0}", 50.0, 0.0),
        ("all-gather(%a), replica_groups={{0,2},{1,3}}, dimensions={0}", 0.0, 50.0),
        ("reduce-scatter(%a), replica_groups=[2,2]<=[4]", 100.0, 0.0),
        ("reduce-scatter(%a), replica_groups=[2,2]<=[2,2]T(1,0)", 0.0, 100.0),
        ("collective-permute(%a), source_target_pairs={{0,1},{1,0}}", 100.0, 0.0),
        ("collective-permute(%a), source_target_pairs={{0,3},{3,0}}", 0.0, 100.0),
        ("all-reduce(%a), replica_groups={{0,1,2,3}}, to_apply=%add", 0.0, 150.0),
        ("all-gather(%a), replica_groups=mesh['x'=2,'y'=2] {'y'}", 50.0, 0.0),
        ("all-gather(%a), replica_groups=mesh['x'=2,'y'=2] {'x'}", 0.0, 50.0),
        ("all-gather(%a), replica_groups=mesh['x'=2,'y'=2] {'x','y'}", 0.0, 75.0),
        ("add(%a, %a)", 0.0, 0.0),
    ],
)
def test_what_each_operation_sends(line, within, across):
    text = f"ENTRY %main.1 (a: f32[25]) -> f32[25] {{\n  %b = f32[25]{{0}} {line}\n}}\n"
    found = exchange_of(text, 4, 2)
    assert (found.within, found.across) == (within, across)
    assert sum(found.by_kind.values()) == within + across
