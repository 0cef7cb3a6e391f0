"""The filters against molecules and files of MOSES, and a PubChem-like sample."""

import csv
import gzip
import os
import pathlib
import random

import pytest
from rdkit import Chem

from chemscale_jax.chem.medicinal_filters import (
    FilterOptions,
    MedicinalFilters,
    judge_all,
)

pytestmark = pytest.mark.shared
# Of verdicts by MCF; the rest is listed where it is not reached.
LEAST_AGREEMENT = 0.995


@pytest.fixture(scope="module")
def data():
    return pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data"


@pytest.fixture(scope="module")
def official(data):
    folder = data / "filters"
    return FilterOptions(folder / "mcf.csv", folder / "wehi_pains.csv", every=True)


@pytest.fixture(scope="module")
def pubchem(data):
    text = (data / "smiles" / "pubchem" / "pubchem_10k.txt").read_text()
    return text.split()


def test_hits_of_the_official_files_are_matched_exactly(data, official):
    with (data / "ref" / "moses_smarts_hits_1k.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    filters = MedicinalFilters(official)
    found = [filters.count_groups(Chem.MolFromSmiles(row["smiles"])) for row in rows]
    expected = [(int(r["n_mcf_hits"]), int(r["n_pains_hits"])) for r in rows]
    assert len(rows) == 1000
    assert sum(map(sum, expected)) > 100
    assert found == expected


def test_our_mcf_agree_with_the_official_ones(official, pubchem):
    ours, theirs = MedicinalFilters(), MedicinalFilters(official)
    mols = [Chem.MolFromSmiles(smiles) for smiles in pubchem]
    verdicts = [(bool(ours.mcf_of(mol)), bool(theirs.mcf_of(mol))) for mol in mols]
    assert len(verdicts) == 10_000
    different = [
        f"{smiles}: ours {'rejects' if mine else 'passes'}"
        for smiles, (mine, other) in zip(pubchem, verdicts, strict=True)
        if mine != other
    ]
    agreement = 1 - len(different) / len(verdicts)
    assert agreement >= LEAST_AGREEMENT, different


def test_verdicts_agree_with_the_official_files(official, pubchem):
    some = random.Random(0).sample(pubchem, 1500)
    ours = judge_all(some, progress=False)
    theirs = judge_all(some, official._replace(every=False), progress=False)
    different = [
        (smiles, mine, other)
        for smiles, mine, other in zip(some, ours, theirs, strict=True)
        if bool(mine) != bool(other)
    ]
    assert 1 - len(different) / len(some) >= LEAST_AGREEMENT, different


def test_molecules_of_moses_pass(data):
    path = data / "smiles" / "moses" / "dataset_v1_test.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        smiles = [row["SMILES"] for row in csv.DictReader(file)]
    assert len(smiles) == 176_074
    # Our pattern for these is not RDKit's, which rejects some of them.
    thiazoles = [s for s in smiles if "c1sc(=NC(=O)" in s][:100]
    some = random.Random(0).sample(smiles, 3000) + thiazoles
    verdicts = judge_all(some, progress=False)
    failed = [(s, str(v[0])) for s, v in zip(some, verdicts, strict=True) if v]
    assert not failed


def test_pubchem_fails_mostly_by_its_charges(data):
    path = data / "smiles" / "pubchem" / "pubchem_1k_smiles.txt"
    smiles = path.read_text().split()
    verdicts = judge_all(smiles, progress=False)
    rules = [verdict[0].rule if verdict else "pass" for verdict in verdicts]
    assert rules.count("pass") / len(rules) == pytest.approx(0.446, abs=5e-4)
    assert rules.count("charge") / len(rules) == pytest.approx(0.452, abs=5e-4)
    neutral = judge_all(smiles, neutral=True, progress=False)
    assert sum(not verdict for verdict in neutral) > 0.75 * len(smiles)
