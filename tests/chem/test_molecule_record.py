import random

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

from chemscale_jax.chem import molecule_record
from chemscale_jax.chem.molecule_record import (
    MAX_ATOMS,
    STATUSES,
    coordinate_fault,
    flattened,
    molecule_of,
    record_of,
    record_of_smiles,
)
from chemscale_jax.chem.perceived_bonds import record_of_atoms
from chemscale_jax.chem.raw_features import raw_atoms, raw_bonds

MOLECULES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@H](N)C(=O)O",
    "F/C=C/C(O)=C\\Cl",
    "CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5",
    "CC(=O)[O-].[Na+].O",
    "[2H]C([2H])([2H])OC",
    "[13CH3][N+](C)(C)CC([O-])=O",
    "[H]/N=C(/C)N",
    "N[Pt](N)(Cl)Cl",
    "[CH2]CC[O]",
    "Cc1cccc(Br)c1-c1c(C)cccc1Cl",
    "C1CC2(C1)CCCNC2",
)


def same(one, other, *ignored):
    return all(
        np.array_equal(a, b)
        for a, b, field in zip(one, other, one._fields, strict=True)
        if field not in ignored
    )


def embedded(smiles, seed=1):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=seed) == 0
    return mol


def test_acetamide_by_hand():
    # Carbonyl carbon: three neighbours, sp2; the methyl has four with hydrogens.
    made = record_of_smiles("NC(C)=O", "acetamide")
    assert (made.name, made.smiles, made.status) == ("acetamide", "CC(N)=O", "2d")
    assert made.species_N.tolist() == [6, 6, 7, 8]
    assert made.atoms_N8.tolist() == [
        [0, 4, 5, 3, 0, 2, 0, 0],
        [0, 3, 5, 0, 0, 1, 0, 0],
        [0, 3, 5, 2, 0, 1, 0, 0],
        [0, 1, 5, 0, 0, 1, 0, 0],
    ]
    assert made.bonds_E2.tolist() == [[0, 1], [1, 2], [1, 3]]
    # Single; single and conjugated; double and conjugated.
    assert made.bond_features_E3.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert made.flat_N3.shape == (4, 3)
    assert np.array_equal(made.positions_KN3, made.flat_N3[None])
    assert not made.flat_N3[:, 2].any()
    lengths = np.linalg.norm(made.flat_N3[[0, 1, 1]] - made.flat_N3[[1, 2, 3]], axis=1)
    assert np.allclose(lengths, 1.5, atol=0.05)
    dtypes = [a.dtype.name for a in made if isinstance(a, np.ndarray)]
    assert dtypes == ["uint8", "uint8", "uint16", "uint8", "float32", "float32"]


@pytest.mark.parametrize("smiles", MOLECULES)
def test_records_do_not_depend_on_how_a_molecule_is_written(smiles):
    wanted = record_of_smiles(smiles)
    assert wanted.status == "2d", wanted.reason
    mol = Chem.MolFromSmiles(smiles)
    explicit = Chem.AddHs(mol)
    draw = random.Random(0)
    for _ in range(8):
        text = Chem.MolToSmiles(mol, doRandom=True)
        assert same(wanted, record_of_smiles(text)), text
        order = draw.sample(range(mol.GetNumAtoms()), mol.GetNumAtoms())
        assert same(wanted, record_of(Chem.RenumberAtoms(mol, order)))
        order = draw.sample(range(explicit.GetNumAtoms()), explicit.GetNumAtoms())
        assert same(wanted, record_of(Chem.RenumberAtoms(explicit, order)))
    mapped = Chem.Mol(mol)
    for atom in mapped.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    assert same(wanted, record_of(mapped))
    assert same(wanted, record_of_smiles(Chem.MolToSmiles(mapped)))
    assert mapped.GetAtomWithIdx(0).GetAtomMapNum() == 1


def test_stereoisomers_and_isotopes_are_different_molecules():
    texts = ["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "F/C=C/F", "F/C=C\\F", "FC=CF"]
    made = [record_of_smiles(text) for text in texts]
    assert len({one.smiles for one in made}) == len(texts)
    assert not np.array_equal(made[0].atoms_N8, made[1].atoms_N8)
    stereo = [one.bond_features_E3[:, 1].max() for one in made[2:]]
    assert stereo == [2, 1, 0]  # E, Z, none


def test_atoms_may_stay_as_given():
    mol = Chem.MolFromSmiles("OCC")
    assert record_of(mol).species_N.tolist() == [6, 6, 8]
    given = record_of(mol, canonical=False)
    assert given.species_N.tolist() == [8, 6, 6]
    assert given.bonds_E2.tolist() == [[0, 1], [1, 2]]
    assert given.smiles == "CCO"


def test_unknown_values_take_the_last_place():
    mol = Chem.MolFromSmiles("CC(F)(Cl)C=C")
    mol.GetAtomWithIdx(1).SetChiralTag(Chem.ChiralType.CHI_ALLENE)
    mol.GetAtomWithIdx(0).SetHybridization(Chem.HybridizationType.SP2D)
    assert raw_atoms(mol)[1, 0] == 6
    assert raw_atoms(mol)[0, 5] == 5
    mol.GetBondWithIdx(0).SetBondType(Chem.BondType.QUADRUPLE)
    mol.GetBondWithIdx(1).SetStereo(Chem.BondStereo.STEREOATROPCW)
    assert raw_bonds(mol)[1][:2].tolist() == [[4, 0, 0], [0, 0, 0]]
    extreme = record_of_smiles("[Mn+7]")
    assert extreme.atoms_N8[0, 2] == 11
    assert record_of_smiles("[C]").atoms_N8[0, 4] == 4
    assert record_of_smiles("[Mo-6]").atoms_N8[0, 2] == 11


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no SMILES"),
        ("C1CC", "cannot read it"),
        ("C*", "left open"),
        ("CN(C)(C)C", "valence"),
        ("[H][H]", "no atom but hydrogen"),
        ("[2H][2H]", "no atom but hydrogen"),
        ("C" * 257, "257 heavy atoms; the limit is 256"),
        ("C" * 500, "500 heavy atoms; the limit is 256"),
        (None, "NoneType"),
    ],
)
def test_what_cannot_be_read_has_a_reason(text, reason):
    made = record_of_smiles(text, "it")
    assert (made.name, made.status) == ("it", "failed")
    assert reason in made.reason
    assert made.species_N.shape == (0,)
    assert made.positions_KN3.shape == (0, 0, 3)
    assert made.status in STATUSES


def test_the_limit_can_be_raised():
    assert len(record_of_smiles("C" * MAX_ATOMS).species_N) == MAX_ATOMS
    assert len(record_of_smiles("C" * 300, max_atoms=300).species_N) == 300
    assert record_of(Chem.MolFromSmiles("C" * 9), max_atoms=8).status == "failed"


@pytest.mark.parametrize(
    ("mol", "reason"),
    [
        (None, "no atom"),
        (Chem.Mol(), "no atom"),
        (Chem.MolFromSmiles("C*"), "left open"),
        (Chem.MolFromSmarts("C[N,O]"), "left open"),
        (Chem.MolFromSmarts("C~C"), "left open"),
        (Chem.MolFromSmiles("C(C)(C)(C)(C)C", sanitize=False), "valence"),
    ],
)
def test_molecules_that_cannot_be_used_have_a_reason(mol, reason):
    made = record_of(mol)
    assert made.status == "failed"
    assert reason in made.reason


def test_own_coordinates_follow_their_atoms():
    mol = embedded("C[C@H](N)C(=O)OCC#N")
    wanted = record_of(mol, own_coordinates=True)
    assert (wanted.status, wanted.reason) == ("given", "")
    assert wanted.smiles == Chem.CanonSmiles("C[C@H](N)C(=O)OCC#N")
    draw = random.Random(0)
    for _ in range(5):
        order = draw.sample(range(mol.GetNumAtoms()), mol.GetNumAtoms())
        found = record_of(Chem.RenumberAtoms(mol, order), own_coordinates=True)
        assert same(wanted, found)
    # Bonded atoms are close, so positions belong to their atoms.
    i, j = wanted.bonds_E2.T
    lengths = np.linalg.norm(
        wanted.positions_KN3[0, i] - wanted.positions_KN3[0, j], axis=1
    )
    assert lengths.max() < 1.7
    given = record_of(mol, own_coordinates=True, canonical=False)
    heavy = mol.GetConformer().GetPositions()[: len(given.species_N)]
    assert np.array_equal(given.positions_KN3[0], heavy.astype(np.float32))
    two = Chem.Mol(mol)
    two.AddConformer(mol.GetConformer(), assignId=True)
    assert record_of(two, own_coordinates=True).positions_KN3.shape[0] == 2


def test_drawings_and_nonsense_are_not_coordinates():
    mol = Chem.MolFromSmiles("CCO")
    assert "no coordinates" in record_of(mol, own_coordinates=True).reason
    rdDepictor.Compute2DCoords(mol)
    made = record_of(mol, own_coordinates=True)
    assert (made.status, "drawing" in made.reason) == ("2d", True)
    conformer = Chem.Conformer(3)
    conformer.Set3D(True)
    mol.RemoveAllConformers()
    mol.AddConformer(conformer)
    made = record_of(mol, own_coordinates=True)
    assert made.status == "2d"
    assert "atoms 1 and 2 are 0.00 angstrom apart" in made.reason


def test_faults_of_coordinates():
    assert coordinate_fault(np.zeros((1, 3))) == ""
    assert "finite" in coordinate_fault(np.full((1, 3), np.nan))
    assert "beyond" in coordinate_fault(np.full((1, 3), 1e6))
    far = np.arange(12.0).reshape(4, 3)
    assert coordinate_fault(far) == ""
    far[3] = far[1] + 0.1
    assert "atoms 2 and 4 are 0.17 angstrom apart" in coordinate_fault(far)


def test_the_plane_keeps_what_is_flat():
    rng = np.random.default_rng(0)
    flat = np.concatenate([rng.normal(size=(6, 2)), np.zeros((6, 1))], 1)
    turned = flat @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 5
    found = flattened(turned)
    assert not found[:, 2].any()
    distances = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (flat, found)]
    assert np.allclose(*distances, atol=1e-5)
    assert flattened(np.ones((1, 3))).tolist() == [[0, 0, 0]]
    assert flattened(np.array([[0.0, 0, 0], [0, 0, 2]])).shape == (2, 3)


def test_smiles_are_written_until_nothing_changes():
    smiles, mol, order = molecule_record._canonical("OCC")
    assert (smiles, order.tolist()) == ("CCO", [2, 1, 0])
    assert [atom.GetSymbol() for atom in mol.GetAtoms()] == ["C", "C", "O"]
    given = Chem.MolFromSmiles("C(O)C")
    smiles, mol, order = molecule_record._canonical("OCC", np.array([1, 0, 2]), given)
    assert (smiles, order.tolist()) == ("CCO", [2, 0, 1])
    # What RDKit writes but cannot read keeps the order in which it was written.
    smiles, mol, order = molecule_record._canonical("O1CC", np.array([1, 0, 2]), given)
    assert (smiles, order.tolist()) == ("O1CC", [1, 0, 2])
    assert [atom.GetSymbol() for atom in mol.GetAtoms()] == ["O", "C", "C"]


def test_the_molecule_of_a_record_has_its_atoms_in_order():
    made = record_of_smiles("OCC(=O)N[C@@H](C)F")
    mol = molecule_of(made.smiles)
    assert [a.GetAtomicNum() for a in mol.GetAtoms()] == made.species_N.tolist()
    with pytest.raises(ValueError, match="cannot read it"):
        molecule_of("C1CC")


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("CC(=O)Oc1ccccc1C(=O)O", None),
        ("CC(=O)[O-]", -1),
        ("C[N+](C)(C)C", 1),
        ("O=C=O", 0),
        ("C[C@H](N)C(=O)O", None),
        ("[CH3]", None),
        ("F/C=C/Cl", None),
    ],
)
def test_bonds_are_told_from_atoms(smiles, charge):
    mol = embedded(smiles)
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    positions = mol.GetConformer().GetPositions()
    made = record_of_atoms(np.array(numbers), positions, "it", charge=charge)
    assert made.smiles == Chem.CanonSmiles(smiles)
    assert same(made, record_of(mol, "it", own_coordinates=True))


@pytest.mark.parametrize(
    ("smiles", "heavy_only", "charge", "reason"),
    [
        ("c1ccccc1", True, None, "there is no hydrogen"),
        ("CC(=O)[O-]", False, None, "charge"),
        ("C[Zn]C", False, 0, "no valences"),
    ],
)
def test_where_bonds_cannot_be_told_atoms_stay(smiles, heavy_only, charge, reason):
    mol = embedded(smiles)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    positions = mol.GetConformer().GetPositions()
    heavy = numbers > 1
    if heavy_only:
        numbers, positions, heavy = numbers[heavy], positions[heavy], heavy[heavy]
    made = record_of_atoms(numbers, positions, charge=charge)
    assert (made.status, made.smiles, made.has_bonds) == ("given", "", False)
    assert reason in made.reason
    assert np.array_equal(made.species_N, numbers[heavy])
    assert np.array_equal(made.positions_KN3[0], positions[heavy].astype(np.float32))
    assert not made.flat_N3[:, 2].any()


@pytest.mark.parametrize(
    ("numbers", "positions", "reason"),
    [
        ([], np.zeros((0, 3)), "no atom"),
        ([1, 1], [[0, 0, 0], [0, 0, 0.7]], "no atom but hydrogen"),
        ([6, 1], [[0, 0, 0]], r"2 atoms have coordinates of shape (1, 3)"),
        ([6], [[0, 0, np.inf]], "not finite"),
        ([6, 8], np.zeros((2, 3)), "0.00 angstrom apart"),
        ([119], [[0, 0, 0]], "119 is no atomic number"),
        ([0], [[0, 0, 0]], "0 is no atomic number"),
        ([None], [[0, 0, 0]], "no numbers"),
        ([6] * 300, np.arange(900.0).reshape(300, 3), "300 heavy atoms"),
        ([6] + [1] * 3000, np.zeros((3001, 3)), "3001 atoms with hydrogens"),
    ],
)
def test_atoms_that_cannot_be_used_have_a_reason(numbers, positions, reason):
    made = record_of_atoms(numbers, positions)
    assert made.status == "failed"
    assert reason in made.reason
