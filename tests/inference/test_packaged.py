"""The force field that comes with the package still is what its card says."""

import ase
import numpy as np

from chemscale_jax.core.workdir import read_json
from chemscale_jax.data.ani1x import Ani1xSource, embedded_path
from chemscale_jax.inference.calculator import ForceFieldCalculator
from chemscale_jax.inference.ensemble import default_workdir

# Its mean error on molecules it was trained on is 65 meV/angstrom.
LARGEST_ERROR = 0.13


def test_predicts_frames_of_the_embedded_set():
    calculator = ForceFieldCalculator(default_workdir())
    source = Ani1xSource(embedded_path())
    assert source.held_out is not None
    seen = np.flatnonzero(~source.held_out)
    errors = []
    for index in seen[:: len(seen) // 20]:
        record = source[int(index)]
        atoms = ase.Atoms(record.species, record.positions, calculator=calculator)
        errors.append(np.abs(atoms.get_forces() - record.forces).mean())
        reference = abs(atoms.get_potential_energy() - record.energy)
        assert reference / len(atoms) < 0.1
    assert np.mean(errors) < LARGEST_ERROR


def test_is_small_and_says_how_it_was_made():
    folder = default_workdir()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
    assert (folder / "card.md").read_text().startswith("# Model card")
    assert read_json(folder / "check.json")["ok"]
    assert read_json(folder / "config.json")["name"] == "painn_ani1x-embedded"
    assert len(read_json(folder / "run.json")["commit"]) == 40
