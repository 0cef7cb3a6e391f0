"""The physics that every entry of ENERGY_MODELS must have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from chemscale_jax.core import partition
from chemscale_jax.models import ENERGY_MODELS
from chemscale_jax.models.energy import energy_and_forces
from tests.models.molecules import (
    CUTOFF_ANG,
    MOLECULE,
    TINY,
    WATER,
    as_dtype,
    model_of,
    pack_of,
    stretched,
)

# Rounding of a few hundred float64 operations on numbers of order 10.
EXACT = 1e-11


@pytest.fixture(params=ENERGY_MODELS)
def name(request):
    return request.param


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@functools.cache
def compiled(name):
    model, _, _ = model_of(name)
    return jax.jit(functools.partial(energy_and_forces, model)), jax.jit(model.features)


def run(name, pack, dtype="float64"):
    """energy_M and forces_N3 of a pack, as NumPy arrays."""
    _, params, constants = model_of(name)
    function, _ = compiled(name)
    outputs = function(as_dtype(params, dtype), as_dtype(constants, dtype), pack)
    return jax.device_get(outputs)


def skip_unless_local(name):
    if not model_of(name)[0].local:
        pytest.skip(f"atoms of {name} interact at any distance")


def test_every_model_has_a_tiny_form():
    assert set(TINY) == set(ENERGY_MODELS)


@pytest.mark.parametrize("mirror", [False, True])
def test_rotation_and_reflection(name, mirror, x64):
    turn = Rotation.from_euler("zyx", [0.3, -1.2, 2.0]).as_matrix()
    if mirror:
        turn = turn @ np.diag([1.0, 1.0, -1.0])
    species, positions = MOLECULE
    before, after = pack_of(MOLECULE), pack_of((species, positions @ turn.T))
    energy, forces = run(name, before)
    turned_energy, turned_forces = run(name, after)
    np.testing.assert_allclose(turned_energy, energy, atol=EXACT)
    np.testing.assert_allclose(turned_forces, forces @ turn.T, atol=EXACT)
    assert np.abs(forces).max() > 1e-2

    model, params, constants = model_of(name)
    _, features = compiled(name)
    args = as_dtype(params), as_dtype(constants)
    expected = features(*args, before).transform_by_matrix(turn).array
    found = features(*args, after)
    assert found.irreps == model.feature_irreps
    np.testing.assert_allclose(found.array[:5], expected[:5], atol=1e-7)


def test_translation(name, x64):
    species, positions = MOLECULE
    energy, forces = run(name, pack_of(MOLECULE))
    shift = np.array([3.0, -20.0, 7.0])
    moved_energy, moved_forces = run(name, pack_of((species, positions + shift)))
    np.testing.assert_allclose(moved_energy, energy, atol=EXACT)
    np.testing.assert_allclose(moved_forces, forces, atol=EXACT)


def test_permutation(name, x64):
    order = np.array([3, 0, 4, 2, 1])
    species, positions = MOLECULE
    energy, forces = run(name, pack_of(MOLECULE))
    shuffled = run(name, pack_of((species[order], positions[order])))
    np.testing.assert_allclose(shuffled[0], energy, atol=EXACT)
    np.testing.assert_allclose(shuffled[1][:5], forces[order], atol=EXACT)


def test_molecules_of_a_pack_add_up(name, x64):
    one, two = run(name, pack_of(MOLECULE)), run(name, pack_of(WATER))
    together = run(name, pack_of(MOLECULE, WATER))
    np.testing.assert_allclose(together[0], [*one[0][:1], *two[0]], atol=EXACT)
    np.testing.assert_allclose(together[1][:5], one[1][:5], atol=EXACT)
    np.testing.assert_allclose(together[1][5:8], two[1][:3], atol=EXACT)


def test_distant_molecules_add_up(name, x64):
    """Also where they are one molecule to the pack; long-range terms see that."""
    skip_unless_local(name)
    far = WATER[0], WATER[1] + np.array([50.0, 0, 0])
    one, two = run(name, pack_of(MOLECULE)), run(name, pack_of(WATER))
    species, positions = (
        np.concatenate(pair) for pair in zip(MOLECULE, far, strict=True)
    )
    joined = run(name, pack_of((species, positions)))
    np.testing.assert_allclose(joined[0][0], one[0][0] + two[0][0], atol=EXACT)


def test_forces_are_finite_differences(name, x64):
    species, positions = MOLECULE
    _, forces = run(name, pack_of(MOLECULE))
    step = 1e-4
    for atom, axis in ((0, 0), (2, 1), (4, 2)):
        ends = []
        for sign in (1, -1):
            moved = positions.copy()
            moved[atom, axis] += sign * step
            ends.append(run(name, pack_of((species, moved)))[0][0])
        slope = (ends[0] - ends[1]) / (2 * step)
        # The error of central differences is of order step^2.
        assert abs(forces[atom, axis] + slope) < 1e-6


def test_no_net_force_or_torque(name, x64):
    _, positions = MOLECULE
    _, forces = run(name, pack_of(MOLECULE))
    np.testing.assert_allclose(forces.sum(0), 0, atol=EXACT)
    np.testing.assert_allclose(np.cross(positions, forces[:5]).sum(0), 0, atol=EXACT)


def test_padding_has_no_effect(name, x64):
    energy, forces = run(name, pack_of(MOLECULE, room=(6, 20)))
    padded_energy, padded_forces = run(name, pack_of(MOLECULE, room=(12, 50)))
    np.testing.assert_allclose(padded_energy, energy, atol=EXACT)
    np.testing.assert_allclose(padded_forces[:5], forces[:5], atol=EXACT)
    assert padded_energy[-1] == 0
    assert not padded_forces[5:].any()


def test_smooth_at_the_cutoff(name, x64):
    """Energy and force go to their outer values as (r_c - r)^2 and r_c - r."""
    skip_unless_local(name)
    steps = np.array([4e-4, 2e-4, 1e-4])

    def at(distance):
        energy, forces = run(name, stretched(distance))
        return energy[0], forces[2, 2]

    outer_energy, outer_force = at(CUTOFF_ANG)
    inner = np.array([at(CUTOFF_ANG - step) for step in steps])
    assert at(CUTOFF_ANG + 0.3) == pytest.approx((outer_energy, 0), abs=EXACT)
    assert abs(outer_force) < EXACT
    energy_gap = np.abs(inner[:, 0] - outer_energy)
    force_gap = np.abs(inner[:, 1])
    assert energy_gap[0] > 1e-11, "the pair does not interact"
    assert np.all(energy_gap[1:] < 0.27 * energy_gap[:-1])
    assert np.all(force_gap[1:] < 0.53 * force_gap[:-1])


# At a centre of symmetry vectors vanish, and roots of their squares have no slope.
METHANE = (
    np.array([6, 1, 1, 1, 1]),
    0.63 * np.array([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]),
)
CARBON_DIOXIDE = (
    np.array([8, 6, 8]),
    np.array([[-1.2, 0, 0], [0, 0, 0], [1.2, 0, 0]]),
)
# Each sees the five others, so that the pack has room for two more edges.
CLUSTER = (
    np.append(MOLECULE[0], 1),
    np.concatenate([0.6 * MOLECULE[1], [[0.9, -1.0, 0.5]]]),
)
CORNERS = {
    "one atom": ((np.array([6]), np.zeros((1, 3))),),
    "no edges": ((np.array([6, 1]), np.array([[0.0, 0, 0], [9.0, 0, 0]])),),
    "methane": (METHANE,),
    "linear": (CARBON_DIOXIDE,),
    "two padding edges": (CLUSTER,),
    "nothing": None,
}


@functools.cache
def force_loss_gradient(name):
    model, _, _ = model_of(name)

    def loss(params, positions_N3, constants, pack):
        moved = pack._replace(positions_N3=positions_N3)
        energy_M, forces_N3 = energy_and_forces(model, params, constants, moved)
        return jnp.sum(forces_N3**2) + jnp.sum(energy_M**2)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


@pytest.mark.parametrize("corner", CORNERS)
def test_second_derivatives_are_finite(name, corner):
    molecules = CORNERS[corner] or (WATER,)
    pack = pack_of(*molecules, dtype="float32")
    if CORNERS[corner] is None:
        last = pack.species_N.shape[0] - 1
        pack = pack._replace(
            species_N=jnp.zeros_like(pack.species_N),
            senders_E=jnp.full_like(pack.senders_E, last),
            receivers_E=jnp.full_like(pack.receivers_E, last),
            molecule_N=jnp.ones_like(pack.molecule_N),
        )
    if corner == "two padding edges":
        padding = pack.receivers_E == pack.species_N.shape[0] - 1
        assert int(padding.sum()) == 2
    _, params, constants = model_of(name)
    loss, gradients = force_loss_gradient(name)(
        params, pack.positions_N3, constants, pack
    )
    assert np.isfinite(loss)
    for gradient in jax.tree.leaves(gradients):
        assert np.isfinite(gradient).all()
    if CORNERS[corner] is None:
        assert loss == 0


def test_force_loss_reaches_the_parameters(name, x64):
    """Its gradient along a random direction is the finite difference of the loss."""
    _, params, constants = model_of(name)
    pack, params = pack_of(MOLECULE), as_dtype(params)
    function = force_loss_gradient(name)

    def value(shift):
        moved = jax.tree.map(lambda x, d: x + shift * d, params, direction)
        return function(moved, pack.positions_N3, as_dtype(constants), pack)

    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
    _, (gradient, _) = value(0.0)
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))
    step = 1e-5
    difference = (value(step)[0] - value(-step)[0]) / (2 * step)
    assert float(slope) == pytest.approx(float(difference), rel=1e-6)


def test_every_parameter_has_one_rule(name):
    model, params, constants = model_of(name)
    tree = {"params": params, "constants": constants}
    rules = {"embed": "fsdp", "hidden": "tensor"}
    placed = partition.param_shardings(
        tree, model.param_axes, rules, partition.make_mesh()
    )
    assert jax.tree.structure(placed) == jax.tree.structure(tree)
