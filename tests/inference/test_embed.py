"""Embeddings: the same for every spelling and company, for every form of input."""

import numpy as np
import pytest

from chemscale_jax.chem.molecule_record import record_of_smiles
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference import molecule_batches
from chemscale_jax.inference.embed import EmbedSettings, embed
from chemscale_jax.inference.molecule_batches import Averages, Batching
from chemscale_jax.inference.molecule_model import open_molecule_model
from chemscale_jax.models import unimol2
from chemscale_jax.models.unimol2_states import read_layers
from tests.inference.tiny_unimol2 import make_workdir

# Several rows in a batch, and few numbers.
SMALL = Batching(pairs=600)
SMILES = ["CCO", "c1ccccc1C(=O)O", "OCC", "not a molecule", "[Na+].[Cl-]", "C"]
LONG = "CCCCCCCCCCCCN"
# Of float32; see `embed_alone`.
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_molecule_model(make_workdir(tmp_path_factory.mktemp("tiny")))


def embedded(model, source, batching=SMALL, **settings):
    found = EmbedSettings(**settings)
    return embed(model, open_input(source), found, batching=batching, cache=None)


@pytest.fixture(scope="module")
def together(model):
    return embedded(model, [*SMILES, LONG], level="atom", layer="all", conformers=2)


def test_a_molecule_alone_equals_itself_in_any_batch(model, together):
    for row, smiles in enumerate([*SMILES, LONG]):
        alone = embedded(model, [smiles], level="atom", layer="all", conformers=2)
        assert alone.status[0] == together.status[row]
        np.testing.assert_allclose(alone.of(0), together.of(row), rtol=0, atol=ROUNDING)
    assert np.abs(together.values).max() > 1
    # Else all of this would be trivial.
    assert np.abs(together.of(0)[0] - together.of(1)[0]).max() > 0.01


def test_other_company_for_a_faithful_network(tmp_path):
    faithful = open_molecule_model(make_workdir(tmp_path, variant="faithful"))
    assert faithful.options.length == "own"
    many = embedded(faithful, SMILES)
    # One place in a batch of other shape.
    alone = embedded(faithful, [SMILES[0]], Batching(pairs=1))
    np.testing.assert_allclose(alone.values[0], many.values[0], rtol=0, atol=ROUNDING)


def test_spellings_are_equal(together):
    np.testing.assert_array_equal(together.of(0), together.of(2))
    assert together.smiles[0] == together.smiles[2] == "CCO"


def test_rows_stay_in_their_places(together):
    assert together.index.tolist() == list(range(7))
    assert together.where[3] == "molecule 4"
    assert together.status.tolist() == ["3d"] * 3 + ["failed"] + ["3d"] * 3
    assert together.reason[3]
    assert together.atoms.tolist() == [3, 9, 3, 0, 2, 1, 13]
    assert together.conformers.tolist() == [2, 2, 2, 0, 2, 1, 2]
    assert together.of(3).shape == (0, 3, 16)
    assert together.of(6).shape == (13, 3, 16)
    assert together.species[together.molecule == 0].tolist() == [6, 6, 8]
    assert together.positions.shape == (31, 3)


def test_conformers_spread(together):
    rows = together.molecule
    assert together.std[rows == 6].max() > 1e-4
    assert not together.std[rows == 5].any()  # a single atom has a single geometry


def test_levels_layers_and_pools_are_parts_of_one_another(model, together):
    atoms = embedded(model, ["CCO"], level="atom", conformers=2)
    np.testing.assert_allclose(atoms.values, together.of(0)[:, -1], atol=ROUNDING)
    assert atoms.layers.tolist() == [2]
    assert together.layers.tolist() == [0, 1, 2]
    assert embedded(model, ["CCO"]).std is None
    mean = embedded(model, ["CCO"], pool="mean")
    np.testing.assert_allclose(
        mean.values[0],
        embedded(model, ["CCO"], level="atom").values.mean(0),
        atol=ROUNDING,
    )
    total = embedded(model, ["CCO"], pool="sum")
    np.testing.assert_allclose(total.values, 3 * mean.values, rtol=1e-5)


def test_pairs_are_those_of_the_network(model):
    record = record_of_smiles("CC=O")
    found = embedded(model, ["CC=O", "bad("], level="pair", geometry="flat")
    assert found.of(0).shape == (3, 3, 12)
    assert found.of(1).shape == (0, 0, 12)
    assert found.first is not None
    assert found.second is not None
    assert found.first.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.second.tolist() == [0, 1, 2] * 3
    (shape,) = {molecule_batches.batch_shape(3, SMALL)}

    def program(rows):
        last = unimol2.encode(model.options, model.params, rows)
        every = read_layers(model.options, model.params, rows, lambda tracks: tracks)
        return {"last": last.pair_BTTQ, "every": every.pair_BTTQ.swapaxes(0, 1)}

    (shown,) = molecule_batches.show(program, [record], SMALL)
    assert shown.arrays["last"].shape == (shape.atoms + 1, shape.atoms + 1, 12)
    np.testing.assert_allclose(
        found.of(0), shown.arrays["last"][1:4, 1:4], atol=ROUNDING
    )
    np.testing.assert_allclose(
        shown.arrays["every"][-1], shown.arrays["last"], atol=ROUNDING
    )


def test_every_form_of_input(model, tmp_path):
    """One molecule, and something that is none where the form allows it."""
    xyz = [[0.0, 0.0, 0.0], [1.51, 0.0, 0.0], [2.0, 1.34, 0.0]]
    (tmp_path / "a.csv").write_text("id,smiles\nx,OCC\ny,\n")
    (tmp_path / "a.smi").write_text("OCC ethanol\nbad( z\n")
    sources = [
        "OCC",
        ["OCC", ""],
        tmp_path / "a.csv",
        str(tmp_path / "a.smi"),
        {"smiles": ["C(O)C", None]},
    ]
    expected = embedded(model, ["CCO"]).values[0]
    for source in sources:
        found = embedded(model, source)
        np.testing.assert_allclose(found.values[0], expected, atol=ROUNDING)
        if len(found) > 1:
            assert found.status.tolist() == ["3d", "failed"]
            assert np.isnan(found.values[1]).all()
    given = embedded(model, {"atoms": [["C", "C", "O"]], "coordinates": [xyz]})
    assert given.status.tolist() == ["given"]
    assert np.isfinite(given.values).all()


def test_features_can_be_withheld(model):
    kept = embedded(model, ["CCO"])
    dropped = embedded(model, ["CCO"], features="drop")
    assert np.abs(kept.values - dropped.values).max() > 0.01


def test_what_is_refused(model):
    for layer in (3, -4, "some"):
        with pytest.raises(UserError, match="this network has 2"):
            embedded(model, ["C"], layer=layer)
    with pytest.raises(UserError, match="level is 'bond'"):
        EmbedSettings(level="bond")
    with pytest.raises(UserError, match="no row"):
        embedded(model, [])
    with pytest.raises(UserError, match="room for 259"):
        molecule_batches.batch_shape(260, SMALL)


def test_averages_are_those_of_numpy():
    values = np.random.default_rng(0).normal(5, 2, (7, 3)).astype(np.float32)
    averages = Averages()
    for one in values:
        averages.add(4, one)
    np.testing.assert_allclose(averages.mean(4), values.mean(0, np.float64))
    np.testing.assert_allclose(averages.std(4), values.std(0, np.float64))
    assert averages.count(4) == 7
    assert averages.count(0) == 0
