"""Everything the metrics of a set of molecules are computed from, in one pass."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from chemscale_jax.chem.descriptors import PROPERTIES, describe
from chemscale_jax.chem.medicinal_filters import (
    DEFAULTS,
    FilterOptions,
    Verdict,
    filters_of,
    neutralised,
)
from chemscale_jax.chem.molecule_fingerprints import (
    BYTES,
    brics_fragments,
    morgan_bits,
    murcko_scaffold,
)
from chemscale_jax.chem.smiles import molecule_key
from chemscale_jax.chem.worker_map import ordered_map


class Profile(NamedTuple):
    """What is known of one molecule."""

    canonical: str  # RDKit's SMILES; "" where nothing could be read
    verdict: Verdict
    neutral_verdict: Verdict  # after `neutralised`
    properties: tuple[float, ...]  # of PROPERTIES
    bits: np.ndarray  # (128,) uint8, the packed Morgan fingerprint
    fragments: tuple[str, ...]
    scaffold: str | None


class Profiles(NamedTuple):
    """What is known of n molecules, unreadable ones included.

    Attributes:
        canonical: RDKit's SMILES, "" where nothing could be read.
        verdicts: of the filters.
        neutral_verdicts: of the filters, after charges were taken away.
        properties: (n, 4) float64, of PROPERTIES; NaN where nothing could be read.
        bits: (n, 128) uint8, packed Morgan fingerprints.
        fragments: BRICS pieces of each.
        scaffolds: Murcko scaffolds of at least two rings, or None.
    """

    canonical: list[str]
    verdicts: list[Verdict]
    neutral_verdicts: list[Verdict]
    properties: np.ndarray
    bits: np.ndarray
    fragments: list[tuple[str, ...]]
    scaffolds: list[str | None]

    def __len__(self) -> int:
        return len(self.canonical)

    @property
    def valid(self) -> np.ndarray:
        """(n,) bool: which could be read."""
        return np.array([bool(smiles) for smiles in self.canonical], bool)

    def take(self, places: np.ndarray) -> "Profiles":
        """Those at some places, in the order of these."""
        return Profiles(
            [self.canonical[i] for i in places],
            [self.verdicts[i] for i in places],
            [self.neutral_verdicts[i] for i in places],
            self.properties[places],
            self.bits[places],
            [self.fragments[i] for i in places],
            [self.scaffolds[i] for i in places],
        )


def profile(smiles: str | None, options: FilterOptions) -> Profile:
    """Everything about one molecule; never an exception for a bad one."""
    filters = filters_of(options)
    with BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles else None
        if mol is None or not mol.GetNumAtoms():
            verdict = filters.judge_smiles(smiles)
            nothing = (float("nan"),) * len(PROPERTIES)
            empty = np.zeros(BYTES, np.uint8)
            return Profile("", verdict, verdict, nothing, empty, (), None)
        verdict = filters.judge(mol)
        neutral = verdict
        if any(reason.rule == "charge" for reason in verdict):
            neutral = filters.judge(neutralised(mol))
        return Profile(
            Chem.MolToSmiles(mol),
            verdict,
            neutral,
            describe(mol),
            morgan_bits(mol),
            brics_fragments(mol),
            murcko_scaffold(mol),
        )


def profile_all(
    smiles: Sequence[str | None],
    options: FilterOptions = DEFAULTS,
    *,
    processes: int | None = None,
    label: str = "molecules",
    progress: bool = True,
) -> Profiles:
    """Everything about some molecules, in their order.

    A string that occurs often is looked at once.

    Args:
        smiles: the molecules; None or "" where there is none.
        options: of the filters.
        processes: default all that may be used.
        label: stands before the progress bar.
        progress: whether to show a bar.
    """
    filters_of(options)  # Wrong files are complained about here, not in a worker.
    distinct = list(dict.fromkeys(smiles))
    found = list(
        ordered_map(
            functools.partial(_profile_some, options=options),
            distinct,
            processes=processes,
            label=label,
            progress=progress,
        )
    )
    place = {text: i for i, text in enumerate(distinct)}
    every = [found[place[text]] for text in smiles]
    return Profiles(
        [one.canonical for one in every],
        [one.verdict for one in every],
        [one.neutral_verdict for one in every],
        np.array([one.properties for one in every]).reshape(-1, len(PROPERTIES)),
        np.array([one.bits for one in every], np.uint8).reshape(-1, BYTES),
        [one.fragments for one in every],
        [one.scaffold for one in every],
    )


def canonical_keys(
    smiles: Sequence[str | None],
    *,
    processes: int | None = None,
    label: str = "training molecules",
    progress: bool = True,
) -> np.ndarray:
    """Sorted, distinct keys of the canonical SMILES of what can be read.

    Returns:
        (m,) uint64, see `smiles.molecule_key`.
    """
    keys = ordered_map(
        _keys_of_some, smiles, processes=processes, label=label, progress=progress
    )
    return np.unique(
        np.fromiter((key for key in keys if key is not None), dtype=np.uint64)
    )


def _profile_some(smiles: Sequence[str | None], options: FilterOptions):
    return [profile(one, options) for one in smiles]


def _keys_of_some(smiles: Sequence[str | None]) -> list[int | None]:
    keys: list[int | None] = []
    with BlockLogs():
        for one in smiles:
            mol = Chem.MolFromSmiles(one) if one else None
            readable = mol is not None and mol.GetNumAtoms()
            keys.append(molecule_key(Chem.MolToSmiles(mol)) if readable else None)
    return keys
