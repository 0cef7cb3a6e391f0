"""New drug-like molecules joined from pieces of drugs, the same ones every time.

Molecules are drawn in blocks, and a block is a function of (pieces, seed, number of
the block) alone, so any number of processes gives the same molecules in the same order.

One draw: a size in heavy atoms, a first piece, then pieces whose open ends BRICS lets
meet, until the size is reached; what is still open gets a hydrogen or a small group.
The parts are written as one SMILES, with a ring closure for each new bond, and RDKit
reads it: no molecule is edited atom by atom.
"""

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from rdkit import Chem
from rdkit.Chem import rdMolDescriptors
from rdkit.rdBase import BlockLogs

from chemscale_jax.chem.descriptors import log_p, weight
from chemscale_jax.chem.drug_fragments import PARTNERS, Piece

# Changes of the rules or of their numbers change the molecules: count this up.
RULES_VERSION = 1
BLOCK = 500  # draws
_MAX_IDLE_BLOCKS = 20

HEAVY_ATOMS = (10, 45)
WEIGHT_DALTON = (150.0, 600.0)
LOG_P = (-2.0, 6.5)  # Crippen's estimate
MAX_RINGS = 6
MAX_ROTATABLE = 11
MAX_DONORS = 6
# Sizes are drawn about this mean with about this standard deviation.
_MEAN_HEAVY = 25.0
_SPREAD_HEAVY = 6.5
_MAX_PIECES = 5

_CLOSED_BY_HYDROGEN = frozenset({3, 4, 5, 8, 9, 10, 13, 14, 15, 16})
_CAPS = {
    1: ("O", "N", "NC", "OC", "N(C)C", "N1CCOCC1"),
    6: ("O", "N", "OC", "NC", "OCC"),
    11: ("C", "CC"),
    12: ("N", "NC", "N(C)C", "C"),
}
# Bonds between pieces that no chemist would ask for.
_UNWANTED = tuple(
    Chem.MolFromSmarts(smarts)
    for smarts in (
        # Two heteroatoms on one saturated carbon that would fall apart in water:
        # open-chain acetals and aminals, and amino or hydroxy groups beside a ring
        # heteroatom. Sugars, nucleosides and N-CH2-O of aciclovir stay.
        "[CX4;!R]([OX2,NX3])-[OX2,NX3;!$(N[C,S]=O)]",
        "[CX4;!R]([#7])-[#7]",
        "[CX4;R]([O,N;R])-!@[NX3]",
        "[CX4;R]([N;R])-!@[OX2]",
        "[CX4;R](-!@[OX2,NX3])-!@[OX2,NX3]",
        "[CX4]([#7,#8,#16])-[SX2H]",
        "[NX3][CX3](=O)[OX2H]",  # carbamic acids
        "[OX2,SX2]-[OX2,SX2]",
        "[NX3;!R]-[NX3;!R]-[NX3;!R]",
        "[#6;X3](=O)[NX3;!R][OX2][#6](=O)",
        "[CX3H1](=O)[#6]",
        "[CX3H1](=O)[OX2]",
        "C(=O)C(=O)C(=O)",
        "[CX3;!R](=[CX3;!R])[OX2H]",  # enols and enamines of open chains
        "[CX3;!R](=[CX3;!R])[NX3;H2]",
        "[CX3;!R;!$(C~[N,O,S])]=[NX2;!R]-[#6]",  # imines
    )
)


class _Choice(NamedTuple):
    """Pieces with an open end of certain labels, by size."""

    entries: list[tuple[Piece, int]]  # piece, which of its ends
    heavy: list[int]
    totals: list[float]  # weight of all entries before this one


class Pool(NamedTuple):
    """Pieces, arranged to be drawn."""

    n_pieces: int
    first: _Choice
    partners: dict[int, _Choice]  # label of an open end: what may be joined to it


def pool_of(pieces: Iterable[Piece]) -> Pool:
    """Arranges pieces for drawing; their order does not matter."""
    ordered = sorted(pieces, key=lambda p: (p.heavy, p.texts, p.labels))
    return Pool(
        len(ordered),
        _choice([(piece, 0) for piece in ordered if piece.rings]),
        {
            label: _choice(
                [
                    (piece, end)
                    for piece in ordered
                    for end, own in enumerate(piece.labels)
                    if own in others
                ]
            )
            for label, others in PARTNERS.items()
        },
    )


def _choice(entries: list[tuple[Piece, int]]) -> _Choice:
    # What k drugs have comes sqrt(k) times as often as what only one has.
    weights = [math.sqrt(piece.count) for piece, _ in entries]
    return _Choice(
        entries,
        [piece.heavy for piece, _ in entries],
        [0.0, *accumulate(weights)],
    )


def _draw(
    choice: _Choice, least: float, most: float, rng: random.Random
) -> tuple[Piece, int] | None:
    """One of the entries of ``least`` to ``most`` heavy atoms, by weight."""
    start, stop = bisect_left(choice.heavy, least), bisect_right(choice.heavy, most)
    if start == stop:
        return None
    low, high = choice.totals[start], choice.totals[stop]
    at = bisect_right(choice.totals, low + rng.random() * (high - low)) - 1
    return choice.entries[min(at, stop - 1)]


def _joined(pool: Pool, rng: random.Random) -> str | None:
    """The SMILES of one draw, not yet read; None where it leaves the bounds."""
    # Sums of uniforms: equal on every machine, which logarithms need not be.
    deviate = sum(rng.random() for _ in range(6)) - 3.0
    target = _MEAN_HEAVY + deviate * math.sqrt(2.0) * _SPREAD_HEAVY
    target = min(max(target, HEAVY_ATOMS[0] + 1), HEAVY_ATOMS[1] - 1)
    drawn = _draw(pool.first, 3, min(target, 0.75 * target + 2), rng)
    if drawn is None:
        return None
    pieces = [drawn[0]]
    filled: list[list[str | None]] = [[None] * len(drawn[0].labels)]
    heavy, rings = drawn[0].heavy, drawn[0].rings
    open_ends = [(0, end) for end in range(len(drawn[0].labels))]
    while open_ends and len(pieces) < _MAX_PIECES and target - heavy >= 1.5:
        owner, end = open_ends.pop(int(rng.random() * len(open_ends)))
        room = target - heavy
        # The last end takes what is missing; others leave something for later.
        least = 0.5 * room if not open_ends else 0.2 * room
        drawn = _draw(
            pool.partners[pieces[owner].labels[end]], min(least, 12), room + 1, rng
        )
        if drawn is None:
            continue
        piece, own_end = drawn
        closure = f"-%{90 + len(pieces)}"
        filled[owner][end] = closure
        ends: list[str | None] = [None] * len(piece.labels)
        ends[own_end] = closure
        open_ends += [(len(pieces), e) for e in range(len(ends)) if e != own_end]
        pieces.append(piece)
        filled.append(ends)
        heavy, rings = heavy + piece.heavy, rings + piece.rings
    if len(pieces) < 2 or rings > MAX_RINGS or not _within(heavy, HEAVY_ATOMS):
        return None
    return ".".join(
        piece.fill(
            closure if closure is not None else _end(label, rng)
            for label, closure in zip(piece.labels, ends, strict=True)
        )
        for piece, ends in zip(pieces, filled, strict=True)
    )


def _end(label: int, rng: random.Random) -> str:
    if label in _CLOSED_BY_HYDROGEN:
        return "([H])"
    caps = _CAPS[label]
    return f"({caps[int(rng.random() * len(caps))]})"


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _accepted(text: str) -> str | None:
    """Its canonical SMILES if a joined molecule is sound and drug-like."""
    mol = Chem.MolFromSmiles(text)
    if (
        mol is None
        or not _within(mol.GetNumAtoms(), HEAVY_ATOMS)
        or not _within(weight(mol), WEIGHT_DALTON)
        or rdMolDescriptors.CalcNumRotatableBonds(mol) > MAX_ROTATABLE
        or rdMolDescriptors.CalcNumHBD(mol) > MAX_DONORS
        or any(mol.HasSubstructMatch(pattern) for pattern in _UNWANTED)
        or not _within(log_p(mol), LOG_P)
    ):
        return None
    return Chem.MolToSmiles(mol)


def draw_block(pool: Pool, seed: int, number: int) -> list[str]:
    """Canonical SMILES of the molecules of one block of draws, with repetitions."""
    rng = random.Random(f"{RULES_VERSION}/{seed}/{number}")
    with BlockLogs():
        texts = (_joined(pool, rng) for _ in range(BLOCK))
        found = (_accepted(text) for text in texts if text is not None)
        return [smiles for smiles in found if smiles is not None]


def distinct(
    blocks: Iterable[Sequence[str]], size: int, without: Iterable[str] = ()
) -> Iterator[str]:
    """The first ``size`` different molecules of successive blocks.

    Args:
        blocks: as ``draw_block`` gives them for the numbers 0, 1, 2, ...
        size: how many.
        without: canonical SMILES that must not come, such as the drugs themselves.

    Raises:
        ValueError: there are not that many.
    """
    seen = set(without)
    left = size
    idle = 0
    for block in blocks:
        idle += 1
        for smiles in block:
            if left and smiles not in seen:
                seen.add(smiles)
                left, idle = left - 1, 0
                yield smiles
        if not left:
            return
        if idle > _MAX_IDLE_BLOCKS:
            raise ValueError(
                f"these pieces gave {size - left} molecules and then none in {idle} "
                f"blocks of {BLOCK} draws, so not {size}: ask for fewer, or give more "
                "molecules to cut"
            )
