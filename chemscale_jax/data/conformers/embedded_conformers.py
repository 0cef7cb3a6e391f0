"""Conformers that need no download: of the first molecules of the embedded corpus.

They are made in the cache folder when they are first asked for, with their data card;
the default size takes about two minutes of two cores. The molecules of a smaller set
are the first ones of a larger set, with the same conformers.
"""

import hashlib
import importlib.metadata
import pathlib
from typing import Any

import numpy as np

from chemscale_jax.chem.conformers import RELAX_WORK, ConformerSettings
from chemscale_jax.chem.drugs import DRUGS_CSV
from chemscale_jax.chem.molecule_record import STATUSES
from chemscale_jax.chem.recombination import RULES_VERSION
from chemscale_jax.chem.smiles import read_molecule
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.cache import derived_folder
from chemscale_jax.data.conformers.build import Plan
from chemscale_jax.data.conformers.codec import VERSION
from chemscale_jax.data.conformers.conform import conform_source
from chemscale_jax.data.conformers.store import SCHEMA_VERSION, ConformerStore
from chemscale_jax.data.text.embedded_corpus import SEED, embedded_smiles
from chemscale_jax.data.text.molecule_text import SmilesList

SIZE = 4_000
# Time grows with the square of the number of atoms; four of five molecules are smaller.
MAX_ATOMS = 30
CARD_FILE = "CARD.md"
# Molecules of the corpus to look at for each one of the set.
_SPARE = 1.3
_SHARDS = 4

_CARD = """\
# Data card: embedded conformers

{molecules} molecules with {conformers} conformers for pretraining without a download.
**The molecules are invented** (see the card of the embedded corpus, which they are the
first ones of), and **the geometries are computed** with a force field: they are neither
measured nor of quantum chemistry. They show that a program works; what is learned
from them says little about molecules that were made.

| what | value |
|---|---|
| molecules | {molecules} |
| heavy atoms | {smallest} to {largest}, mean {mean:.1f}; at most {max_atoms} |
| Murcko scaffolds | {scaffolds}; the most frequent one has {most} molecules |
{statuses}
| seed of the molecules | {corpus_seed} |
| seed of the conformers | {seed} |
| RDKit | {rdkit} |
| coordinates | {coordinates}, moved by {error:.4f} angstrom at most |
| SHA-256 of the shards | `{sha256}` |

## How they are made

Distance geometry (ETKDGv3) with a seed that depends on the molecule, then MMFF94 to
convergence, with hydrogens, which are left out afterwards. One way to make them again:

```
from chemscale_jax.data.conformers.embedded_conformers import embedded_conformers
print(embedded_conformers({size}, {conformers_each}).folder)
```

Neither the number of processes nor an interruption changes them; another version of
RDKit does.

## What they lack

Molecules of more than {max_atoms} heavy atoms, stereoisomers, salts, charges, metals;
other conformers than the few that were drawn; and whatever else the embedded corpus
lacks.

## Licence

Apache-2.0, as the package: molecules and geometries are our own work.
"""


def embedded_conformers(
    size: int = SIZE,
    conformers: int = 1,
    workers: int | None = None,
    *,
    progress: bool = True,
) -> ConformerStore:
    """The store of the first molecules of the embedded corpus, made first if need be.

    Args:
        size: molecules.
        conformers: of each one.
        workers: processes; default one for each core that may be used.
        progress: whether there are bars.

    Raises:
        UserError: a number makes no sense, or the disk is full.
    """
    if size < 1:
        raise UserError(f"size of the embedded conformers is {size}: use at least 1")
    plan = Plan(
        conformers=ConformerSettings(count=conformers),
        max_atoms=MAX_ATOMS,
        shards=min(_SHARDS, size),
    )

    def fill(folder: pathlib.Path) -> None:
        made = folder / "made"
        molecules = SmilesList(_molecules(size, workers))
        conform_source(molecules, made, plan, workers=workers, progress=progress)
        for file in made.iterdir():
            file.rename(folder / file.name)
        made.rmdir()
        _write_card(folder, size, conformers)

    key = {
        "size": size,
        "plan": repr(plan),
        "relax_work": RELAX_WORK,
        "corpus_seed": SEED,
        "rules": RULES_VERSION,
        "drugs": hashlib.sha256(DRUGS_CSV.read_bytes()).hexdigest(),
        "rdkit": importlib.metadata.version("rdkit"),
        "versions": [SCHEMA_VERSION, VERSION],
    }
    return ConformerStore.open(derived_folder("embedded-conformers", key, fill))


def _molecules(size: int, workers: int | None) -> list[str]:
    """The first molecules of the corpus that are small enough."""
    look_at = int(_SPARE * size) + 10
    while True:
        # A smaller corpus is the beginning of a larger one.
        path = embedded_smiles(look_at, workers)
        found = [
            smiles
            for smiles in path.read_text(encoding="utf-8").split()
            if read_molecule(smiles).heavy_atoms <= MAX_ATOMS
        ]
        if len(found) >= size:
            return found[:size]
        look_at *= 2


def _write_card(folder: pathlib.Path, size: int, conformers: int) -> None:
    store = ConformerStore.open(folder)
    info: dict[str, Any] = dict(store.info)
    digest = hashlib.sha256()
    for file, _ in info["shards"]:
        digest.update((folder / file).read_bytes())
    statuses = "\n".join(
        f"| status {name}: {STATUSES[name]} | {count} |"
        for name, count in info["statuses"].items()
    )
    text = _CARD.format(
        molecules=len(store),
        conformers=info["conformers"],
        smallest=int(np.min(store.atoms)),
        largest=int(np.max(store.atoms)),
        mean=float(np.mean(store.atoms)),
        max_atoms=MAX_ATOMS,
        scaffolds=info["scaffolds"],
        most=int(store.scaffold_counts.max()),
        statuses=statuses,
        corpus_seed=SEED,
        seed=ConformerSettings.seed,
        rdkit=importlib.metadata.version("rdkit"),
        coordinates=info["coordinates"],
        error=info["error_ang"],
        sha256=digest.hexdigest(),
        size=size,
        conformers_each=conformers,
    )
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
