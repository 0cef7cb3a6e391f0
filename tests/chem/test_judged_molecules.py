import math

from chemscale_jax.chem.judged_molecules import judge_and_weigh
from chemscale_jax.chem.molecule_profiles import profile_all

SMILES = ["CCO", "", None, "c1cc", "CC(=O)[O-]", "CCO", "OCC", "C1CCCCCCC1"]


def test_it_agrees_with_whole_profiles():
    judged = judge_and_weigh(SMILES)
    profiles = profile_all(SMILES)
    assert [one.verdict for one in judged] == profiles.verdicts
    for one, mass in zip(judged, profiles.properties[:, 3], strict=True):
        assert one.weight == mass or (math.isnan(one.weight) and math.isnan(mass))
    assert [bool(one.verdict) for one in judged[-3:]] == [False, False, True]
