import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.models import schnet
from chemscale_jax.models.energy import energy_and_forces
from tests.models.molecules import (
    CUTOFF_ANG,
    MOLECULE,
    TINY,
    as_dtype,
    model_of,
    pack_of,
    stretched,
)


def count(**hyperparameters):
    model = schnet.make_model(**hyperparameters)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
    ("width", "depth", "expected"),
    [
        (16, 2, 6_673),
        (16, 3, 9_137),
        (16, 4, 11_601),
        (64, 2, 39_937),
        (64, 3, 55_649),
        (64, 4, 71_361),
        (256, 2, 472_513),
        (256, 3, 679_457),
        (256, 4, 886_401),
        # As printed by the notebook of the paper's code.
        (128, 4, 240_641),
    ],
)
def test_parameter_counts(width, depth, expected):
    """The reference's counts; centres and widths of 32 Gaussians in each layer."""
    sizes = {"width": width, "depth": depth, "n_rbf": 32}
    assert count(**sizes) == expected
    assert count(**sizes, **schnet.FAITHFUL) == expected
    assert count(**sizes, trainable_gauss=False) == expected - 64 * depth


def test_initial_weights():
    """Glorot-uniform interactions; the readout starts as torch's linear layers do."""
    init = jax.jit(schnet.make_model(width=128, depth=1).init)
    params = init(jax.random.key(1))["params"]
    kernel = np.asarray(params["interaction_0"]["out"]["kernel"])
    bound = np.sqrt(6 / (128 + 128))
    assert np.abs(kernel).max() <= bound
    # The standard error of the deviation of 16,384 uniform numbers is 0.4 %.
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert not np.asarray(params["interaction_0"]["sender"]["bias"]).any()
    for part in ("kernel", "bias"):
        first = np.asarray(params["readout"]["hidden"][part])
        assert np.abs(first).max() <= 128**-0.5
        assert first.std() == pytest.approx(128**-0.5 / np.sqrt(3), rel=0.25)
    assert np.abs(params["readout"]["out"]["kernel"]).max() > 128**-0.5
    embedding = np.asarray(params["embedding"]["embedding"])
    assert not embedding[0].any()
    assert embedding[1:].std() == pytest.approx(1.0, rel=0.03)
    radial = params["radial_0"]
    assert radial["centres"] == pytest.approx(np.linspace(0, 5, 32))
    assert radial["widths"] == pytest.approx(np.full(32, 5 / 31))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 8}, r"no option \['widht'\]; known: .*width"),
        ({"cutoff_fn": "mollifier"}, "cutoff_fn is 'mollifier', expected"),
        ({"filter_hidden": "wide"}, "filter_hidden is 'wide', expected"),
        ({"n_rbf": 1}, "n_rbf is 1, must be >= 2"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        schnet.make_model(**options)


@pytest.mark.parametrize(
    "options", [schnet.FAITHFUL, schnet.SCHNETPACK | {"n_filters": 6}]
)
def test_every_array_of_each_variant_has_one_rule(options):
    model = schnet.make_model(width=8, depth=2, **options)
    tree = jax.eval_shape(model.init, jax.random.key(0))
    rules = {"embed": "fsdp", "hidden": "tensor"}
    partition.param_shardings(tree, model.param_axes, rules, partition.make_mesh())


def test_narrow_products_change_little():
    """bfloat16 keeps 8 bits: products differ by about 0.4 %, results are float32."""
    pack = pack_of(MOLECULE, dtype="float32")
    _, params, constants = model_of("schnet")
    outputs = []
    for dtype in ("float32", "bfloat16"):
        model = schnet.make_model(**TINY["schnet"], dtype=dtype)
        run = jax.jit(lambda *args, model=model: energy_and_forces(model, *args))
        outputs.append(run(params, constants, pack))
    (wide, wide_forces), (narrow, narrow_forces) = outputs
    assert narrow.dtype == narrow_forces.dtype == jnp.float32
    scale = np.abs(wide_forces).max()
    error = np.abs(narrow_forces - wide_forces).max()
    assert 1e-5 * scale < error < 0.1 * scale
    assert np.abs(narrow - wide).max() < 0.1 * np.abs(wide).max()


def test_the_papers_code_jumps_at_the_cutoff():
    """Its energy has a step where a neighbour crosses r_c, which no force shows."""
    model = schnet.make_model(**TINY["schnet"] | schnet.FAITHFUL)
    with jax.enable_x64(True):
        _, params, _ = model_of("schnet")
        run = jax.jit(lambda pack: energy_and_forces(model, as_dtype(params), {}, pack))
        outer = run(stretched(CUTOFF_ANG + 1e-6))
        for step in (0.0, 1e-6):
            energy, forces = run(stretched(CUTOFF_ANG - step))
            assert abs(energy[0] - outer[0][0]) > 1e-3
            assert abs(forces[2, 2]) > 1e-3
        assert abs(outer[1][2, 2]) < 1e-12
        # Padding edges are no neighbours, although nothing makes their filters small.
        fewer, _ = run(pack_of(MOLECULE, room=(6, 20)))
        more, _ = run(pack_of(MOLECULE))
        assert float(fewer[0]) == pytest.approx(float(more[0]), abs=1e-12)


def test_shifted_softplus():
    x = np.array([-90.0, -20.0, -1.0, 0.0, 1e-3, 2.0, 90.0], np.float32)
    exact = np.logaddexp(x.astype(np.float64), 0) - np.log(2)
    found = schnet.shifted_softplus(jnp.asarray(x))
    np.testing.assert_allclose(found, exact, rtol=2e-7, atol=1e-7)
    slope = jax.vmap(jax.grad(schnet.shifted_softplus))(x)
    sigmoid = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(slope, sigmoid, atol=1e-6)
    bend = jax.vmap(jax.grad(jax.grad(schnet.shifted_softplus)))(x)
    np.testing.assert_allclose(bend, sigmoid * (1 - sigmoid), atol=1e-6)


def test_one_edge_of_each_pair_is_kept():
    """Also between images, and of an atom with its own."""
    edges = [
        (i, j, shift)
        for i, j in itertools.product(range(3), repeat=2)
        for shift in itertools.product((-1, 0, 1), repeat=3)
        if i != j or any(shift)
    ]
    pack = pack_of((np.array([1, 1, 1]), np.zeros((3, 3))), room=(4, 6))
    padding = [(3, 3, (0, 0, 0))] * 3
    receivers, senders, shifts = zip(*edges, *padding, strict=True)
    half = schnet.one_way(
        pack._replace(
            receivers_E=jnp.array(receivers),
            senders_E=jnp.array(senders),
            shifts_E3=jnp.array(shifts),
        )
    )
    assert half.shifts_E3 is not None
    kept = list(
        zip(
            half.receivers_E.tolist(),
            half.senders_E.tolist(),
            map(tuple, half.shifts_E3.tolist()),
            strict=True,
        )
    )
    assert [edge[:2] for edge in kept[len(edges) // 2 :]] == [(3, 3)]
    kept = kept[: len(edges) // 2]
    opposite = [(j, i, tuple(-x for x in shift)) for i, j, shift in kept]
    assert sorted(kept + opposite) == sorted(edges)
    assert kept == sorted(kept, key=lambda edge: edge[0])
