import random

import pytest
import selfies
from rdkit import Chem

from chemscale_jax.chem import selfies_codec
from chemscale_jax.chem.selfies_encoder import fast_symbols

MOLECULES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(O)=O",
    "C[C@]12CC[C@H]3[C@@H](CC[C@@H]4CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O",
    "CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5",
    "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O",
    "O=[N+]([O-])c1ccc2[nH]c3c(ccc4ccccc43)c2c1",
    "C/C=C/C(=O)N/N=C/c1ccc(o1)-c1cccc(C#N)c1",
    "[Na+].[O-]S(=O)(=O)c1ccc2c(c1)cc[n+]1ccccc21",
    "c1ccc2c(c1)c1cccc3cccc2c31",
    "CCCCCCCCCCCCCCCCCCCC(=O)OC(CCCCCCCCCCCCCCCCCCCCCC)CN1CCCCC1",
    "C1CC2CC1CC1CCCCCCCCCCCCCCCCCCCCC2CCCC1",
    "O=c1[nH]c(=O)c2[nH]cnc2[nH]1",
    "C[Si](C)(C)c1c[se]c(n1)[B-](F)(F)F",
    "[13CH3][C@H]([2H])O[P](=O)(O)OP(O)(O)=O",
    "Oc1cc(O)c2C(=O)C[C@@H](Oc2c1)c1ccc(O)c(O)c1",
    "C1=CC(=O)C=CC1=C1C=C[CH-]C1.c1cc[cH-]c1",
    "F[P-](F)(F)(F)(F)F.Cc1ccc[n-]1.s1cc[s+]c1",
    "CC1=C(C(C(=C(N1)C)C(=O)OC)c2ccccc2[N+](=O)[O-])C(=O)OC",
    "[c]1ccccc1.Cc1c[c]cc[n]1",
    "C1CC1C%12CC%12-C2=C3N=CC3=N2",
)
# The library must answer for these.
UNUSUAL = (
    "C(CCC1CC)1",
    "CC(C)",
    "C/1=C/C=C\\C=C/C=C\\1",
    "C:C",
    "CC(C)(C)(C)C",
    "c1cccc1",
    "C1CC",
    "C11",
    "C*",
    "",
    "C.",
    "hello",
)


@pytest.mark.parametrize("smiles", MOLECULES)
def test_symbols_are_those_of_the_library_in_any_order_of_the_atoms(smiles):
    mol = Chem.MolFromSmiles(smiles, sanitize=False)
    orders = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 12, randomSeed=3)
    texts = [smiles, *orders, Chem.MolToSmiles(mol)]
    written = [fast_symbols(text) for text in texts]
    assert sum(symbols is not None for symbols in written) > len(texts) / 2
    for text, symbols in zip(texts, written, strict=True):
        if symbols is not None:
            assert symbols == list(selfies.split_selfies(selfies.encoder(text))), text


@pytest.mark.parametrize("smiles", UNUSUAL)
def test_the_library_is_asked_about_unusual_text(smiles):
    assert fast_symbols(smiles) is None


def test_damaged_text_is_never_given_other_symbols_than_by_the_library():
    rng = random.Random(0)
    agreed = 0
    for _ in range(1500):
        text = list(rng.choice(MOLECULES))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 1)] = rng.choice(
                "CNcno()[]=#12+-@/\\.H"
            )
        smiles = "".join(text)
        symbols = fast_symbols(smiles)
        if symbols is not None:
            agreed += 1
            assert symbols == list(selfies.split_selfies(selfies.encoder(smiles)))
    assert agreed > 100


def test_another_library_puts_the_fast_encoder_out_of_use(monkeypatch):
    agrees = selfies_codec._fast_encoder_agrees.__wrapped__
    assert agrees()
    encoder = selfies.encoder

    def newer(smiles, **options):
        return encoder(smiles, **options).replace("[Ring1]", "[Ring1b]")

    monkeypatch.setattr(selfies, "encoder", newer)
    assert not agrees()


def test_probes_use_every_rule():
    text = "".join(selfies_codec._PROBES)
    for part in ("@", "@@", "/", "#", "[nH]", ".", "[n+]", "[O-]", "-c", "[se]", "[13"):
        assert part in text
