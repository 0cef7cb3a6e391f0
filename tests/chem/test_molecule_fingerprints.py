import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from chemscale_jax.analysis.search.similarity import tanimoto
from chemscale_jax.chem.molecule_fingerprints import (
    BYTES,
    brics_fragments,
    morgan_bits,
    murcko_scaffold,
)

SMILES = ("CCO", "CC(=O)Oc1ccccc1C(=O)O", "c1ccc2[nH]ccc2c1", "CCOC(C)=O", "C")


def test_packed_bits_have_the_similarities_of_rdkit():
    mols = [Chem.MolFromSmiles(smiles) for smiles in SMILES]
    bits = np.stack([morgan_bits(mol) for mol in mols])
    assert bits.shape == (len(SMILES), BYTES)
    assert bits.dtype == np.uint8
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    vectors = [generator.GetFingerprint(mol) for mol in mols]
    expected = [DataStructs.BulkTanimotoSimilarity(v, vectors) for v in vectors]
    # float32.
    np.testing.assert_allclose(tanimoto(bits, bits), expected, atol=1e-7)


def test_methane_sets_one_bit():
    # One atom has one environment at every radius.
    assert np.bitwise_count(morgan_bits(Chem.MolFromSmiles("C"))).sum() == 1


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        # Acid | ether: rules 1 and 3 of BRICS cut the ester between C(=O) and O, and
        # 4 and 3 the ethyl from O, which leaves an oxygen with two ends.
        ("CCOC(C)=O", ["[1*]C(C)=O", "[3*]O[3*]", "[4*]CC"]),
        ("c1ccccc1-c1ccccc1", ["[16*]c1ccccc1", "[16*]c1ccccc1"]),
        ("CCCC", ["CCCC"]),
    ],
)
def test_molecules_fall_into_brics_pieces(smiles, expected):
    assert sorted(brics_fragments(Chem.MolFromSmiles(smiles))) == expected


@pytest.mark.parametrize(
    ("smiles", "min_rings", "expected"),
    [
        ("CCc1ccc(cc1)CN1CCOCC1", 2, "c1ccc(CN2CCOCC2)cc1"),
        ("O=C1CCc2ccccc2N1C", 2, "O=C1CCc2ccccc2N1"),
        ("CCc1ccccc1", 2, None),
        ("CCc1ccccc1", 1, "c1ccccc1"),
        ("CCCC", 0, None),
    ],
)
def test_scaffolds_are_rings_and_links(smiles, min_rings, expected):
    assert murcko_scaffold(Chem.MolFromSmiles(smiles), min_rings) == expected
