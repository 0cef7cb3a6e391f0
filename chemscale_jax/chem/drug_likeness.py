"""What a set of molecules looks like beside known drugs, as plain lists of numbers."""

from collections.abc import Iterable
from typing import NamedTuple

from rdkit import Chem
from rdkit.Chem import rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold

from chemscale_jax.chem.descriptors import describe
from chemscale_jax.chem.medicinal_filters import DEFAULTS, filters_of
from chemscale_jax.chem.selfies_codec import encode


class DrugLikeness(NamedTuple):
    """One number for each molecule, and the scaffolds of all."""

    symbols: list[float]  # of its SELFIES
    heavy_atoms: list[float]
    rings: list[float]
    weight: list[float]  # g/mol
    log_p: list[float]  # Crippen
    sa: list[float]  # synthetic accessibility, 1 is easy and 10 is hard
    qed: list[float]
    passes: list[
        bool
    ]  # the filters of MOSES, with medicinal-chemistry rules of our own
    scaffolds: set[str]  # Bemis-Murcko, SMILES; "" for molecules without rings


def drug_likeness(smiles: Iterable[str]) -> DrugLikeness:
    """Sizes, the usual scores and the scaffolds of molecules."""
    found = DrugLikeness([], [], [], [], [], [], [], [], set())
    filters = filters_of(DEFAULTS)
    for text in smiles:
        mol = Chem.MolFromSmiles(text)
        log_p, sa, qed, weight = describe(mol)
        found.symbols.append(len(encode(text)))
        found.heavy_atoms.append(mol.GetNumHeavyAtoms())
        found.rings.append(rdMolDescriptors.CalcNumRings(mol))
        found.weight.append(weight)
        found.log_p.append(log_p)
        found.sa.append(sa)
        found.qed.append(qed)
        found.passes.append(not filters.judge(mol))
        found.scaffolds.add(MurckoScaffold.MurckoScaffoldSmiles(mol=mol))
    return found
