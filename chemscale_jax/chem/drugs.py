"""Well-known drugs and natural products by name, and ten of them for prompts.

The list is our own: names, molecular formulas and SMILES written down one by one. It
is without stereochemistry, salts and isotopes, as PubChem10M and MOSES are. A test
compares each SMILES with the formula that was written beside it.
"""

import csv
import dataclasses
import functools
import pathlib

from chemscale_jax.chem.molecule_list import canonical_smiles

DRUGS_CSV = pathlib.Path(__file__).with_name("drugs.csv")

# The ten molecules of the prompting study: household names of ten scaffolds, without a
# charged atom, of 22 to 37 heavy atoms and 35 to 59 SELFIES symbols, so that prompts of
# 20 symbols leave something to say. All pass the filters of MOSES.
PROMPT_NAMES = (
    "imatinib",  # kinase inhibitor: anilinopyrimidine, piperazine
    "celecoxib",  # anti-inflammatory: pyrazole, sulfonamide, CF3
    "sildenafil",  # vasodilator: fused pyrimidinone, sulfonylpiperazine
    "valsartan",  # antihypertensive: biphenyl, tetrazole, amide, acid
    "ciprofloxacin",  # antibiotic: quinolone acid
    "omeprazole",  # acid inhibitor: benzimidazole, sulfoxide, pyridine
    "fluoxetine",  # antidepressant: aryl ether, secondary amine
    "diltiazem",  # calcium antagonist: benzothiazepine, ester
    "prednisolone",  # steroid: four fused carbocycles
    "warfarin",  # anticoagulant: coumarin, ketone
)


@dataclasses.dataclass(frozen=True)
class Drug:
    """A drug: its common name and its canonical SMILES without stereochemistry."""

    name: str
    smiles: str
    kind: str  # what it is for or where it is from, such as "antibiotic"
    formula: str  # in Hill order


@functools.cache
def _list() -> tuple[Drug, ...]:
    with DRUGS_CSV.open(newline="", encoding="utf-8") as file:
        return tuple(
            Drug(
                name=row["name"],
                smiles=canonical_smiles(row["smiles"]),
                kind=row["kind"],
                formula=row["formula"],
            )
            for row in csv.DictReader(file)
        )


def drugs() -> list[Drug]:
    """All drugs of the list, in its order."""
    return list(_list())


def prompt_drugs() -> list[Drug]:
    """The ten drugs of ``PROMPT_NAMES``, in that order."""
    by_name = {drug.name: drug for drug in _list()}
    return [by_name[name] for name in PROMPT_NAMES]
