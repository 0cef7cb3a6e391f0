"""Beginnings of molecules for a language model to go on with.

A SELFIES symbol after ``[BranchN]`` or ``[RingN]`` is a number: a prompt that is cut
there makes the next symbols, whatever they are meant as, parts of that number. So cuts
are moved to the nearest earlier place where no index symbol is owed.

Whether a generated molecule still holds its prompt is asked of Kekule forms, bond by
bond: a ring that the prompt leaves open is not aromatic yet.
"""

import functools
import re
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

from chemscale_jax.chem import selfies_bridge, selfies_codec, smiles_tokens
from chemscale_jax.chem.smiles import read_molecule

# [Branch1] [=Branch2], [Branch1_2] of SELFIES 1; [Ring1] [=Ring2] [-/Ring1]
# [Expl=Ring1]: the digit is how many index symbols follow.
_INDEXED = re.compile(r"^\[[^\]]*?(?:Branch(\d)(?:_\d)?|Ring(\d))\]$")
# [C] [=13C@@H1+1] [\O-1], and the "expl" forms of SELFIES 1.
_ATOM = re.compile(r"^\[[=#/\\]?\d*([A-Z][a-z]?)@{0,2}(?:H\d*)?([+-]\d*)?(?:expl)?\]$")
_SMILES_ATOM = re.compile(
    r"^(?:(Cl|Br|[BCNOPSFIbcnops])"
    r"|\[\d*([A-Z][a-z]?|[a-z][a-z]?)@{0,2}(?:H\d*)?([+-]+\d*)?(?::\d+)?\])$"
)
_LENGTH = re.compile(r"^(\d+|l-\d+)$")


class SymbolFacts(NamedTuple):
    """What a symbol is."""

    owes: int = 0  # index symbols that follow it
    element: str = ""  # of an atom; "" for all else
    charged: bool = False


class Prompt(NamedTuple):
    """The beginning of a molecule."""

    symbols: tuple[str, ...]
    # What generated molecules should hold: SMILES as the decoder writes it, in Kekule
    # form; "" where nothing is asked of them.
    fragment: str = ""
    source: str = ""  # SMILES that the prompt is cut from


class Generated(NamedTuple):
    """Symbols that a model wrote, and the fragment they should hold ("": none)."""

    symbols: Sequence[str]
    fragment: str = ""


class Reading(NamedTuple):
    """What such symbols are."""

    canonical: str  # "" where it is no molecule
    kept: bool | None


@functools.lru_cache(maxsize=20_000)
def symbol_facts(symbol: str, notation: str = "selfies") -> SymbolFacts:
    """What a symbol of a notation ("selfies", "selfies-1", "smiles") is."""
    if notation == "smiles":
        atom = _SMILES_ATOM.match(symbol)
        if not atom:
            return SymbolFacts()
        element = (atom[1] or atom[2]).capitalize()
        return SymbolFacts(element=element, charged=bool(atom[3]))
    if indexed := _INDEXED.match(symbol):
        return SymbolFacts(owes=int(indexed[1] or indexed[2]))
    if atom := _ATOM.match(symbol):
        return SymbolFacts(element=atom[1], charged=bool(atom[2]))
    return SymbolFacts()


def clean_cuts(symbols: Sequence[str], notation: str = "selfies") -> list[int]:
    """Numbers of leading symbols, 1 and more, after which no index symbol is owed."""
    cuts, owed = [], 0
    for place, symbol in enumerate(symbols, start=1):
        owed = owed - 1 if owed else symbol_facts(symbol, notation).owes
        if not owed:
            cuts.append(place)
    return cuts


def wanted_length(rule: str | int, symbols: int) -> int:
    """How many symbols a rule asks for: "10", or "l-3" for all but three.

    Raises:
        ValueError: it is not such a rule, or leaves nothing of the molecule.
    """
    rule = str(rule)
    if not _LENGTH.match(rule):
        raise ValueError(
            f"prompt length {rule!r} is neither a number nor like 'l-3' (the length "
            "of the molecule less three)"
        )
    length = symbols - int(rule[2:]) if rule.startswith("l-") else int(rule)
    if length < 1:
        raise ValueError(
            f"prompt length {rule!r} leaves nothing of a molecule of {symbols} symbols"
        )
    return min(length, symbols)


def cut(symbols: Sequence[str], rule: str | int, notation: str = "selfies") -> int:
    """The last clean cut that is no longer than a rule asks, else the first one."""
    cuts = clean_cuts(symbols, notation)
    if not cuts:
        raise ValueError("the molecule has no place where a prompt can be cut")
    length = wanted_length(rule, len(symbols))
    return max((place for place in cuts if place <= length), default=cuts[0])


def molecule_prompt(
    smiles: str, rule: str | int | None = None, notation: str = "selfies"
) -> Prompt:
    """The first symbols of a molecule.

    Args:
        smiles: of the molecule; its atoms are taken in the order given.
        rule: how many symbols, see `wanted_length`; None: the whole molecule.
        notation: of the symbols.

    Raises:
        ValueError: the molecule cannot be read or written in the notation.
    """
    symbols = encode(smiles, notation)
    if not symbols:
        raise ValueError(f"{smiles!r} has no symbols; give a molecule")
    place = len(symbols) if rule is None else cut(symbols, rule, notation)
    return symbols_prompt(symbols[:place], notation)._replace(source=smiles)


def scaffold_prompt(smiles: str, notation: str = "selfies") -> Prompt:
    """The Bemis-Murcko scaffold of a molecule: its rings and what links them.

    Raises:
        ValueError: the molecule cannot be read, or has no ring.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(f"{smiles!r} is not a SMILES string; mend it or leave it out")
    scaffold = Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(mol))
    if not scaffold:
        raise ValueError(f"{smiles!r} has no ring, so no scaffold; use another prompt")
    return molecule_prompt(scaffold, None, notation)._replace(source=smiles)


def text_prompt(text: str, notation: str = "selfies") -> Prompt:
    """A prompt of written symbols, such as "[C][=C]", as it is.

    Raises:
        ValueError: it is not made of whole symbols, or has none.
    """
    split = smiles_tokens.split if notation == "smiles" else selfies_codec.split
    symbols = split(text)
    if not symbols:
        raise ValueError("the prompt has no symbols; leave it out")
    return symbols_prompt(symbols, notation)


def symbols_prompt(symbols: Sequence[str], notation: str = "selfies") -> Prompt:
    """The prompt of given symbols, and the fragment that they stand for."""
    fragment = "" if notation == "smiles" else decode(symbols, notation)
    return Prompt(tuple(symbols), fragment)


def keeps(fragment: str, smiles: str) -> bool:
    """Whether a molecule holds a fragment, atoms and bond orders alike.

    Args:
        fragment: SMILES in Kekule form, see `Prompt`.
        smiles: of the molecule, as the decoder of the notation wrote it: another
            Kekule form of the same molecule may place its double bonds elsewhere.
    """
    query, mol = _kekule(fragment), _kekule(smiles)
    return query is not None and mol is not None and mol.HasSubstructMatch(query)


def encode(smiles: str, notation: str) -> list[str]:
    """Symbols of a molecule, its atoms in the order given.

    Raises:
        ValueError: it cannot be read, or written in the notation.
    """
    parsed = read_molecule(smiles)
    if parsed.reason:
        raise ValueError(f"{smiles!r} cannot be read: {parsed.message}")
    encoded = _notation(notation).try_encode(smiles.strip())
    if encoded.reason:
        raise ValueError(f"{smiles!r} cannot be written: {encoded.message}")
    return encoded.symbols


def decode(symbols: Sequence[str], notation: str) -> str:
    """SMILES of symbols, as the notation's decoder writes it; "" where it cannot."""
    if notation == "smiles":
        return "".join(symbols)
    try:
        return _notation(notation).decode(symbols)
    except ValueError:
        return ""


def read_generated(generated: Sequence[Generated], notation: str) -> list[Reading]:
    """What generated symbols are.

    Returns:
        of each: the canonical SMILES, "" where it is no molecule; and whether it
        holds its fragment, None where there is none.
    """
    readings = []
    for symbols, fragment in generated:
        decoded = decode(symbols, notation)
        parsed = read_molecule(decoded)
        held = keeps(fragment, decoded) if fragment else None
        readings.append(Reading(parsed.canonical if not parsed.reason else "", held))
    return readings


def _notation(notation: str) -> ModuleType:
    """What writes and reads a notation."""
    if notation == "smiles":
        return smiles_tokens
    return selfies_bridge if notation == "selfies-1" else selfies_codec


def _kekule(smiles: str) -> Chem.Mol | None:
    """A molecule with single, double and triple bonds only, or None."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles, sanitize=False)
        if mol is None:
            return None
        mol.UpdatePropertyCache(strict=False)
        try:
            Chem.Kekulize(mol, clearAromaticFlags=True)
        except Chem.KekulizeException:
            return None
        Chem.FastFindRings(mol)
    return mol
