"""Repulsion, electrostatics and dispersion on their own."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.models import dispersion, electrostatics, zbl
from tests.models.molecules import MOLECULE, pack_of

SPECIES = np.array([8, 6])


def pair_at(distance):
    """Two atoms that far apart, all edges kept."""
    near = pack_of((SPECIES, np.array([[0.0, 0, 0], [0, 0, 1.0]])), room=(4, 4))
    return near._replace(positions_N3=near.positions_N3.at[1, 2].set(distance))


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@functools.partial(jax.jit, static_argnames="lr_cutoff_ang")
def coulomb(distance, **options):
    pack, charge_N = pair_at(distance), jnp.array([0.5, -0.3, 0.0, 0.0])
    pairs = electrostatics.pair_distances(pack)
    energy_N = electrostatics.electrostatic_energy(
        charge_N, *pairs, pack, 4.0, **options
    )
    return jnp.sum(energy_N)


def test_charges_follow_coulomb_outside_and_are_damped_inside():
    ke, product = 14.3996454, -0.15
    assert coulomb(8.0) == pytest.approx(ke * product / 8.0, rel=1e-8)
    assert coulomb(3.01) == pytest.approx(ke * product / 3.01, rel=1e-8)
    assert coulomb(0.9) == pytest.approx(ke * product / np.sqrt(1.81), rel=1e-8)
    assert coulomb(1e-6) == pytest.approx(ke * product, rel=1e-6)


def test_a_long_range_cutoff_ends_with_value_and_slope_zero():
    def energy(distance):
        return coulomb(distance, lr_cutoff_ang=9.0)

    assert abs(energy(8.0)) > 1e-3
    assert abs(energy(8.9999)) < 1e-9
    assert abs(jax.grad(energy)(8.9999)) < 1e-5
    assert energy(9.1) == 0


def test_two_atoms_at_one_place_and_padding_stay_finite():
    for value in (coulomb(0.0), jax.grad(jax.grad(coulomb))(0.0)):
        assert np.isfinite(value)


@jax.jit
def repulsion(distance):
    pack, module = pair_at(distance), zbl.Repulsion()
    args = (jnp.full(4, 1.0) * distance, jnp.array([1.0, 1.0, 0.0, 0.0]), pack)
    variables = module.init(jax.random.key(0), *args)
    return jnp.sum(jnp.asarray(module.apply(variables, *args)))


def test_repulsion_starts_as_the_universal_potential():
    for distance in (0.05, 0.5, 1.4):
        length = 0.8854 * 0.5291772105638411 / (8**0.23 + 6**0.23)
        x = distance / length
        screening = sum(
            c * np.exp(-a * x)
            for c, a in (
                (0.18180, 3.20000),
                (0.50990, 0.94230),
                (0.28020, 0.40280),
                (0.02817, 0.20160),
            )
        )
        expected = 14.3996454 * 48 / distance * screening
        # The four weights are made to sum to one, which takes 7e-5.
        assert repulsion(distance) == pytest.approx(expected, rel=2e-4)


def tables() -> dict[str, Any]:
    """Made-up tables, in which no weight or polarizability is zero."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        name: rng.uniform(0.2, 1.2, shape).astype(np.float32)
        for name, shape in dispersion.TABLES.items()
    }
    found["refsys"] = rng.integers(1, 18, dispersion.TABLES["refsys"])
    return found


@functools.partial(jax.jit, static_argnames="lr_cutoff_ang")
def dispersed(positions, lr_cutoff_ang=None, charge=0.2):
    pack = pack_of(MOLECULE)
    pack = pack._replace(positions_N3=pack.positions_N3.at[:5].set(positions))
    module = dispersion.Dispersion(tables(), lr_cutoff_ang)
    pairs = electrostatics.pair_distances(pack)
    args = (jnp.full(10, charge), *pairs, pack)
    variables = module.init(jax.random.key(0), *args)
    energy_N, properties = module.apply(variables, *args)
    return jnp.sum(energy_N), properties


def test_dispersion_falls_as_the_sixth_power():
    near, _ = dispersed(40.0 * MOLECULE[1])
    far, _ = dispersed(80.0 * MOLECULE[1])
    assert near < 0
    # The eighth-power term and the damping are smaller by 1e-3 here.
    assert far / near == pytest.approx(2.0**-6, rel=2e-2)


def test_dispersion_weakens_where_electrons_are_missing():
    positive, _ = dispersed(MOLECULE[1], charge=0.4)
    negative, _ = dispersed(MOLECULE[1], charge=-0.1)
    assert negative < positive < 0


def test_gradient_of_dispersion_is_a_finite_difference():
    positions = jnp.asarray(MOLECULE[1])
    direction = np.random.default_rng(1).normal(size=positions.shape)

    def energy(step):
        return dispersed(positions + step * direction)[0]

    slope, step = jax.grad(energy)(0.0), 1e-4
    difference = (energy(step) - energy(-step)) / (2 * step)
    assert float(slope) == pytest.approx(float(difference), rel=1e-5)
    assert np.isfinite(jax.jit(jax.grad(jax.grad(energy)))(0.0))


def test_dispersion_ends_at_a_long_range_cutoff():
    positions = MOLECULE[1] * 3.0
    assert abs(dispersed(positions)[0]) > 0
    assert dispersed(100 * positions, lr_cutoff_ang=8.0)[0] == 0


def test_tables_are_read_by_their_last_name(tmp_path):
    path = tmp_path / "weights.npz"
    named: dict[str, Any] = {
        f"d4_dispersion_energy.{name}": table for name, table in tables().items()
    }
    np.savez(path, **named)
    found = dispersion.read_tables(str(path))
    assert set(found) == set(dispersion.TABLES)
    del named["d4_dispersion_energy.rcov"]
    np.savez(path, **named)
    with pytest.raises(UserError, match=r"has nothing for rcov, expected .*\(87,\)"):
        dispersion.read_tables(str(path))
    with pytest.raises(UserError, match="is unreadable"):
        dispersion.read_tables(str(tmp_path / "absent.npz"))
