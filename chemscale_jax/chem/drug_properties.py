"""Small drugs with two computed properties: a table to try finetuning on."""

import csv
import io

from rdkit import Chem

from chemscale_jax.chem.descriptors import log_p, qed
from chemscale_jax.chem.drugs import drugs

# Heavy atoms of the largest one.
MAX_ATOMS = 23
TARGETS = ("logP", "QED")


def drug_table() -> str:
    """A csv of name, SMILES and `TARGETS` of drugs of at most `MAX_ATOMS`.

    logP is that of Wildman and Crippen, QED that of Bickerton et al., see
    `chem.descriptors`; both without unit.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("name", "smiles", *TARGETS))
    for drug in drugs():
        mol = Chem.MolFromSmiles(drug.smiles)
        if mol.GetNumHeavyAtoms() <= MAX_ATOMS:
            numbers = [f"{value:.4f}" for value in (log_p(mol), qed(mol))]
            table.writerow((drug.name, drug.smiles, *numbers))
    return text.getvalue()
