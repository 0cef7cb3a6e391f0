"""The models that come with the package still are what their cards say."""

import ase
import numpy as np

from chemscale_jax.chem import drugs, prompts
from chemscale_jax.core.workdir import read_json
from chemscale_jax.data.ani1x import Ani1xSource, embedded_path
from chemscale_jax.inference import score
from chemscale_jax.inference.calculator import ForceFieldCalculator
from chemscale_jax.inference.ensemble import default_workdir
from chemscale_jax.inference.language_model import PACKAGED, open_language_model

# Its mean error on molecules it was trained on is 65 meV/angstrom.
LARGEST_ERROR = 0.13
# Its loss is 1.07 nats per token on molecules made of parts of drugs; ignorance is 3.6.
LARGEST_LOSS = 1.6


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


def test_the_language_model_knows_drugs():
    model = open_language_model()
    words, sequences = model.vocabulary, []
    for drug in drugs.drugs()[:60]:
        ids = words.encode(prompts.encode(drug.smiles, model.notation))
        if not np.any(ids == words.unk):
            sequences.append(np.array([words.begin, *ids, words.end]))
    assert len(sequences) > 30
    found = score.token_log_probs(model.options, model.params, sequences)
    assert -np.mean(np.concatenate(found)) < LARGEST_LOSS


def test_the_language_model_is_small_and_says_how_it_was_made():
    assert sum(file.stat().st_size for file in PACKAGED.iterdir()) < 5e6
    assert (PACKAGED / "card.md").read_text().startswith("# Model card")
