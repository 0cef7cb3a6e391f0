"""Embeddings of a force field: its own features, company, symmetry, what fails."""

import jax
import numpy as np
import pytest

from chemscale_jax.chem.conformers import ConformerSettings, whole_geometry
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference.embed import EmbedSettings, embed
from chemscale_jax.inference.force_field_embeddings import ForceFieldEmbedder
from chemscale_jax.inference.molecule_batches import Batching
from tests.inference.force_fields import force_field

SMILES = ["CCO", "O", "OCC", "not a molecule", "CN", "CC(C)(C)C(=O)O", "[H][H]"]
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def embedder():
    return ForceFieldEmbedder(force_field(), {"workdir": "tiny"})


def embedded(embedder, source, places=256, **settings):
    found = EmbedSettings(**settings)
    batching = Batching(places=places)
    return embed(
        embedder, open_input(source), found, batching=batching, workers=0, cache=None
    )


@pytest.fixture(scope="module")
def together(embedder):
    return embedded(embedder, SMILES, level="atom", conformers=2)


def test_alone_equals_any_batch(embedder, together):
    for row in (1, 5):
        alone = embedded(embedder, [SMILES[row]], 8, level="atom", conformers=2)
        np.testing.assert_allclose(alone.values, together.of(row), atol=ROUNDING)
        assert np.abs(alone.values).max() > 0.1


def test_spellings_are_equal(together):
    np.testing.assert_allclose(together.of(0), together.of(2), atol=ROUNDING)
    assert together.smiles[0] == together.smiles[2] == "CCO"


def test_every_row_is_accounted_for(together):
    assert together.index.tolist() == list(range(7))
    failed = [3, 4, 6]
    assert np.flatnonzero(together.status == "failed").tolist() == failed
    assert "not trained on N, only on C, H, O" in together.reason[4]
    assert all(together.reason[failed])
    assert [len(together.of(row)) for row in range(7)] == [3, 1, 3, 0, 0, 7, 0]
    assert together.conformers.tolist() == [2, 2, 2, 0, 0, 2, 0]
    assert together.species[together.molecule == 0].tolist() == [6, 6, 8]


def test_pools_are_over_all_atoms(embedder):
    """Methane-like rows by the network itself, hydrogens among the atoms."""
    mean = embedded(embedder, ["O"])
    total = embedded(embedder, ["O"], pool="sum")
    np.testing.assert_allclose(total.values, 3 * mean.values, rtol=1e-5)
    assert mean.values.shape == (1, force_field().config.model.width)
    assert mean.told["layer"] == force_field().config.model.depth


def test_whole_geometries_have_their_hydrogens():
    whole = whole_geometry("[2H]OCC", ConformerSettings(count=2))
    assert whole.numbers_N.tolist() == [1, 8, 6, 6, 1, 1, 1, 1, 1]
    assert whole.heavy.tolist() == [1, 2, 3]
    assert whole.positions_KN3.shape == (2, 9, 3)
    assert whole.status == "3d"
    ion = whole_geometry("[Na+]", ConformerSettings())
    assert ion.positions_KN3.tolist() == [[[0, 0, 0]]]
    assert (ion.charge, ion.unpaired) == (1, 0)
    assert whole_geometry("[CH3]", ConformerSettings()).unpaired == 1


def test_whole_geometries_are_kept(tmp_path):
    file = tmp_path / "kept.sqlite"
    first = whole_geometry("CO", ConformerSettings(), file)
    again = whole_geometry("CO", ConformerSettings(), file)
    np.testing.assert_array_equal(first.positions_KN3, again.positions_KN3)
    assert again.positions_KN3.shape == (1, 6, 3)


def test_what_is_refused(embedder):
    for settings, message in (
        (EmbedSettings(pool="cls"), "mean, sum"),
        (EmbedSettings(level="pair"), "molecule and atom"),
        (EmbedSettings(layer=0), "features of its last layer"),
        (EmbedSettings(geometry="flat"), "no use for drawings"),
    ):
        with pytest.raises(UserError, match=message):
            embed(embedder, open_input("C"), settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["schnet", "allegro", "spookynet"])
def test_every_force_field(name):
    other = ForceFieldEmbedder(force_field(0, name), {"workdir": name})
    many = embedded(other, SMILES, level="atom")
    alone = embedded(other, [SMILES[0]], 8, level="atom")
    np.testing.assert_allclose(alone.values, many.of(0), rtol=1e-4, atol=ROUNDING)
    assert np.isfinite(many.values).all()
    assert jax.default_backend()
