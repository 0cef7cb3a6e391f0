from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.models import allegro
from chemscale_jax.models.allegro_parts import SILU_GAIN, polynomial_cutoff, sizes
from chemscale_jax.models.energy import energy_and_forces
from tests.models.molecules import CUTOFF_ANG, MOLECULE, WATER, as_dtype, pack_of

FACTS = {
    "cutoff_ang": CUTOFF_ANG,
    "elements": (1, 6, 7, 8),
    "avg_num_neighbors": 3.0,
    "energy_scale": 1.0,
}
SMALL = {**FACTS, "width": 4, "channels": 2, "n_bessel": 3, "readout": (4,)}

# Parameters of the code of 2022 with four elements, for 2, 3 and 4 layers.
COUNTS = {
    ("A", 16): [889_480, 1_205_640, 1_523_336],
    ("A", 64): [1_311_880, 1_848_456, 2_409_608],
    ("A", 256): [3_646_600, 5_940_360, 8_627_336],
    ("B", 16): [25_736, 48_520, 77_448],
    ("B", 64): [74_888, 110_728, 152_712],
    ("B", 256): [501_896, 636_040, 776_328],
    ("C", 16): [11_144, 17_800, 25_992],
    ("C", 64): [148_616, 255_112, 386_184],
    ("C", 256): [2_265_224, 3_969_160, 6_066_312],
}


def shapes_of(**hyperparameters):
    model = allegro.make_model(**hyperparameters)
    return model, jax.eval_shape(model.init, jax.random.key(0))


def random_variables(seed=0, **hyperparameters):
    """A model with normal parameters, drawn here to save a compilation."""
    model, shapes = shapes_of(**hyperparameters)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), shapes["params"]
    )
    constants = jax.jit(lambda: model.init(jax.random.key(0))["constants"])()
    return model, params, jax.device_get(constants)


@pytest.mark.parametrize(("width_map", "width"), COUNTS)
def test_parameter_counts(width_map, width, monkeypatch):
    # Shapes need no products, whose tracing takes long.
    monkeypatch.setattr(
        allegro, "product", lambda path, left, right: left[:1] * len(path.terms)
    )
    settings = {**allegro.FAITHFUL, **FACTS, "width_map": width_map, "width": width}
    found = []
    for depth in (2, 3, 4):
        _, shapes = shapes_of(**settings, depth=depth)
        leaves = jax.tree.leaves(shapes["params"])
        found.append(sum(int(np.prod(x.shape)) for x in leaves))
    assert found == COUNTS[width_map, width]


def test_envelope():
    x: Any = jnp.linspace(0.0, 1.2, 50)
    ours = polynomial_cutoff(4.0 * x, 4.0, 6)
    np.testing.assert_allclose(ours, e3nn.poly_envelope(5, 2)(x), atol=2e-6)
    with jax.enable_x64(True):
        at_cutoff = jnp.float64(4.0 - 1e-9)
        function: Any = lambda d: polynomial_cutoff(d[None], 4.0, 6)[0]
        for order in range(3):
            assert abs(function(at_cutoff)) < 1e-7, order
            function = jax.grad(function)


def test_the_gain_is_that_of_silu():
    """e3nn's constant comes from random numbers; it is 0.16 % off the integral."""
    x = np.linspace(-12, 12, 200_001)
    silu = x / (1 + np.exp(-x))
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    exact = np.trapezoid(silu**2 * density, x) ** -0.5
    assert SILU_GAIN == pytest.approx(exact, rel=2e-3)
    assert SILU_GAIN != pytest.approx(exact, rel=1e-3)


def test_width_maps():
    config = allegro.AllegroConfig(width=16, width_map="A")
    assert sizes(config) == (16, (64, 128, 256, 512), (512,))
    config = allegro.AllegroConfig(width=16, width_map="quarter", latent=(8, 16))
    assert sizes(config) == (4, (16, 16), (8, 16))


def test_scalars_start_with_variance_one():
    """MLPs keep it: 2,000 pairs of random elements and distances."""
    rng = np.random.default_rng(0)
    config = allegro.AllegroConfig(**{**FACTS, "form": "2022"})
    mlp = allegro.MLP(config, (128, 128, 128))
    parts = [rng.normal(size=(2000, 8)).astype(np.float32) for _ in range(3)]
    params = mlp.init(jax.random.key(0), parts)
    found: Any = mlp.apply(params, parts)
    assert float(jnp.var(found)) == pytest.approx(1.0, abs=0.15)


@pytest.fixture(scope="module")
def later():
    """Form 2025 with all of its parts, and the gradient of a force loss, compiled."""
    model, params, constants = random_variables(**SMALL, depth=2, l_max=1, form="2025")

    def loss(params, positions_N3, pack):
        moved = pack._replace(positions_N3=positions_N3)
        energy_M, forces_N3 = energy_and_forces(model, params, constants, moved)
        return jnp.sum(forces_N3**2) + jnp.sum(energy_M**2), (energy_M, forces_N3)

    function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    def run(pack):
        (_, found), gradients = function(params, pack.positions_N3, pack)
        for gradient in jax.tree.leaves((found, gradients)):
            assert np.isfinite(gradient).all()
        return jax.device_get(found)

    return run


TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.63


@pytest.mark.parametrize(
    ("species", "positions"),
    [
        ([6, 1, 1, 1, 1], [[0, 0, 0], *TETRAHEDRON]),
        ([8, 6, 8], [[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]]),
        ([6], [[0, 0, 0]]),
        ([6, 1], [[0, 0, 0], [9.0, 0, 0]]),
        # Two atoms at one place are an error elsewhere, not a NaN here.
        ([6, 1, 1], [[0, 0, 0], [0.0, 0, 0], [1.0, 0, 0]]),
    ],
)
def test_second_derivatives_of_the_later_form_are_finite(later, species, positions):
    later(pack_of((np.array(species), np.array(positions, float)), dtype="float32"))


def test_the_later_form_turns_and_mirrors_with_the_molecule(later):
    turn = Rotation.from_euler("zyx", [0.3, -1.2, 2.0]).as_matrix()
    turn = turn @ np.diag([1.0, 1.0, -1.0])
    species, positions = MOLECULE
    energy, forces = later(pack_of(MOLECULE, dtype="float32"))
    turned = later(pack_of((species, positions @ turn.T), dtype="float32"))
    scale = np.abs(forces).max()
    assert scale > 1e-2
    # Rounding of float32.
    np.testing.assert_allclose(turned[0], energy, atol=3e-5 * scale)
    np.testing.assert_allclose(turned[1], forces @ turn.T, atol=3e-5 * scale)


@pytest.mark.parametrize(("parity", "same"), [("o3_restricted", True), ("so3", False)])
def test_mirror_images(parity, same):
    model, params, constants = random_variables(
        **SMALL, depth=2, l_max=1, form="2022", parity=parity
    )
    species, positions = MOLECULE
    with jax.enable_x64(True):
        energy = jax.jit(
            lambda pack: model.energy(as_dtype(params), as_dtype(constants), pack)
        )
        before = energy(pack_of(MOLECULE))
        after = energy(pack_of((species, positions * np.array([1.0, 1.0, -1.0]))))
    difference = np.abs(before - after).max()
    assert (difference < 1e-12) == same, difference


def test_an_element_that_is_not_listed_gives_nan():
    model, params, constants = random_variables(**SMALL, depth=1, l_max=1)
    run = jax.jit(lambda pack: energy_and_forces(model, params, constants, pack))
    iron = np.array([26, 1, 1]), WATER[1]
    energy, forces = run(pack_of(MOLECULE, iron, dtype="float32"))
    assert np.isfinite(energy[0])
    assert np.isfinite(forces[:5]).all()
    assert np.isnan(energy[1])
    assert np.isnan(forces[5:8]).all()
    assert np.isfinite(forces[8:]).all()


def test_narrow_products_change_little():
    pack, found = pack_of(MOLECULE, dtype="float32"), []
    for dtype in ("float32", "bfloat16"):
        model, params, constants = random_variables(
            **SMALL, depth=1, l_max=1, dtype=dtype
        )
        found.append(jax.jit(model.energy)(params, constants, pack))
    wide, narrow = found
    assert narrow.dtype == jnp.float32
    error = np.abs(narrow - wide).max()
    assert 1e-5 * np.abs(wide).max() < error < 0.1 * np.abs(wide).max()


@pytest.mark.parametrize(
    "options",
    [
        {"form": "2022"},
        {"form": "2022", "learnable_mixing": True, "learnable_bessel": True},
        {"form": "2025", "learnable_bessel": True},
    ],
)
def test_every_array_of_each_variant_has_one_rule(options, monkeypatch):
    monkeypatch.setattr(
        allegro, "product", lambda path, left, right: left[:1] * len(path.terms)
    )
    model, tree = shapes_of(**SMALL, depth=2, **options)
    rules = {"embed": "fsdp", "hidden": "tensor"}
    partition.param_shardings(tree, model.param_axes, rules, partition.make_mesh())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 8}, r"no option \['widht'\]; known: .*width"),
        ({"form": "2023"}, "form is '2023', expected"),
        ({"width_map": "D"}, "width_map is 'D', expected"),
        ({"depth": 0}, "depth is 0, must be >= 1"),
        ({"elements": ()}, "elements is .*; a stream fills it in"),
        ({"avg_num_neighbors": 0.0}, "avg_num_neighbors is 0.0; a stream"),
        ({"latent": (8, 6)}, "two_body ends with 4, config.model.latent with 6"),
        ({"width": 5}, "must be even, found 5"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        allegro.make_model(**{**SMALL, **options})
