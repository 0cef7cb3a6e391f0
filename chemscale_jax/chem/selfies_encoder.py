"""The SELFIES library's encoder for ordinary SMILES, several times faster.

``fast_symbols`` gives exactly the symbols of ``selfies.encoder``, or None where the
text is out of the ordinary (ring numbers after a branch, "/" on a ring bond, a
molecule that breaks the valence rules, ...): then the library is to be asked. What a
single atom is called and how it binds is asked of the library, once per kind of atom.

One pass over the SMILES writes the symbols with every aromatic bond as a single one.
Lengths, and so the index symbols of branches and rings, do not depend on bond orders.
Then double bonds are laid into the aromatic system in the library's order, and the
symbols of these bonds are corrected in place.
"""

import functools
import heapq
import operator
import re
from typing import NamedTuple

import selfies
from selfies.constants import AROMATIC_VALENCES, INDEX_ALPHABET, VALENCE_ELECTRONS

# One token: an atom, with the bond before it and the ring numbers after it; or "(",
# ")", ".".
_TOKENS = re.compile(
    r"[-=#/\\]?(?:\[[^\]]*\]|Cl|Br|[BCNOPSFIbcnops])(?:[-=#]?(?:\d|%\d\d))*|[().]"
)
_PARTS = re.compile(r"([-=#/\\]?)(\[[^\]]*\]|[A-Za-z]+)(.*)")
_RINGS = re.compile(r"([-=#]?)(\d|%\d\d)")
_BRACKET = re.compile(
    r"\[\d*([A-Z][a-z]?|[a-z]{1,2})(@{0,2})(?:H(\d?))?(\++|-+|[+-]\d+)?(?::\d+)?\]"
)
# Empty branches and fragments, and a branch that is the last bond of its atom: the
# library goes on along it as if it were the chain.
_UNUSUAL = ("))", ").", "((", "()", "(.", ".(", "..")
_ORDERS = {"": 0, "-": 1, "/": 1, "\\": 1, "=": 2, "#": 3}
_BOND_TEXT = ("", "", "=", "#")
_BRANCH = [[f"[{bond}Branch{n}]" for n in (0, 1, 2)] for bond in _BOND_TEXT]
_RING = [[f"[{bond}Ring{n}]" for n in (0, 1, 2)] for bond in _BOND_TEXT]
_INDEX = [(low,) for low in INDEX_ALPHABET] + [
    (high, low) for high in INDEX_ALPHABET[1:] for low in INDEX_ALPHABET
]  # numbers to base 16
_KINDS_KEPT = 20_000

Pi = tuple[str, int, int | None]  # element, charge, hydrogens (None: not written)


class _Kind(NamedTuple):
    """What the token of an atom says; worked out once for each distinct token."""

    order: int  # of the bond before the atom, 0 where none is written
    symbol: str  # with that bond
    mirrored: str  # symbol with the other handedness; "" where it has none
    pi: Pi | None  # of an aromatic atom
    capacity: int  # how many valences bonds may use
    rings: tuple[tuple[str, int], ...]  # ring number, order or 0


_KINDS: dict[str, _Kind] = {}


def fast_symbols(smiles: str) -> list[str] | None:
    """The symbols of ``selfies.encoder(smiles)``, or None: ask the library.

    Args:
        smiles: any text.
    """
    tokens = _TOKENS.findall(smiles)
    if (
        "".join(tokens) != smiles
        or not smiles
        or smiles[-1] in ")."
        or smiles[0] == "."
    ):
        return None
    for text in _UNUSUAL:
        if text in smiles:
            return None
    symbols: list[str] = []
    used: list[int] = []  # by atom: valences in bonds, aromatic ones counted as 1
    capacity: list[int] = []
    orders: list[int] = []  # by atom: order of the bond to the atom before it
    places: list[int] = []  # by atom: where its symbol is
    pi: dict[int, Pi] = {}  # aromatic atoms
    partners: dict[int, list[int]] = {}  # their neighbours over aromatic bonds
    branch_place: dict[int, int] = {}  # by first atom of a branch
    ring_place: dict[tuple[int, int], int] = {}  # by the two atoms
    open_rings: dict[str, list[int]] = {}  # number -> [atom, order, closing atom]
    centres: list[tuple[int, str, list[list[int] | None]]] = []
    branches: list[tuple[int, int, int, int]] = []
    here, blanks = -1, 0

    for token in tokens:
        kind = _KINDS.get(token)
        if kind is None:
            if token == "(":
                branches.append((here, len(used), len(symbols), blanks))
                symbols += ("", "", "")  # [Branch] and at most two index symbols
                continue
            if token == ")":
                if not branches:
                    return None
                here, first, start, blanks_before = branches.pop()
                length = len(symbols) - start - 3 - (blanks - blanks_before)
                if length > 256:
                    return None
                index = _INDEX[length - 1]
                symbols[start] = _BRANCH[orders[first]][len(index)]
                symbols[start + 1] = index[0]
                if len(index) == 2:
                    symbols[start + 2] = index[1]
                else:
                    blanks += 1
                branch_place[first] = start
                continue
            if token == ".":
                if branches or open_rings:
                    return None
                symbols.append(".")
                here = -1
                continue
            kind = _learn(token)
            if kind is None:
                return None

        order, symbol, mirrored, kind_pi, room, rings = kind
        atom = len(used)
        before, here = here, atom
        if kind_pi is not None:
            pi[atom] = kind_pi
            partners[atom] = []
        if before < 0:
            if order:
                return None
            used.append(0)
        else:
            if not order:
                order = 1
                if kind_pi is not None and before in pi:
                    partners[before].append(atom)
                    partners[atom].append(before)
            used[before] += order
            used.append(order)
        orders.append(order)
        capacity.append(room)
        places.append(len(symbols))
        symbols.append(symbol)
        if not rings:
            continue

        around: list[list[int] | None] = []
        for number, order in rings:
            ring = open_rings.pop(number, None)
            if ring is None:
                open_rings[number] = ring = [atom, order, -1]
                around.append(ring)
                continue
            around.append(None)
            other, other_order, _ = ring
            ring[2] = atom
            span = atom - other
            if span == 0 or other == before or span > 256:
                return None
            if (other, atom) in ring_place or (order and 0 < other_order != order):
                return None
            order = order or other_order
            if not order:
                order = 1
                if kind_pi is not None and other in pi:
                    partners[other].append(atom)
                    partners[atom].append(other)
            used[other] += order
            used[atom] += order
            index = _INDEX[span - 1]
            ring_place[other, atom] = len(symbols)
            symbols.append(_RING[order][len(index)])
            symbols += index
        if mirrored and len(rings) > 1:
            centres.append((places[atom], mirrored, around))

    if branches or open_rings:
        return None
    pairs = _double_bonds(pi, partners, used) if pi else []
    if pairs is None:
        return None
    for atom, other in pairs:
        used[atom] += 1
        used[other] += 1
        place = ring_place.get((atom, other))
        if place is None:
            place = places[other]
            start = branch_place.get(other)
            if start is not None:
                symbols[start] = "[=" + symbols[start][1:]
        symbols[place] = "[=" + symbols[place][1:]
    if any(map(operator.gt, used, capacity)):
        return None
    for place, mirrored, around in centres:
        if _is_odd(around):
            symbols[place] = mirrored
    return [symbol for symbol in symbols if symbol] if blanks else symbols


def _double_bonds(
    pi: dict[int, Pi], partners: dict[int, list[int]], used: list[int]
) -> list[tuple[int, int]] | None:
    """Aromatic bonds to be doubled, as (lower, higher) atom; None: ask the library.

    Atoms with the fewest free neighbours go first, of these the one that was written
    first; it pairs with its first free neighbour, in the order in which the bonds were
    written.

    Args:
        pi: aromatic atoms, in the order of the text.
        partners: of each, the neighbours over aromatic bonds.
        used: of every atom, valences in use.
    """
    open_atoms = {
        atom
        for atom, near in partners.items()
        if near and _takes_double_bond(pi[atom], used[atom], len(near))
    }
    near_of = {
        atom: [other for other in partners[atom] if other in open_atoms]
        for atom in open_atoms
    }
    free = {atom: len(near) for atom, near in near_of.items()}
    # (free neighbours, atom) as one number; outdated entries stay and are skipped.
    queue = [n << 16 | atom for atom, n in free.items()]
    heapq.heapify(queue)
    pairs = []
    while queue:
        atom = heapq.heappop(queue) & 0xFFFF
        if atom not in open_atoms or not free[atom]:
            continue
        other = next(near for near in near_of[atom] if near in open_atoms)
        open_atoms.remove(atom)
        open_atoms.remove(other)
        pairs.append((atom, other) if atom < other else (other, atom))
        for near in near_of[atom] + near_of[other]:
            if near in open_atoms:
                left = free[near] = free[near] - 1
                if left:
                    heapq.heappush(queue, left << 16 | near)
    return None if open_atoms else pairs


@functools.cache
def _takes_double_bond(pi: Pi, used: int, partners: int) -> bool:
    """Whether an aromatic atom must get a double bond within the aromatic system.

    Args:
        pi: the atom.
        used: valences in use, aromatic bonds counted as single.
        partners: number of aromatic bonds.
    """
    element, charge, hydrogens = pi
    valences = AROMATIC_VALENCES[element]
    if hydrogens is None:
        return used not in valences
    bound = max(0, charge) + hydrogens + used + partners // 2 + partners % 2
    unpaired = max(0, VALENCE_ELECTRONS[element] - bound) % 2
    used += hydrogens
    if used + charge in valences:
        return False
    left = valences[-1] - charge - used - unpaired
    return left >= 0 and left % 2 == 1


def _is_odd(around: list[list[int] | None]) -> bool:
    """Whether SELFIES, which writes rings in another order, mirrors a centre.

    Args:
        around: ring numbers of the atom as SMILES writes them: None for one that
            closes here, else (this atom, order, atom at which it closes).
    """
    # SELFIES has first the rings that close here, then the others by closing atom.
    ranks = [-1 if ring is None else ring[2] for ring in around]
    swaps = sum(ranks[i] > ranks[j] for j in range(len(ranks)) for i in range(j))
    return swaps % 2 == 1


def _learn(token: str) -> _Kind | None:
    """Meaning of a token that was not met before; None: ask the library."""
    match = _PARTS.fullmatch(token)
    if match is None:
        return None
    bond, atom, numbers = match.groups()
    charge, hydrogens, plain, mirrored = 0, None, atom, ""
    element = atom.capitalize()
    if atom[0] == "[":
        parts = _BRACKET.fullmatch(atom)
        if parts is None:
            return None
        written, hand, hydrogens, sign = parts.groups()
        element = written.capitalize()
        plain = atom.replace(written, element, 1)
        hydrogens = 0 if hydrogens is None else int(hydrogens or 1)
        if sign:
            digits = sign.lstrip("+-")
            charge = int(digits) if digits else len(sign)
            charge = -charge if sign[0] == "-" else charge
        if hand:
            other_hand = "@" if hand == "@@" else "@@"
            mirrored = plain.replace(hand, other_hand, 1)
    else:
        written = atom
    is_aromatic = written[0].islower()
    if is_aromatic and element not in AROMATIC_VALENCES:
        return None
    try:
        names = [
            selfies.encoder(a, strict=False) if a else "" for a in (plain, mirrored)
        ]
    except selfies.EncoderError:
        return None
    room = selfies.get_semantic_constraints()
    capacity = room.get(f"{element}{charge:+}" if charge else element, room["?"])
    bond_text = bond if bond in ("=", "#", "/", "\\") else ""
    symbols = [f"[{bond_text}{name[1:]}" if name else "" for name in names]
    rings = tuple((number, _ORDERS[b]) for b, number in _RINGS.findall(numbers))
    if len(_KINDS) >= _KINDS_KEPT:
        _KINDS.clear()
    kind = _KINDS[token] = _Kind(
        order=_ORDERS[bond],
        symbol=symbols[0],
        mirrored=symbols[1],
        pi=(element, charge, hydrogens) if is_aromatic else None,
        capacity=capacity - (hydrogens or 0),
        rings=rings,
    )
    return kind
