import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from chemscale_jax.analysis.reports.check_table import check_section
from chemscale_jax.commands import check as command
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.inference import check, check_lines
from chemscale_jax.inference.force_field import ForceField
from chemscale_jax.inference.neighbor_list import System
from chemscale_jax.models import ENERGY_MODELS
from tests.models.molecules import MOLECULE, TINY, WATER, model_of

SYSTEMS = [System(z, x) for z, x in (WATER, MOLECULE)]
ELEMENTS = {"elements": ["H", "C", "N", "O"], "reference_energies_ev": {}}


def field_of(name, energy=None, artifacts=ELEMENTS):
    """The tiny model of that name, or with another energy function in its place."""
    model, params, constants = model_of(name)
    if energy is not None:
        model = dataclasses.replace(model, energy=energy)
    config = ConfigDict({"model": {"name": name, **TINY[name]}})
    return ForceField(model, params, constants, config, artifacts)


@pytest.mark.parametrize("name", ENERGY_MODELS)
def test_every_model_passes(name):
    found = check.check_force_field(field_of(name), SYSTEMS, nve=False)
    assert found.ok, check.check_table(found)
    assert len(found.lines) == 12
    assert found.notes == ["NVE drift, not asked for"]
    # Nothing is ok because it is not measured: rounding leaves its traces.
    assert sum(line.value > 0 for line in found.lines) >= 8


def distances(pack):
    disp_E3 = pack.positions_N3[pack.senders_E] - pack.positions_N3[pack.receivers_E]
    real_E = pack.receivers_E < len(pack.species_N) - 1
    square_E = jnp.where(real_E, jnp.sum(disp_E3**2, axis=1), 1.0)
    return jnp.sqrt(square_E), real_E


def pair_energy(pack, of_distance):
    distance_E, real_E = distances(pack)
    energy_E = jnp.where(real_E & (distance_E < 3.0), of_distance(distance_E), 0.0)
    return jax.ops.segment_sum(energy_E, pack.receivers_E, len(pack.species_N))


def smooth(distance_E):
    return (1 - distance_E / 3.0) ** 3 / distance_E


@jax.custom_jvp
def wrong(x):
    return jnp.sum(x**2)


@wrong.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return jnp.sum(x**2), jnp.sum(2.2 * x * t)


FAULTS = {
    "rotation": lambda p: jnp.square(p.positions_N3[:, 0] - p.positions_N3[0, 0]),
    "translation": lambda p: jnp.sum(p.positions_N3, axis=1),
    "permutation": lambda p: jnp.where(
        jnp.arange(len(p.species_N)) == 0, pair_energy(p, smooth), 0.0
    ),
    "forces against differences": lambda p: pair_energy(
        p, lambda d: smooth(d) + 0 * d + 10.0 * wrong(d) / d.size
    ),
    "energy jump at the cut-off": lambda p: pair_energy(p, lambda d: 1 / d),
    "force jump at the cut-off": lambda p: pair_energy(p, lambda d: 3.0 - d),
    "padding and batch": lambda p: pair_energy(p, smooth) * jnp.sum(p.species_N > 0),
    "float32 energy": lambda p: pair_energy(p, smooth) + 1e7 * (p.species_N > 0) / 3,
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found_by_name(name):
    def energy(params, constants, pack):
        real_N = pack.species_N > 0
        return jnp.where(real_N, FAULTS[name](pack), 0.0)

    found = check.check_force_field(field_of("painn", energy), SYSTEMS, nve=False)
    failed = [line.name for line in found.lines if not line.ok]
    assert name in failed, check.check_table(found)
    healthy = {"float32 energy", "padding and batch"} & {name}
    assert not healthy or failed == [name]
    assert f"not ok: {', '.join(failed)}" in check.check_table(found)


def test_what_is_not_finite_is_not_ok():
    def energy(params, constants, pack):
        return jnp.log(-(pack.positions_N3[:, 0] ** 2))

    found = check.check_force_field(field_of("painn", energy), SYSTEMS, nve=False)
    assert not any(line.ok for line in found.lines)


def test_dynamics_of_a_pair_potential_keeps_its_energy(monkeypatch):
    pytest.importorskip("ase")
    monkeypatch.setattr(check, "NVE_STEPS", 60)

    def energy(params, constants, pack):
        return pair_energy(pack, lambda d: (1 - d / 3.0) ** 3 * (1.5 / d - 1))

    def leaking(params, constants, pack):
        # Forces three times too large for their energy.
        energy_N = energy(params, constants, pack)
        return 3 * energy_N - 2 * jax.lax.stop_gradient(energy_N)

    for function, ok in ((energy, True), (leaking, False)):
        line = check._nve(field_of("painn", function), SYSTEMS)
        assert line.ok == ok, line
        assert line.value > 0


def test_molecules_without_data_are_those_of_the_package():
    systems = check.systems_of(field_of("painn"))
    assert len(systems) == check.MOLECULES
    sizes = [len(system.species_N) for system in systems]
    assert sizes == sorted(sizes)
    assert sizes[0] >= 3
    hydrocarbons = {**ELEMENTS, "elements": ["H", "C"]}
    for system in check.systems_of(field_of("painn", artifacts=hydrocarbons)):
        assert set(system.species_N) <= {1, 6}
    metals = {**ELEMENTS, "elements": ["Cu", "Au"]}
    (system,) = check.systems_of(field_of("painn", artifacts=metals))
    assert set(system.species_N) == {29, 79}
    distance = np.linalg.norm(np.diff(system.positions_N3, axis=0), axis=1)
    assert distance.min() > 1.2


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """A workdir whose force field is a tiny one, checked on two molecules."""
    monkeypatch.setattr(check, "open_force_field", lambda *_: field_of("painn"))
    monkeypatch.setattr(check, "systems_of", lambda _: SYSTEMS)
    return Workdir(tmp_path)


def test_the_command_writes_what_the_card_shows(opened, capsys):
    assert check_section(opened) == ""
    assert command.main([f"--workdir={opened.path}", "--no-nve"]) == 0
    assert "checked on H2O, C2HNO: all ok" in capsys.readouterr().out
    saved = json.loads(opened.check_json.read_text())
    assert saved["ok"]
    assert all(line["ok"] for line in saved["lines"])
    saved["lines"][0] |= {"ok": False, "value": None}
    opened.check_json.write_text(json.dumps(saved))
    section = check_section(opened)
    assert "## Model check" in section
    assert "| rotation" in section
    assert "not finite" in section
    assert "**not ok**" in section
    assert "Left out: NVE drift, not asked for" in section


def test_a_failed_check_has_another_exit_status(opened, monkeypatch):
    monkeypatch.setattr(check_lines, "SYMMETRY", 0.0)
    assert command.main([f"--workdir={opened.path}", "--no-nve"]) == 1


def test_missing_workdir(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        command.main([f"--workdir={tmp_path / 'absent'}"])
