import itertools
import multiprocessing
import random

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

from chemscale_jax.chem.conformers import ConformerSettings, conform
from chemscale_jax.chem.molecule_features import feature_ids, pair_type
from chemscale_jax.chem.molecule_files import (
    read_atoms,
    read_sdf,
    read_smiles,
    read_xyz,
    record_of_block,
    sdf_blocks,
)
from chemscale_jax.chem.molecule_record import STATUSES, record_of, record_of_smiles
from chemscale_jax.core.errors import UserError
from tests.chem.hostile_molecules import (
    hostile_atoms,
    hostile_blocks,
    hostile_smiles,
)
from tests.chem.test_molecule_record import same

# Larger ones take seconds at every attempt.
CONFORMED_ATOMS = 60
QUICK = ConformerSettings(attempts=1, relax_iterations=10, embed_s=2)


def embedded(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=1) == 0
    return mol


def sdf(*blocks):
    return "".join(f"{block}$$$$\n" for block in blocks).splitlines(keepends=True)


def xyz(mol, comment=""):
    rows = [str(mol.GetNumAtoms()), comment]
    for atom, position in zip(
        mol.GetAtoms(), mol.GetConformer().GetPositions(), strict=True
    ):
        rows.append(f"{atom.GetSymbol()} {position[0]} {position[1]} {position[2]}")
    return rows


def test_every_line_of_smiles_gives_a_record():
    made = list(read_smiles([(2, "OCC"), (3, ""), (7, "C1CC"), (8, "C")]))
    assert [one.name for one in made] == ["line 2", "line 3", "line 7", "line 8"]
    assert [one.smiles for one in made] == ["CCO", "", "", "C"]
    assert [one.status for one in made] == ["2d", "failed", "failed", "2d"]
    assert next(read_smiles([(1, "CCC")], max_atoms=2)).status == "failed"


def test_an_sd_file_with_geometries():
    alanine, ethanol = embedded("C[C@H](N)C(=O)O"), embedded("CCO")
    alanine.SetProp("_Name", "alanine")
    blocks = [Chem.MolToMolBlock(mol) for mol in (alanine, ethanol)]
    blocks[0] += ">  <pKa>  (1)\n2.34\n\n> <note>\na\nb\n\n"
    found = list(sdf_blocks(sdf(*blocks)))
    assert [block.fields for block in found] == [{"pKa": "2.34", "note": "a\nb"}, {}]
    assert [block.index for block in found] == [1, 2]
    assert found[1].line == blocks[0].count("\n") + 2
    made = [record_of_block(block) for block in found]
    assert [one.name for one in made] == ["alanine", "record 2"]
    assert [one.status for one in made] == ["given", "given"]
    # Stereo is read from the geometry.
    assert made[0].smiles == Chem.CanonSmiles("C[C@H](N)C(=O)O")
    wanted = record_of(alanine, "alanine", own_coordinates=True)
    assert same(wanted, made[0], "positions_KN3")
    assert np.allclose(wanted.positions_KN3, made[0].positions_KN3, atol=1e-4)
    without = list(read_sdf(sdf(*blocks), own_coordinates=False))
    assert [one.status for one in without] == ["2d", "2d"]
    assert same(without[0], record_of_smiles("C[C@H](N)C(=O)O", "alanine"))


def test_drawings_of_an_sd_file_keep_stereo_and_nothing_else():
    mol = Chem.MolFromSmiles("C[C@@H](N)C(=O)O")
    rdDepictor.Compute2DCoords(mol)
    (made,) = read_sdf(sdf(Chem.MolToMolBlock(mol)))
    assert (made.status, made.smiles) == ("2d", Chem.CanonSmiles("C[C@@H](N)C(=O)O"))
    assert made.reason == (
        "its coordinates are a drawing, so they are not used; no conformer was made yet"
    )


def test_a_mol_file_is_one_record():
    block = Chem.MolToMolBlock(embedded("CCO"))
    (made,) = read_sdf(block.splitlines())
    assert (made.name, made.status, made.smiles) == ("record 1", "given", "CCO")
    assert list(read_sdf([])) == []
    assert list(read_sdf(["\n", "  \n"])) == []


def test_newer_blocks_are_read_too():
    block = Chem.MolToV3KMolBlock(embedded("CCO"))
    assert [one.smiles for one in read_sdf(sdf(block))] == ["CCO"]


def test_broken_records_keep_their_places():
    good = Chem.MolToMolBlock(embedded("CCO"))
    lines = good.split("\n")
    carbon = next(i for i, line in enumerate(lines) if " C " in line)
    bond = next(i for i, line in enumerate(lines) if line.startswith("  1  2"))
    wrong = {
        "cannot read the mol block": "\n".join([*lines[:3], "nonsense", *lines[4:]]),
        "valence": good.replace(lines[bond], "  1  2  3  0"),
        "left open": good.replace(lines[carbon], lines[carbon].replace("C ", "A ")),
        "no atom": "none\n\n\n  0  0  0  0  0  0            999 V2000\nM  END\n",
    }
    made = list(read_sdf(sdf(good, *wrong.values(), "", good)))
    assert len(made) == len(wrong) + 3
    assert [one.status for one in made] == ["given", *["failed"] * 5, "given"]
    for place, (one, reason) in enumerate(zip(made[1:], wrong, strict=False), 2):
        assert reason in one.reason
        assert one.reason.startswith(f"record {place}, line ")
    assert "record 6" in made[5].reason
    (large,) = read_sdf(sdf(Chem.MolToMolBlock(Chem.MolFromSmiles("C" * 300))))
    assert "300 heavy atoms; the limit is 256" in large.reason
    (endless,) = read_sdf(itertools.repeat("x\n", 60_000))
    assert "more than 50000 lines" in endless.reason


def test_xyz_files():
    acetate = embedded("CC(=O)[O-]")
    rows = [*xyz(acetate, "energy=-1 charge=-1"), *xyz(embedded("CCO")), "", ""]
    made = list(read_xyz(rows))
    assert [one.name for one in made] == ["frame 1", "frame 2"]
    assert [one.smiles for one in made] == ["CC(=O)[O-]", "CCO"]
    (made,) = read_xyz(xyz(acetate), charge=-1)
    wanted = record_of(acetate, "frame 1", own_coordinates=True)
    assert same(wanted, made)
    (made,) = read_xyz(xyz(acetate))
    assert (made.status, made.smiles) == ("given", "")
    assert "bonds could not be told" in made.reason


def test_broken_xyz_files():
    good = xyz(embedded("CCO"))
    cut = list(read_xyz([*good, *good[:-2]]))
    assert [one.status for one in cut] == ["given", "failed"]
    assert "frame 2, line 12: 7 atoms where 9 are announced" in cut[1].reason
    lost = list(read_xyz([*good, "C 0 0 0", *good]))
    assert [one.status for one in lost] == ["given", "failed"]
    assert "is no number of atoms; what follows is not read" in lost[1].reason
    wrong = list(read_xyz(["1", "", "Xx 0 0 0", "1", "", "C 0 a 0", "1", "", "C 0 0"]))
    reasons = ["'Xx'", "could not convert", "shape (1, 2)"]
    for one, reason in zip(wrong, reasons, strict=True):
        assert (one.status, reason in one.reason) == ("failed", True), one.reason
    assert list(read_xyz([])) == []
    (huge,) = read_xyz(["99999999999", "", "C 0 0 0"])
    assert "1 atoms where 99999999999 are announced" in huge.reason
    (nothing,) = read_xyz(["0", ""])
    assert "no atom" in nothing.reason
    many = ["4000", "", *["H 0 0 0"] * 3999, "C 0 0 0", *good]
    assert [one.status for one in read_xyz(many)] == ["failed", "given"]


def test_atoms_and_coordinates_in_memory():
    mol, salt = embedded("CC(=O)N"), embedded("CC(=O)[O-]")
    molecules = {
        "atoms": [
            [atom.GetSymbol() for atom in mol.GetAtoms()],
            np.array([atom.GetAtomicNum() for atom in salt.GetAtoms()]),
            ["c", "h", "D", "T", "H"],
        ],
        "coordinates": [
            mol.GetConformer().GetPositions(),
            salt.GetConformer().GetPositions().tolist(),
            embedded("C").GetConformer().GetPositions(),
        ],
        "target": [1.0, 2.0, 3.0],
    }
    made = list(read_atoms(molecules))
    assert [one.name for one in made] == ["molecule 1", "molecule 2", "molecule 3"]
    assert [one.smiles for one in made] == ["CC(N)=O", "", "C"]
    assert [one.status for one in made] == ["given"] * 3
    charged = list(read_atoms({**molecules, "charges": [0, -1, None]}))
    assert charged[1].smiles == "CC(=O)[O-]"


@pytest.mark.parametrize(
    ("molecules", "message"),
    [
        ({"smiles": ["C"]}, "entries 'smiles': give 'atoms' and 'coordinates'"),
        ({"atoms": [["C"]]}, "entries 'atoms'"),
        ({"atoms": [["C"]], "coordinates": []}, "atoms of 1, coordinates of 0"),
    ],
)
def test_wrong_entries_are_refused(molecules, message):
    with pytest.raises(UserError, match=message):
        list(read_atoms(molecules))


def check_one(record, conformers):
    """What holds for any record; returns its status."""
    assert record.status in STATUSES
    assert bool(record.reason) or record.status in ("3d", "given")
    N = len(record.species_N)
    if record.status == "failed":
        assert N == 0
        assert record.positions_KN3.shape == (0, 0, 3)
        return record.status
    assert 0 < N <= 256
    assert record.species_N.min() > 1
    assert record.atoms_N8.shape == (N, 8)
    assert record.flat_N3.shape == (N, 3)
    assert np.isfinite(record.flat_N3).all()
    if conformers and N <= CONFORMED_ATOMS:
        record = conform(record, QUICK)
        assert (record.status == "3d") <= (record.reason == "")
    assert record.positions_KN3.shape[0] > 0
    assert record.positions_KN3.shape[1:] == (N, 3)
    assert np.isfinite(record.positions_KN3).all()
    ids = feature_ids(record)
    assert ids.atom_N8.max() < 512
    assert ids.bond_NN3.max() < 64
    assert ids.bond_NN3.shape == (N, N, 3)
    assert np.array_equal(ids.path_NN, ids.path_NN.T)
    assert (np.diag(ids.path_NN) == (1 if record.has_bonds else 511)).all()
    assert pair_type(ids.atom_N8).max() < 256
    return record.status


def check_many(count, seed, every):
    """Statuses of hostile molecules of all kinds.

    Args:
        count: of each kind of SMILES, SD records and atoms; half of it of the latter.
        seed: of the molecules.
        every: which SMILES get a conformer.
    """
    texts = hostile_smiles(count, seed)
    statuses = []
    for n, one in enumerate(read_smiles(enumerate(texts, 1))):
        assert one.name == f"line {n + 1}"
        statuses.append(check_one(one, n % every == 0))
    assert len(statuses) == len(texts)
    blocks = hostile_blocks(count // 2, seed)
    text = "".join(f"{block.rstrip()}\n$$$$\n" for block in blocks)
    records = list(read_sdf(text.splitlines()))
    assert len(records) == len(blocks)
    molecules = hostile_atoms(count // 2, seed)
    records += read_atoms(molecules)
    assert len(records) == len(blocks) + count // 2
    return statuses + [check_one(one, False) for one in records]


def test_hostile_molecules_all_have_a_status(capfd):
    statuses = check_many(300, seed=0, every=3)
    assert len(statuses) == 600
    assert {*statuses} >= {"3d", "unconverged", "2d", "given", "failed"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_ten_thousand_hostile_molecules_all_have_a_status():
    parts = [(1000, seed, 1) for seed in range(1, 6)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        found = pool.starmap(check_many, parts, chunksize=1)
    statuses = list(itertools.chain(*found))
    assert len(statuses) == 10_000
    assert statuses.count("3d") > 100
    assert statuses.count("failed") > 100


def test_hostile_molecules_keep_their_record_when_rewritten():
    draw = random.Random(0)
    checked = 0
    for text in hostile_smiles(300):
        wanted = record_of_smiles(text)
        mol = Chem.MolFromSmiles(wanted.smiles) if wanted.smiles else None
        if mol is None or wanted.status == "failed":
            continue
        order = draw.sample(range(mol.GetNumAtoms()), mol.GetNumAtoms())
        other = Chem.MolToSmiles(Chem.RenumberAtoms(mol, order), canonical=False)
        found = record_of_smiles(other)
        if found.smiles == wanted.smiles:
            assert same(wanted, found), (text, other)
            checked += 1
    assert checked > 150
