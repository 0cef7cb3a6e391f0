"""Molecule records against the reference's features and against data sets."""

import csv
import gzip
import itertools
import json
import os
import pathlib

import numpy as np
import pytest
from rdkit import Chem

from chemscale_jax.chem.conformers import ConformerSettings, conform
from chemscale_jax.chem.molecule_features import feature_ids, pair_type
from chemscale_jax.chem.molecule_files import read_sdf, read_smiles
from chemscale_jax.chem.molecule_record import record_of
from chemscale_jax.chem.perceived_bonds import record_of_atoms

pytestmark = pytest.mark.shared
NAMES = {
    "atom_feat": lambda ids: ids.atom_N8,
    "edge_feat": lambda ids: ids.bond_NN3,
    "shortest_path": lambda ids: ids.path_NN,
    "degree": lambda ids: ids.degree_N,
    "pair_type": lambda ids: pair_type(ids.atom_N8),
}


@pytest.fixture(scope="module")
def shared():
    return pathlib.Path(os.environ["CHEMSCALE_SHARED"])


def test_ids_are_those_of_the_reference(shared):
    with np.load(shared / "parity/unimol2_features.npz") as file:
        texts = json.loads(str(file["smiles"]))
        assert len(texts) >= 20
        for k, text in enumerate(texts):
            record = record_of(Chem.MolFromSmiles(text), canonical=False)
            raw = file[f"{k}/raw/node_attr"]
            assert np.array_equal(record.species_N, raw[:, 0] + 1)
            assert np.array_equal(record.atoms_N8, raw[:, 1:])
            for folder, drop in (("feat", False), ("drop_feat", True)):
                ids = feature_ids(record, drop)
                assert np.array_equal(ids.token_N, file[f"{k}/src_token"])
                for name, of in NAMES.items():
                    wanted = file[f"{k}/{folder}/{name}"]
                    assert np.array_equal(of(ids), wanted), (text, folder, name)


def without_stereo(smiles):
    mol = Chem.MolFromSmiles(smiles)
    Chem.RemoveStereochemistry(mol)
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


def test_geometries_of_qm9(shared):
    with gzip.open(shared / "data/qm9/gdb9_dev.sdf.csv.gz", "rt") as file:
        texts = [row["smiles"] for row in itertools.islice(csv.DictReader(file), 500)]
    with gzip.open(shared / "data/qm9/gdb9_dev.sdf.gz", "rt") as file:
        made = list(itertools.islice(read_sdf(file), 500))
    assert {one.status for one in made} == {"given"}
    found = {"same": 0, "told": 0}
    with gzip.open(shared / "data/qm9/gdb9_dev.sdf.gz") as file:
        supplier = Chem.ForwardSDMolSupplier(file, removeHs=False)
        mols = list(itertools.islice(supplier, 500))
    for one, text, mol in zip(made, texts, mols, strict=True):
        found["same"] += without_stereo(one.smiles) == without_stereo(text)
        numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        told = record_of_atoms(numbers, mol.GetConformer().GetPositions(), charge=0)
        # The file leaves the stereo of imines open.
        found["told"] += without_stereo(told.smiles) == without_stereo(one.smiles)
    assert found["same"] == 500
    assert found["told"] > 490


def test_conformers_of_drugs(shared):
    with (shared / "data/property/biogen_adme/ADME_Sol_train.csv").open() as file:
        rows = list(itertools.islice(csv.DictReader(file), 300))
    records = list(read_smiles((n, row["smiles"]) for n, row in enumerate(rows, 2)))
    assert {one.status for one in records} == {"2d"}
    assert all(Chem.CanonSmiles(one.smiles) == one.smiles for one in records)
    made = [conform(one, ConformerSettings()) for one in records[:20]]
    statuses = [one.status for one in made]
    assert statuses.count("2d") == 0
    assert statuses.count("3d") >= 19
