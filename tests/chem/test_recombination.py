"""Pieces of drugs and the molecules joined from them."""

import hashlib
import importlib.metadata
import itertools

import pytest
from rdkit import Chem

from chemscale_jax.chem.descriptors import log_p, weight
from chemscale_jax.chem.drug_fragments import PARTNERS, Piece, pieces_of
from chemscale_jax.chem.drugs import drugs
from chemscale_jax.chem.recombination import (
    HEAVY_ATOMS,
    LOG_P,
    MAX_RINGS,
    WEIGHT_DALTON,
    distinct,
    draw_block,
    pool_of,
)

PARENTS = [drug.smiles for drug in drugs()[::8]]
PIECES = pieces_of(PARENTS)
POOL = pool_of(PIECES)
BLOCK = draw_block(POOL, 0, 0)


def _whole(piece: Piece, end: str = "([H])") -> Chem.Mol:
    return Chem.MolFromSmiles(piece.fill([end] * len(piece.labels)))


def _rings(mol: Chem.Mol) -> int:
    """Bonds that can go before a connected molecule falls apart."""
    return mol.GetNumBonds() - mol.GetNumAtoms() + 1


def test_lidocaine_falls_into_the_pieces_that_a_chemist_would_name():
    found = {
        piece.fill(f"<{label}>" for label in piece.labels): piece
        for piece in pieces_of(["CCN(CC)CC(=O)Nc1c(C)cccc1C"])
    }
    assert "N<5>(CC)CC" in found  # the amine
    assert "C<1>(=O)CN<5>CC" in found  # one ethyl group less: an end beside it
    assert "N<5>c1c(C)cccc1C" in found  # the aniline
    assert "c<16>1c(C)cccc1C" in found
    assert found["C<4>C"].heavy == 2


def test_functional_groups_of_whole_drugs_open():
    def texts(smiles):
        return {
            piece.fill(f"<{label}>" for label in piece.labels)
            for piece in pieces_of([smiles])
        }

    assert "C<1>(=O)c1ccncc1" in texts("OC(=O)c1ccncc1")  # acid loses its OH
    assert "N<5>C1CCCCC1" in texts("NC1CCCCC1")  # amine and alcohol lose H
    assert "O<3>C1CCCCC1" in texts("OC1CCCCC1")
    assert "n<9>1ccnc1C" in texts("Cc1ncc[nH]1")
    assert "c<16>1ccncc1" in texts("Clc1ccncc1")
    # An amide is no amine: only BRICS cuts it, beside the ring.
    assert texts("NC(=O)C1CCCCC1") == {"C<15>1CCCCC1", "C<6>(N)=O"}


def test_every_piece_is_readable_counted_and_has_partners():
    assert len(PIECES) > 500
    assert len({(p.texts, p.labels) for p in PIECES}) == len(PIECES)
    for piece in PIECES:
        mol = _whole(piece)
        assert mol is not None, piece
        assert mol.GetNumHeavyAtoms() == piece.heavy, piece
        assert _rings(mol) == piece.rings, piece
        assert 1 <= len(piece.labels) <= 4
        assert set(piece.labels) <= set(PARTNERS)
    for label, others in PARTNERS.items():
        assert all(label in PARTNERS[other] for other in others)
    # Phenyl is in many drugs.
    assert max(piece.count for piece in PIECES if piece.rings) > 5


def test_molecules_keep_the_bounds():
    assert len(BLOCK) > 300
    for smiles in BLOCK:
        mol = Chem.MolFromSmiles(smiles)
        assert Chem.MolToSmiles(mol) == smiles
        assert "." not in smiles
        assert "*" not in smiles
        assert HEAVY_ATOMS[0] <= mol.GetNumHeavyAtoms() <= HEAVY_ATOMS[1]
        assert WEIGHT_DALTON[0] <= weight(mol) <= WEIGHT_DALTON[1]
        assert LOG_P[0] <= log_p(mol) <= LOG_P[1]
        assert _rings(mol) <= MAX_RINGS
        assert all(len(ring) <= 7 for ring in mol.GetRingInfo().AtomRings())
        assert Chem.GetFormalCharge(mol) == 0
        assert not any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())


def test_molecules_have_no_groups_that_fall_apart():
    for name, smarts in {
        "peroxide": "OO",
        "acyl halide": "C(=O)[Cl,Br,I]",
        "alkyl halide": "[CX4][Cl,Br,I]",
        "hemiacetal": "[CX4;!R]([OX2H])[OX2]",
        "aminal": "[CX4;!R]([#7])[#7]",
        "carbamic acid": "NC(=O)[OX2H]",
        "aldehyde": "[CX3H1](=O)[#6]",
        "thiol": "[SX2H]",
        "N-halogen": "[#7,#8][F,Cl,Br,I]",
    }.items():
        pattern = Chem.MolFromSmarts(smarts)
        having = [s for s in BLOCK if Chem.MolFromSmiles(s).HasSubstructMatch(pattern)]
        assert not having, name


def test_a_block_is_a_function_of_pieces_seed_and_number():
    # Pieces in another order, as from another list of the same drugs.
    assert draw_block(pool_of(reversed(PIECES)), 0, 0) == BLOCK
    assert draw_block(POOL, 1, 0) != BLOCK
    assert draw_block(POOL, 0, 1) != BLOCK


@pytest.mark.skipif(
    importlib.metadata.version("rdkit") != "2026.9.1",
    reason="molecules are written down for one version of RDKit",
)
def test_the_first_molecules_stay_the_same():
    # When the rules change on purpose: count RULES_VERSION up, and write these anew.
    assert BLOCK[:3] == [
        "CCN1CCC(c2cc(F)cc3c(=O)c(-c4cccc5ccccc45)cn(C4CC4)c23)CC1",
        "CCOCCc1ccc(O)c(O)c1",
        "C=CC(=O)N1CCN(C(=O)CCN2CCC(N)(c3cccc(C(=O)O)c3)CC2)C(C)C1",
    ]
    whole = "\n".join(BLOCK).encode()
    assert hashlib.sha256(whole).hexdigest()[:16] == "4ec2de0bb929f6c9"


def test_distinct_keeps_order_and_leaves_out():
    blocks = [["C", "CC", "C"], ["CCC", "CC", "CCCC", "CCCCC"]]
    assert list(distinct(blocks, 3)) == ["C", "CC", "CCC"]
    assert list(distinct(blocks, 2, without=["C", "CCC"])) == ["CC", "CCCC"]


def test_too_few_molecules_end_with_an_error():
    with pytest.raises(
        ValueError, match="these pieces gave 2 molecules.*ask for fewer"
    ):
        list(distinct(itertools.repeat(["C", "CC"]), 3))
