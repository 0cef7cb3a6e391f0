"""The models that come with the package still are what their cards say."""

import ase
import jax
import numpy as np
from ml_collections import ConfigDict

from chemscale_jax.chem import drugs, prompts
from chemscale_jax.chem.conformers import ConformerSettings, conform
from chemscale_jax.chem.molecule_features import feature_ids
from chemscale_jax.chem.molecule_record import record_of_smiles
from chemscale_jax.core.workdir import Workdir, read_json
from chemscale_jax.data.conformers import molecule_rows
from chemscale_jax.data.frames.ani1x import Ani1xSource, embedded_path
from chemscale_jax.inference import molecule_model, score
from chemscale_jax.inference.calculator import ForceFieldCalculator
from chemscale_jax.inference.ensemble import default_workdir
from chemscale_jax.inference.language_model import PACKAGED, open_language_model
from chemscale_jax.tasks import conformer_denoising
from chemscale_jax.training.checkpoint import load_variables

# Its mean error on molecules it was trained on is 65 meV/angstrom.
LARGEST_ERROR = 0.13
# Its loss is 1.07 nats per token on molecules made of parts of drugs; ignorance is 3.6.
LARGEST_LOSS = 1.6
# Of what is lost without a network: by masked elements, coordinates and distances.
LARGEST_SHARES = {"token_entropy": 0.7, "coord_zero": 0.8, "dist_noised": 0.7}


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


def test_the_molecule_model_restores_drugs():
    workdir = Workdir(molecule_model.default_molecule_model())
    shape = molecule_rows.BatchShape(24, 23)
    some = [drug.smiles for drug in drugs.drugs() if len(drug.smiles) < 30][
        : shape.rows
    ]
    settings = ConformerSettings(relax_iterations=200)
    records = [conform(record_of_smiles(smiles), settings) for smiles in some]
    batch = molecule_rows.empty_denoising_rows(shape)
    for row, record in enumerate(records):
        batch.flat_BN3[row, : len(record.flat_N3)] = record.flat_N3
    batch.number_B[:] = np.arange(shape.rows)
    batch = batch._replace(
        molecules=molecule_rows.molecule_rows(
            [feature_ids(record) for record in records],
            [record.positions_KN3[0] for record in records],
            shape,
        )
    )
    config = ConfigDict(workdir.config())
    task = conformer_denoising.make_task(config, (), workdir.artifacts())
    variables = load_variables(workdir)
    found = jax.jit(task.eval_fn)(**variables, batch=batch)
    mean = {name: float(metric.value()) for name, metric in found.items()}
    for term, (baseline, share) in zip(
        conformer_denoising.TERMS, LARGEST_SHARES.items(), strict=True
    ):
        assert mean[term] < share * mean[baseline]


def test_the_molecule_model_is_small_and_says_how_it_was_made():
    folder = molecule_model.PACKAGED
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
    assert (folder / "card.md").read_text().startswith("# Model card")
    assert len(read_json(folder / "run.json")["commit"]) == 40
