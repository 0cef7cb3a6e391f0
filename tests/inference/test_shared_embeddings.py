"""Molecules of PubChem: order, spelling and batches change nothing.

A thousand of them take about five minutes on two cores, most of them for conformers.
"""

import os
import pathlib

import numpy as np
import pytest
from rdkit import Chem

from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference.embed import embed
from chemscale_jax.inference.embedder import (
    open_embedder,
    reopened,
    weights_digest,
)
from chemscale_jax.inference.molecule_batches import Batching

pytestmark = pytest.mark.shared

TOLERANCE = 1e-5
# Pairs of Uni-Mol2, tokens or atoms of the others.
BATCHES = (Batching(), Batching(pairs=1500, places=700))


@pytest.fixture(scope="module", params=[80, pytest.param(1000, marks=pytest.mark.slow)])
def molecules(request):
    folder = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data/smiles/pubchem"
    lines = (folder / "pubchem_10k.txt").read_text().split()
    return lines[: request.param]


@pytest.fixture(scope="module")
def shuffled(molecules):
    """Places of the molecules in a new order, and how they are written there."""
    order = np.random.default_rng(0).permutation(len(molecules))
    mols = [Chem.MolFromSmiles(molecules[place]) for place in order]
    return order, [
        Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed + 1)[0]
        for seed, mol in enumerate(mols)
    ]


@pytest.mark.parametrize("name", ["chemgpt", "unimol2", "force_field"])
def test_order_spelling_and_batches(name, molecules, shuffled, tmp_path):
    embedder = open_embedder(name)
    order, spellings = shuffled
    changed = [a != molecules[i] for i, a in zip(order, spellings, strict=True)]
    assert np.mean(changed) > 0.9
    # Conformers are kept by canonical SMILES, so they are made once.
    cache = tmp_path / "conformers.sqlite"
    first, second = (
        embed(embedder, open_input(list(source)), batching=batching, cache=cache)
        for source, batching in zip((molecules, spellings), BATCHES, strict=True)
    )
    assert first.index.tolist() == second.index.tolist() == list(range(len(order)))
    np.testing.assert_array_equal(second.smiles, first.smiles[order])
    np.testing.assert_array_equal(second.status, first.status[order])
    usable = np.asarray(np.isfinite(first.values).all(axis=1))
    np.testing.assert_array_equal(usable, first.status != "failed")
    assert all(first.reason[~usable])
    difference = np.abs(second.values - first.values[order])[usable[order]]
    print(f"{name}: {usable.sum()} embedded, largest difference {difference.max():.1e}")
    assert difference.max() < TOLERANCE
    assert np.ptp(first.values[usable], axis=0).max() > 0.1
    alone = embed(embedder, open_input(spellings[:5]), cache=cache, workers=0)
    np.testing.assert_allclose(alone.values, second.values[:5], atol=TOLERANCE)
    assert len(usable) == len(order)


def test_packaged_models_are_told_apart():
    embedder = open_embedder("chemgpt")
    source = open_input(["CCO", "c1ccccc1"])
    trained = embed(embedder, source, workers=0)
    fresh = embed(open_embedder("chemgpt", untrained=3), source, workers=0)
    assert fresh.values.shape == trained.values.shape
    assert fresh.told["untrained"] == 3
    assert np.abs(fresh.values - trained.values).max() > 0.1
    again, settings = reopened(trained.told | {"weights": weights_digest(embedder)})
    np.testing.assert_array_equal(
        embed(again, source, settings, workers=0).values, trained.values
    )
