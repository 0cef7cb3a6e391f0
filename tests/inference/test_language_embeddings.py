"""Embeddings of a language model: pools, layers, company, spellings, what fails."""

import dataclasses
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.chem import prompts
from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import make_mesh
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference.embed import EmbedSettings, embed
from chemscale_jax.inference.language_embeddings import LanguageEmbedder
from chemscale_jax.inference.language_model import LanguageModel
from chemscale_jax.inference.molecule_batches import Batching
from chemscale_jax.models import gpt
from tests.inference.tiny_gpt import OPTIONS, make_params

SMILES = ["CCO", "OC(C)=O", "OCC", "not a molecule", "[Na+].[Cl-]", "[2H]C", "C"]
# The last one has a symbol that the vocabulary lacks.
ROWS = [*SMILES, "c1ccccc1C(=O)O", "C[Se]C"]
KNOWN = ["CCO", "CC(=O)O", "[Na+].[Cl-]", "[2H]C", "O=C(O)c1ccccc1"]
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def embedder():
    counts = Counter(s for text in KNOWN for s in prompts.encode(text, "selfies"))
    vocabulary = Vocabulary.from_counts(counts, "selfies")
    options = dataclasses.replace(OPTIONS, vocabulary=vocabulary.size)
    # Of the packed rows of training; here every molecule has its own.
    assert options.segments
    model = LanguageModel(options, make_params(options), vocabulary, "tiny")
    return LanguageEmbedder(model, {"workdir": "tiny"})


def embedded(embedder, source, places=256, **settings):
    found = EmbedSettings(**settings)
    return embed(
        embedder, open_input(source), found, batching=Batching(places=places), workers=0
    )


@pytest.fixture(scope="module")
def together(embedder):
    return embedded(embedder, ROWS, level="atom", layer="all")


def states(embedder, smiles, layer):
    """The network on one row without padding, in the plainest way."""
    model = embedder.model
    symbols = prompts.encode(smiles, "selfies")
    ids = np.array([model.vocabulary.begin, *model.vocabulary.encode(symbols)])[None]
    place = jnp.arange(ids.shape[1])[None]
    ones = jnp.ones_like(place)
    row = (jnp.asarray(ids, jnp.int32), ones, place)
    return symbols, gpt.hidden(model.options, model.params, *row, layer=layer)[0]


def test_pools_and_layers_are_those_of_the_network(embedder, together):
    """ "CC(=O)O" has symbols [C] [C] [=Branch1] [C] [=O] [O]: the index is no atom."""
    symbols, last = states(embedder, "CC(=O)O", 2)
    assert symbols == ["[C]", "[C]", "[=Branch1]", "[C]", "[=O]", "[O]"]
    atoms = [1, 2, 5, 6]
    np.testing.assert_allclose(together.of(1)[:, -1], last[np.array(atoms)], atol=2e-5)
    _, middle = states(embedder, "CC(=O)O", 1)
    np.testing.assert_allclose(
        together.of(1)[:, 1], middle[np.array(atoms)], rtol=1e-5, atol=2e-5
    )
    for pool, expected in (
        ("auto", last[1:].mean(0)),
        ("sum", last[1:].sum(0)),
        ("last", last[-1]),
    ):
        found = embedded(embedder, ["CC(=O)O"], pool=pool)
        np.testing.assert_allclose(found.values[0], expected, rtol=1e-5, atol=2e-5)
        assert found.layers.tolist() == [2]
        assert found.told["pool"] == ("mean" if pool == "auto" else pool)
    assert np.abs(last).max() > 1


def test_alone_equals_any_batch(embedder, together):
    for row in (1, 7):
        alone = embedded(embedder, [ROWS[row]], 8, level="atom", layer="all")
        np.testing.assert_allclose(alone.values, together.of(row), atol=ROUNDING)
    # Else all of this would be trivial.
    assert np.abs(together.of(0)[-1] - together.of(1)[-1]).max() > 0.01


def test_spellings_are_equal(embedder):
    found = embedded(embedder, ["CCO", "OCC", "C(O)C", "[CH3]CO"])
    assert set(found.smiles) == {"CCO"}
    np.testing.assert_array_equal(found.values, found.values[[0, 0, 0, 0]])


def test_every_row_is_accounted_for(together):
    assert together.index.tolist() == list(range(9))
    good = ["read", "read", "read", "failed", "read", "read", "read", "read", "failed"]
    assert together.status.tolist() == good
    assert "not in the model's vocabulary" in together.reason[8]
    assert "[Se]" in together.reason[8]
    assert together.reason[3]
    assert not together.reason[0]
    assert together.atoms.tolist() == [3, 4, 3, 0, 2, 1, 1, 9, 3]
    assert [len(together.of(row)) for row in range(9)] == [3, 4, 3, 0, 2, 1, 1, 9, 0]
    assert together.species[together.molecule == 4].tolist() == [17, 11]


def test_a_long_molecule_fails_by_itself(embedder):
    found = embedded(embedder, ["C" * 100, "C"])
    assert found.status.tolist() == ["failed", "read"]
    assert "96 positions" in found.reason[0]
    assert np.isnan(found.values[0]).all()
    assert np.isfinite(found.values[1]).all()


def test_what_is_refused(embedder):
    for settings, message in (
        (EmbedSettings(pool="cls"), "has seen nothing of the molecule"),
        (EmbedSettings(level="pair"), "molecule and atom"),
        (EmbedSettings(layer=3), "this network has 2"),
    ):
        with pytest.raises(UserError, match=message):
            embed(embedder, open_input("C"), settings)


@pytest.mark.slow
def test_rows_are_spread_over_devices(embedder):
    one = embedded(embedder, ROWS)
    batching = Batching(places=256, mesh=make_mesh())
    many = embed(embedder, open_input(ROWS), batching=batching, workers=0)
    np.testing.assert_allclose(many.values, one.values, atol=ROUNDING)
