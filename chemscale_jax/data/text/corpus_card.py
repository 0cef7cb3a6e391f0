"""The data card of the embedded corpus, written from its molecules."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from chemscale_jax.chem import drug_fragments, recombination
from chemscale_jax.chem.drug_likeness import DrugLikeness, drug_likeness
from chemscale_jax.chem.drugs import drugs

# Molecules of the corpus that the table of properties is about.
_SAMPLE = 1000
# Tables of smaller corpora would take longer than the corpora.
_WORTH_A_TABLE = 10_000

_TEMPLATE = """\
# Data card: {file_name}

{size} distinct drug-like molecules for training language models without a download,
one canonical SMILES on a line. **They are invented**: computed by joining pieces of
well-known drugs. Hardly any of them has been made, nothing was measured, and
nothing here says that one of them is active, safe, stable or new. Do not take the
corpus for a sample of known chemistry: a model trained on it learns how these pieces
go together, not what medicinal chemists made.

| what | value |
|---|---|
| molecules | {size} |
| drugs that were cut | {n_drugs} |
| different pieces | {n_pieces} |
| seed | {seed} |
| bytes | {bytes} |
| SHA-256 of the file | `{sha256}` |
| RDKit | {rdkit} |
| rules | version {rules} |
{table}
## How they are made

- Drugs: `chem/drugs.csv` of this package, our own list of names, formulas and SMILES,
  without stereochemistry, salts and isotopes. Each SMILES agrees with the formula
  written beside it.
- Pieces: parts of a drug between bonds that the BRICS rules cut (Degen et al. 2008, as
  in RDKit), alone or up to three neighbours together, of up to {max_heavy} heavy atoms;
  and whole drugs of up to {max_whole} heavy atoms with one acid, amine, alcohol, azole
  or aryl halide opened.
- Joining: a size is drawn (mean 25 heavy atoms), then a piece with a ring, then
  pieces whose ends BRICS lets meet, at most five in all. A piece that k drugs share
  comes sqrt(k) times as often as a piece of one drug.
- Kept: {heavy} heavy atoms, {weight} g/mol, Crippen logP of {log_p}, at most {rings}
  rings of at most 7 atoms, {rotatable} rotatable bonds and {donors} hydrogen-bond
  donors; no net charge and no charged atom except in groups that drugs have, such as
  nitro; no peroxides, aldehydes, alkyl halides (fluorides excepted), acyl halides,
  thiols, azides, open-chain aminals and hemiacetals, enols or carbamic acids.
- None of the drugs themselves is in the file, so they can serve as prompts.
- Order: as drawn. The first n lines are a sample of all, and the corpus of size n.

## What it lacks

Stereochemistry, salts, isotopes, charged molecules, metals, macrocycles and molecules
above 45 heavy atoms. There are many near relatives: molecules that share a large piece.
A random split puts relatives of training molecules into validation, so expect lower
losses than on a collection of real molecules of equal size.

## Making it again

```
from chemscale_jax.data.text.embedded_corpus import embedded_smiles
print(embedded_smiles(size={size}, seed={seed}))
```

Any number of processes and any machine give this file with this version of RDKit.
Another version may write the same molecules as other strings, or draw the line of a
filter elsewhere; the hash above tells.

## Licence

Apache-2.0, as the package: the list of drugs and the molecules are our own work.
"""


@dataclasses.dataclass(frozen=True)
class CorpusFacts:
    """What the card says that the molecules do not."""

    file_name: str
    size: int
    seed: int
    n_pieces: int
    bytes: int
    sha256: str
    rdkit: str


def corpus_card(facts: CorpusFacts, molecules: Sequence[str]) -> str:
    """The Markdown card of a corpus made by ``embedded_smiles``."""
    parents = [drug.smiles for drug in drugs()]
    table = ""
    if len(molecules) >= _WORTH_A_TABLE:
        sample = molecules[:_SAMPLE]
        table = _table(
            {
                f"the first {len(sample)} molecules": drug_likeness(sample),
                f"the {len(parents)} drugs": drug_likeness(parents),
            }
        )
    return _TEMPLATE.format(
        **dataclasses.asdict(facts),
        n_drugs=len(parents),
        rules=recombination.RULES_VERSION,
        table=table,
        max_heavy=drug_fragments.MAX_HEAVY,
        max_whole=drug_fragments.MAX_HEAVY_WHOLE,
        heavy=_range(recombination.HEAVY_ATOMS),
        weight=_range(recombination.WEIGHT_DALTON),
        log_p=_range(recombination.LOG_P),
        rings=recombination.MAX_RINGS,
        rotatable=recombination.MAX_ROTATABLE,
        donors=recombination.MAX_DONORS,
    )


def _table(sets: dict[str, DrugLikeness]) -> str:
    """Mean and percentiles of each property, the sets side by side."""
    rows = {
        "SELFIES symbols": [s.symbols for s in sets.values()],
        "heavy atoms": [s.heavy_atoms for s in sets.values()],
        "rings": [s.rings for s in sets.values()],
        "mass in g/mol": [s.weight for s in sets.values()],
        "Crippen logP": [s.log_p for s in sets.values()],
        "synthetic accessibility (1 easy, 10 hard)": [s.sa for s in sets.values()],
        "drug-likeness (QED)": [s.qed for s in sets.values()],
    }
    lines = [
        "\n## Beside the drugs\n",
        "Mean (5th, 50th and 95th percentile).\n",
        "| | " + " | ".join(sets) + " |",
        "|---|" + "---|" * len(sets),
        *(
            f"| {name} | " + " | ".join(_spread(v) for v in values) + " |"
            for name, values in rows.items()
        ),
        "| pass the filters of MOSES | "
        + " | ".join(f"{np.mean(s.passes):.1%}" for s in sets.values())
        + " |",
        "| distinct Murcko scaffolds | "
        + " | ".join(str(len(s.scaffolds)) for s in sets.values())
        + " |",
    ]
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    low, middle, high = np.percentile(values, (5, 50, 95))
    return f"{np.mean(values):.2f} ({low:.2f}, {middle:.2f}, {high:.2f})"


def _range(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g}"
