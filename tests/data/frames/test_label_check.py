"""The label check against a force field known in closed form, and planted mistakes."""

import json
import os
import pathlib
import re

import numpy as np
import pytest

from chemscale_jax.chem.units import BOHR_ANG, HARTREE_EV, KCAL_PER_MOL_EV
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames import label_check
from chemscale_jax.data.frames.label_check import (
    check_labels,
    checked_labels,
    summary_of,
)
from chemscale_jax.data.frames.source import ArraySource
from tests.data.methanol import DEEP_EV, REST, SPECIES, frames


def source_of(x, energy, forces, **options):
    n = len(x)
    return ArraySource([SPECIES] * n, list(x), list(energy), list(forces), **options)


def outcome_of(x, energy, forces, **options):
    source = source_of(x, energy, forces, **options)
    return check_labels(source, np.arange(len(source)))


def test_right_labels_agree():
    found = outcome_of(*frames())
    assert found["outcome"] == "agrees", found
    assert found["factor"] == pytest.approx(1, abs=0.05)
    assert found["residual"] < 0.03
    assert found["hydrogen_ang"] == pytest.approx(1.05, abs=0.1)
    assert found["depth"] == pytest.approx(1, abs=0.03)
    assert json.loads(json.dumps(found)) == found
    assert "labels agree" in summary_of(found)


PERMUTED = [0, 1, 3, 4, 5, 2]
MISTAKES = {
    "sign": (1, 1, -1, "gradients"),
    "force per bohr": (1, 1, BOHR_ANG, "forces per bohr were taken for forces per ang"),
    "force in hartree": (1, 1, 1 / HARTREE_EV, "forces in hartree/angstrom"),
    "atomic gradients": (1, 1, -BOHR_ANG / HARTREE_EV, "gradient.*forces in hartree/b"),
    "energy in kcal": (1, 1 / KCAL_PER_MOL_EV, 1, "energies in kcal/mol were taken"),
    "all in kcal": (1, 1 / KCAL_PER_MOL_EV, 1 / KCAL_PER_MOL_EV, "23.* times those of"),
    "positions in bohr": (1 / BOHR_ANG, 1, 1, "positions in bohr were taken for ang"),
    "atomic units": (
        1 / BOHR_ANG,
        1 / 27.2,
        BOHR_ANG / 27.2,
        "hydrogen is 2.* in bohr",
    ),
    "positions too short": (
        BOHR_ANG,
        1,
        1,
        "positions in angstrom were taken for bohr",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_planted_units_and_signs_are_named(name):
    length, energy, force, reason = MISTAKES[name]
    x, e, f = frames()
    found = outcome_of(x * length, e * energy, f * force)
    assert found["outcome"] == "disagrees"
    assert re.search(reason, found["reason"]), found["reason"]


def test_forces_of_other_atoms_or_frames():
    x, e, f = frames()
    for wrong in (f[:, PERMUTED], f[:, ::-1], np.roll(f, 1, 0)):
        found = outcome_of(x, e, wrong)
        assert found["outcome"] == "disagrees", found
        assert "another order" in found["reason"]


def test_what_cannot_be_decided_is_said():
    few = outcome_of(*frames(12))
    assert few["outcome"] == "undecidable"
    assert "pairs of frames of equal composition lie within" in few["reason"]
    far = outcome_of(*frames(60, jitter=0.8))
    assert far["outcome"] == "undecidable"
    assert "undecidable" in summary_of(far)
    # Wrong lengths show without a pair of near frames.
    x, e, f = frames(5)
    assert outcome_of(x / BOHR_ANG, e, f)["outcome"] == "disagrees"


def test_only_frames_of_one_electronic_state_are_compared():
    x, e, f = frames(200)
    charge = np.arange(200) % 2
    shifted = e + 3.0 * charge
    assert outcome_of(x, shifted, f, charges=list(charge))["outcome"] == "agrees"
    assert outcome_of(x, shifted, f)["outcome"] != "agrees"


def test_frames_in_a_cell_do_not_turn():
    rng = np.random.default_rng(1)
    well = 0.2 * rng.normal(size=(120, 6, 3)).cumsum(0) * 0.1
    cell = np.diag([6.0, 7.0, 8.0])
    x = (REST + well) % np.diag(cell)
    e, f = DEEP_EV + np.sum(well**2, (1, 2)), -2 * well
    found = outcome_of(x, e, f, cells=[cell] * 120)
    assert found["outcome"] == "agrees", found
    assert outcome_of(x, e, -f, cells=[cell] * 120)["outcome"] == "disagrees"


def test_modes_and_memory(monkeypatch, cache):
    x, e, f = frames()
    source = source_of(x, e, -f, identity={"made": "here"})
    records = np.arange(len(source))
    with pytest.raises(UserError, match=r"-\d.*gradients.*label_check=warn"):
        checked_labels(source, records)
    assert checked_labels(source, records, "warn")["outcome"] == "disagrees"
    assert checked_labels(source, records, "off")["outcome"] == "off"
    with pytest.raises(UserError, match="label_check='of' is unknown"):
        checked_labels(source, records, "of")
    monkeypatch.setattr(label_check, "check_labels", lambda *_: 1 / 0)
    assert checked_labels(source, records, "warn")["outcome"] == "disagrees"
    with pytest.raises(ZeroDivisionError):
        checked_labels(source, records[1:], "warn")


@pytest.mark.shared
def test_public_files_are_right_until_a_mistake_is_planted():
    folder = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data/ff"
    paths = sorted(folder.glob("rmd17/*train_01.npz"))
    assert paths
    for path in paths:
        with np.load(path) as file:
            x, z = file["coords"], file["nuclear_charges"]
            e, f = file["energies"] * KCAL_PER_MOL_EV, file["forces"] * KCAL_PER_MOL_EV
        lists = [z] * len(x), list(x)
        right = ArraySource(*lists, list(e), list(f))
        records = np.arange(len(right))
        assert check_labels(right, records)["outcome"] == "agrees", path
        swap = np.arange(len(z))
        swap[z == 1] = np.roll(swap[z == 1], 1)
        for wrong in (-f, f * BOHR_ANG, f[:, swap]):
            source = ArraySource(*lists, list(e), list(wrong))
            assert check_labels(source, records)["outcome"] == "disagrees", path
