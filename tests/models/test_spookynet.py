"""SpookyNet beyond the physics of all models: charge, spin, attention, its start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.models import spookynet
from chemscale_jax.models.electron_configuration import electron_table, occupation
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
from tests.models.test_energy_models import EXACT, force_loss_gradient, run

METHANE = (
    np.array([6, 1, 1, 1, 1]),
    0.63 * np.array([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]),
)
CO2 = (np.array([8, 6, 8]), np.array([[-1.2, 0, 0], [0, 0, 0], [1.2, 0, 0]]))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def spooky(*molecules, **options):
    """Energies and forces of the tiny model."""
    return run("spookynet", pack_of(*molecules, **options))


@functools.cache
def inner_outputs():
    config = spookynet.SpookyNetConfig(**TINY["spookynet"])
    return jax.jit(functools.partial(spookynet.outputs, config))


def inside(pack):
    """Outputs and intermediate values of the tiny model."""
    _, params, constants = model_of("spookynet")
    return jax.device_get(inner_outputs()(as_dtype(params), as_dtype(constants), pack))


@pytest.mark.parametrize(
    ("width", "depth", "expected"),
    [
        (16, 2, 26_733),
        (16, 3, 37_949),
        (16, 4, 49_165),
        (64, 2, 345_981),
        (64, 3, 498_365),
        (64, 4, 650_749),
        (256, 2, 5_217_213),
        (256, 3, 7_547_069),
        (256, 4, 9_876_925),
    ],
)
def test_parameter_counts(width, depth, expected):
    """The reference's, with the scalars of ZBL and D4."""
    config = spookynet.SpookyNetConfig(width=width, depth=depth, d4=True)
    shapes = jax.eval_shape(spookynet.initializer(config), jax.random.key(0))
    sizes = [int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"])]
    assert sum(sizes) == expected


def test_electron_configurations():
    def written(number):
        filled = occupation(number)
        return " ".join(f"{shell}{count}" for shell, count in filled.items() if count)

    assert written(8) == "1s2 2s2 2p4"
    assert written(26) == "1s2 2s2 2p6 3s2 3p6 4s2 3d6"
    assert written(46).endswith("4s2 3d10 4p6 4d10")
    table = electron_table()
    assert table.shape == (spookynet.N_SPECIES, 20)
    assert not table[0].any()
    assert np.all(table.max(axis=0) == 1)
    counts = table[:, 1:16] * np.array(
        [2, 2, 6, 2, 6, 2, 10, 6, 2, 10, 6, 2, 14, 10, 6]
    )
    assert np.array_equal(counts.sum(axis=1).round(9), np.arange(87))
    # Valence electrons of bromine, whose 3d shell counts, and of rubidium.
    assert table[35, 16:] == pytest.approx([1, 5 / 6, 1, 0])
    assert table[37, 16:] == pytest.approx([0.5, 0, 0, 0])


def test_charge_and_spin_change_energies_and_forces(x64):
    settings = [(0, 0), (1, 0), (-1, 0), (0, 1), (1, 1), (0, 2)]
    found = [spooky(WATER, charge=[q], spin=[s]) for q, s in settings]
    for i, (energy, forces) in enumerate(found):
        for other_energy, other_forces in found[:i]:
            assert abs(energy[0] - other_energy[0]) > 1e-4
            assert np.abs(forces - other_forces).max() > 1e-4
    opposite, _ = spooky(WATER, spin=[-1])
    np.testing.assert_allclose(opposite, found[3][0], atol=EXACT)


def test_neutral_singlets_have_no_charge_and_spin_features(x64):
    _, neutral = inside(pack_of(WATER))
    _, ion = inside(pack_of(WATER, charge=[-1], spin=[1]))
    for name in ("q_embed", "s_embed"):
        assert not neutral[name][0].any()
        assert np.abs(ion[name][0][:3]).max() > 1e-3
        assert not ion[name][0][3:].any()


def test_charges_sum_to_the_charge_of_the_molecule(x64):
    found, _ = inside(pack_of(MOLECULE, WATER, charge=[-1, 2]))
    assert found.charge_N[:5].sum() == pytest.approx(-1, abs=EXACT)
    assert found.charge_N[5:8].sum() == pytest.approx(2, abs=EXACT)
    assert not found.charge_N[8:].any()
    parts = found.network_N + found.zbl_N + found.coulomb_N + found.dispersion_N
    np.testing.assert_allclose(found.energy_N, parts, atol=EXACT)
    assert np.abs(found.zbl_N).max() > 1e-3
    assert np.abs(found.coulomb_N).max() > 1e-3


@pytest.mark.parametrize(("charge", "spin"), [(-1, 0), (0, 1)])
def test_forces_of_ions_and_radicals_are_finite_differences(charge, spin, x64):
    species, positions = MOLECULE
    state = {"charge": [charge], "spin": [spin]}
    _, forces = spooky(MOLECULE, **state)
    step, direction = 1e-4, np.random.default_rng(0).normal(size=positions.shape)
    ends = [
        spooky((species, positions + sign * step * direction), **state)[0][0]
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    # The error of central differences is of order step^2.
    assert np.sum(forces[:5] * direction) == pytest.approx(-slope, abs=1e-6)


def test_other_molecules_of_a_batch_change_nothing(x64):
    alone = spooky(WATER, charge=[1], spin=[1])
    first = spooky(WATER, MOLECULE, charge=[1, -1], spin=[1, 0])
    second = spooky(MOLECULE, WATER, charge=[-1, 1], spin=[0, 1])
    assert first[0][0] == pytest.approx(alone[0][0], abs=EXACT)
    assert second[0][1] == pytest.approx(alone[0][0], abs=EXACT)
    np.testing.assert_allclose(first[1][:3], alone[1][:3], atol=EXACT)
    np.testing.assert_allclose(second[1][5:8], alone[1][:3], atol=EXACT)


def test_symmetric_molecules_keep_symmetric_forces(x64):
    _, forces = spooky(CO2, spin=[1])
    np.testing.assert_allclose(forces[0], -forces[2], atol=EXACT)
    np.testing.assert_allclose(forces[1], 0, atol=EXACT)
    assert abs(forces[0, 0]) > 1e-2
    _, forces = spooky(METHANE, charge=[1])
    np.testing.assert_allclose(forces[0], 0, atol=EXACT)


def test_second_derivatives_of_methane_and_of_an_ion_are_finite():
    """In a neutral singlet, nothing reaches the branches of charge and spin."""
    _, params, constants = model_of("spookynet")
    oxygen = (np.array([8]), np.zeros((1, 3)))
    for molecule, charge, spin in ((METHANE, 0, 0), (oxygen, -1, 1)):
        pack = pack_of(molecule, dtype="float32", charge=[charge], spin=[spin])
        loss, gradients = force_loss_gradient("spookynet")(
            params, pack.positions_N3, constants, pack
        )
        assert loss > 0
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
        for branch in ("charge", "spin"):
            moved = any(np.any(x) for x in jax.tree.leaves(gradients[0][branch]))
            assert moved == (spin > 0)


def test_force_only_loss_leaves_the_start(x64):
    """The reference starts at a saddle: features and their use are both zero."""
    fields = {**TINY["spookynet"], "width": 4, "zbl": False}
    fields["electrostatics"] = False
    pack = pack_of(WATER)
    # Of both signs: forces add up to zero, and so do their derivatives.
    labels_N3 = pack.positions_N3

    def gradient_of(model):
        def loss(params, constants):
            _, forces_N3 = energy_and_forces(model, params, constants, pack)
            return jnp.sum(jnp.abs(forces_N3 - labels_N3))

        return jax.jit(jax.grad(loss))

    model = spookynet.make_model(**fields)
    gradient = gradient_of(model)
    largest = {}
    for zero_init in (False, True):
        model = spookynet.make_model(**fields, zero_init=zero_init)
        start = jax.jit(model.init)(jax.random.key(0))
        found = gradient(*(as_dtype(start[part]) for part in ("params", "constants")))
        largest[zero_init] = max(
            float(jnp.abs(x).max()) for x in jax.tree.leaves(found)
        )
    assert largest[False] > 1e-3
    assert largest[True] == 0


def test_smooth_at_the_cutoff_without_long_range_terms(x64):
    """Every derivative vanishes there: no power of the gap is left."""
    fields = {**TINY["spookynet"], "electrostatics": False}
    model = spookynet.make_model(**fields)
    assert model.pair_cutoff_ang is None
    start = jax.jit(model.init)(jax.random.key(0))
    variables = as_dtype(jax.tree.map(lambda x: x + 0.1, start))
    function = jax.jit(functools.partial(energy_and_forces, model))

    def at(distance):
        pack = stretched(distance)
        energy, forces = function(variables["params"], variables["constants"], pack)
        return float(energy[0]), float(forces[2, 2])

    outer, outer_force = at(CUTOFF_ANG)
    assert outer_force == 0
    assert at(CUTOFF_ANG + 0.3) == pytest.approx((outer, 0), abs=EXACT)
    gaps = [abs(at(CUTOFF_ANG - step)[0] - outer) for step in (0.4, 0.2, 0.1)]
    assert gaps[0] > 1e-5
    # A cut-off of order n would take 2^n from each to the next.
    assert gaps[1] < gaps[0] / 2**4
    assert gaps[2] < gaps[1] / 2**8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"widht": 8}, r"no option \['widht'\]; known: .*width"),
        ({"basis": "bessel"}, "basis is 'bessel', expected"),
        ({"attention_maximum": "global"}, "attention_maximum is 'global'"),
        ({"residual_pre": -1}, "residual_pre is -1, must be >= 0"),
        ({"lr_cutoff_ang": 2.0}, "lr_cutoff_ang is 2.0, must be None or >="),
    ],
)
def test_bad_options_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        spookynet.make_model(**fields)


def test_d4_asks_for_its_tables():
    model = spookynet.make_model(**{**TINY["spookynet"], "d4": True})
    with pytest.raises(UserError, match=r"d4 needs the reference tables.*d4_tables"):
        model.init(jax.random.key(0))


def test_a_missing_pair_list_is_named():
    model, params, constants = model_of("spookynet")
    pack = pack_of(WATER)._replace(pair_senders_P=None, pair_receivers_P=None)
    with pytest.raises(UserError, match="needs a second pair list up to inf"):
        model.energy(params, constants, pack)


@pytest.mark.parametrize(
    ("fields", "reach"),
    [
        ({"attention": "exact", "zbl": False, "residual_pre": 2}, float("inf")),
        ({"basis": "sinc", "electrostatics": False}, None),
        ({"d4": True, "basis": "exp-gaussian", "lr_cutoff_ang": 9.0}, 9.0),
    ],
)
def test_every_array_of_each_variant_has_one_rule(fields, reach):
    config = spookynet.SpookyNetConfig(width=8, depth=2, **fields)
    model = spookynet.make_model_from(config)
    assert model.pair_cutoff_ang == reach
    tree = jax.eval_shape(spookynet.initializer(config), jax.random.key(0))
    rules = {"embed": "fsdp", "hidden": "tensor"}
    partition.param_shardings(tree, model.param_axes, rules, partition.make_mesh())


@pytest.mark.parametrize("activation", spookynet.ACTIVATIONS)
def test_activations(activation, x64):
    module = spookynet.Activation(activation)
    x = jnp.linspace(-2, 2, 5)[:, None] * jnp.ones((1, 3))
    factors = {"alpha": jnp.array([1.0, 2.0, 1.0]), "beta": jnp.array([1.0, 1.0, 0.0])}
    found = np.asarray(module.apply({"params": factors}, x))
    np.testing.assert_allclose(found[:, 1], 2 * found[:, 0], atol=EXACT)
    plain = jax.nn.silu(x[:, 0])
    if activation != "swish":
        plain = jax.nn.softplus(x[:, 0]) - np.log(2)
    np.testing.assert_allclose(found[:, 0], plain, atol=EXACT)
    # Both are linear for a flat sigmoid or softplus.
    np.testing.assert_allclose(found[:, 2], 0.5 * x[:, 2], atol=EXACT)
