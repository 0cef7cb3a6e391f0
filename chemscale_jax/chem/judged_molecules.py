"""Verdict of the filters and mass of each of many molecules, and nothing else."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from chemscale_jax.chem.descriptors import weight
from chemscale_jax.chem.medicinal_filters import (
    DEFAULTS,
    FilterOptions,
    Verdict,
    filters_of,
)
from chemscale_jax.chem.worker_map import ordered_map

# Fewer molecules are judged sooner than processes start.
_WORTH_PROCESSES = 5_000


class Judged(NamedTuple):
    """One molecule."""

    verdict: Verdict  # empty where it passes
    weight: float  # average mass in g/mol; NaN where nothing could be read


def judge_and_weigh(
    smiles: Sequence[str | None],
    options: FilterOptions = DEFAULTS,
    *,
    processes: int | None = None,
) -> list[Judged]:
    """Verdict and mass of molecules, in their order.

    A string that occurs often is looked at once. This is what `molecule_profiles`
    would find, without its slower parts.

    Args:
        smiles: the molecules; None or "" where there is none.
        options: of the filters.
        processes: default all that may be used, where there are many molecules.
    """
    filters_of(options)  # Wrong files are complained about here, not in a worker.
    distinct = list(dict.fromkeys(smiles))
    found = ordered_map(
        functools.partial(_judge_some, options=options),
        distinct,
        processes=processes if len(distinct) >= _WORTH_PROCESSES else 1,
        label="filters",
        progress=False,
    )
    known = dict(zip(distinct, found, strict=True))
    return [known[text] for text in smiles]


def _judge_some(smiles: Sequence[str | None], options: FilterOptions) -> list[Judged]:
    filters = filters_of(options)
    judged = []
    with BlockLogs():
        for text in smiles:
            mol = Chem.MolFromSmiles(text) if text else None
            if mol is None or not mol.GetNumAtoms():
                judged.append(Judged(filters.judge_smiles(text), float("nan")))
            else:
                judged.append(Judged(filters.judge(mol), weight(mol)))
    return judged
