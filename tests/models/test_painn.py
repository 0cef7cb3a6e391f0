import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.models import painn
from chemscale_jax.models.energy import energy_and_forces
from tests.models.molecules import (
    CUTOFF_ANG,
    MOLECULE,
    TINY,
    as_dtype,
    pack_of,
    stretched,
)


def count(**hyperparameters):
    model = painn.make_model(**hyperparameters)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
    ("width", "depth", "expected"),
    [
        (16, 2, 9_689),
        (16, 3, 13_661),
        (16, 4, 17_633),
        (64, 2, 107_753),
        (64, 3, 157_373),
        (64, 4, 206_993),
        (256, 2, 1_536_809),
        (256, 3, 2_275_901),
        (256, 4, 3_014_993),
    ],
)
def test_parameter_counts(width, depth, expected):
    """The reference's counts, with a learnable k in each layer."""
    assert count(width=width, depth=depth, learnable_k=True) == expected
    assert count(width=width, depth=depth) == expected - 20 * depth


def test_initial_weights():
    """Glorot-uniform kernels, zero biases, normal embeddings with an empty row 0."""
    params = painn.make_model(width=128, depth=1).init(jax.random.key(1))["params"]
    kernel = np.asarray(params["message_0"]["out"]["kernel"])
    bound = np.sqrt(6 / (128 + 3 * 128))
    assert np.abs(kernel).max() <= bound
    # The standard error of the deviation of 49,152 uniform numbers is 0.2 %.
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)
    assert not np.asarray(params["message_0"]["out"]["bias"]).any()
    embedding = np.asarray(params["embedding"]["embedding"])
    assert not embedding[0].any()
    assert embedding[1:].std() == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 8}, r"no option \['widht'\]; known: .*width"),
        ({"dtype": "float16"}, "dtype is 'float16', expected"),
        ({"depth": 0}, "depth is 0, must be >= 1"),
        ({"basis": "gaussian", "learnable_k": True}, "learnable_k needs"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        painn.make_model(**options)


def test_narrow_products_change_little():
    """bfloat16 keeps 8 bits: products differ by about 0.4 %, results are float32."""
    pack = pack_of(MOLECULE, dtype="float32")
    outputs = []
    for dtype in ("float32", "bfloat16"):
        model = painn.make_model(width=16, depth=2, cutoff_ang=3.0, dtype=dtype)
        variables = model.init(jax.random.key(0))
        run = jax.jit(lambda *args, model=model: energy_and_forces(model, *args))
        outputs.append(run(variables["params"], variables["constants"], pack))
    (wide, wide_forces), (narrow, narrow_forces) = outputs
    assert narrow.dtype == narrow_forces.dtype == jnp.float32
    scale = np.abs(wide_forces).max()
    error = np.abs(narrow_forces - wide_forces).max()
    assert 1e-5 * scale < error < 0.1 * scale
    assert np.abs(narrow - wide).max() < 0.1 * np.abs(wide).max()


@pytest.mark.parametrize(
    "options",
    [{"learnable_k": True, "skip_connection": True}, {"basis": "gaussian"}],
)
def test_every_array_of_each_variant_has_one_rule(options):
    model = painn.make_model(width=8, depth=2, **options)
    tree = jax.eval_shape(model.init, jax.random.key(0))
    rules = {"embed": "fsdp", "hidden": "tensor"}
    partition.param_shardings(tree, model.param_axes, rules, partition.make_mesh())


def test_curvature_is_continuous_without_filter_biases():
    """Each basis function has a zero at r_c, so the force vanishes as (r_c - r)^2.

    The reference multiplies the bias of a filter by the envelope too; once trained,
    that part is smooth to first order only.
    """
    model = painn.make_model(**TINY["painn"])
    variables = model.init(jax.random.key(0))
    with jax.enable_x64(True):
        params = as_dtype(variables["params"])
        run = jax.jit(lambda pack: energy_and_forces(model, params, {}, pack)[1][2, 2])
        gaps = [
            abs(float(run(stretched(CUTOFF_ANG - step)))) for step in (4e-4, 2e-4, 1e-4)
        ]
    assert gaps[0] > 1e-10
    assert gaps[1] < 0.27 * gaps[0]
    assert gaps[2] < 0.27 * gaps[1]
