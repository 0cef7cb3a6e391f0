"""The alphabet of SELFIES 1.0.4, which the published ChemGPT models speak.

A molecule is written with the current grammar and each symbol is renamed; what a model
wrote is renamed back and read with the current grammar. The two versions have the same
symbols under different names:

    [Branch1] [=Branch1] [#Branch1]     [Branch1_1] [Branch1_2] [Branch1_3]
    [=Ring1]                            [Expl=Ring1]
    [NH1+1] [O-1] [CH0]                 [NH+expl] [O-expl] [Cexpl]

Their encoders choose different Kekule forms of some aromatic systems, and version 1
had its own idea of the handedness of ring atoms: handedness here is that of the current
grammar. A ring bond whose ends have different stereo marks has no name in version 1.
"""

import functools
import re
from collections.abc import Iterable

from chemscale_jax.chem import selfies_codec
from chemscale_jax.chem.selfies_codec import Encoded, SelfiesError, split

__all__ = ["decode", "encode", "split", "to_current", "to_old", "try_encode"]

_PLAIN = frozenset(("B", "C", "N", "O", "S", "P", "F", "Cl", "Br", "I"))
_SAME = frozenset((".", "[nop]", "[epsilon]"))
_BRANCHES = ("", "=", "#")
_RING_BONDS = {"": "", "=": "Expl=", "#": "Expl#", "//": "Expl/", "\\\\": "Expl\\"}
# bond, isotope, element, handedness, hydrogens, charge
_CURRENT_ATOM = re.compile(r"\[([=#/\\]?)(\d*)([A-Z][a-z]?)(@{0,2})(H\d)?([+-]\d+)?\]")
# Version 1 leaves some aromatic atoms as they are: [teexpl].
_OLD_ATOM = re.compile(
    r"\[([=#/\\]?)(\d*)([A-Z][a-z]?|[a-z]{1,2})(@{0,2})(H\d?)?(\++|-+|[+-]\d+)?(?::\d+)?expl\]"
)


def _table() -> dict[str, str]:
    names = {}
    for n in (1, 2, 3):
        for kind, bond in enumerate(_BRANCHES, 1):
            names[f"[{bond}Branch{n}]"] = f"[Branch{n}_{kind}]"
        for bond, old in _RING_BONDS.items():
            names[f"[{bond}Ring{n}]"] = f"[{old}Ring{n}]"
    for bond in ("", "=", "#", "/", "\\"):
        for element in _PLAIN:
            names[f"[{bond}{element}]"] = f"[{bond}{element}]"
    return names


_OLD = _table()
_CURRENT = {old: current for current, old in _OLD.items()}


@functools.lru_cache(maxsize=10_000)
def to_old(symbol: str) -> str:
    """The name in SELFIES 1.0.4 of a current symbol.

    Raises:
        SelfiesError: it has none.
    """
    if symbol in _SAME:
        return symbol
    if symbol in _OLD:
        return _OLD[symbol]
    match = _CURRENT_ATOM.fullmatch(symbol)
    if match is None:
        raise SelfiesError(
            "selfies_1_symbol",
            f"the symbol {symbol} has no name in SELFIES 1.0.4; leave the molecule "
            "out, or use a vocabulary of current SELFIES",
        )
    bond, isotope, element, hand, hydrogens, charge = (g or "" for g in match.groups())
    hydrogens = {"H1": "H", "H0": ""}.get(hydrogens, hydrogens)
    charge = {"+1": "+", "-1": "-"}.get(charge, charge)
    return f"[{bond}{isotope}{element}{hand}{hydrogens}{charge}expl]"


@functools.lru_cache(maxsize=10_000)
def to_current(symbol: str) -> str:
    """The current name of a symbol of SELFIES 1.0.4.

    Raises:
        SelfiesError: it is no symbol of that version.
    """
    if symbol in _SAME:
        return symbol
    if symbol in _CURRENT:
        return _CURRENT[symbol]
    match = _OLD_ATOM.fullmatch(symbol)
    if match is None:
        raise SelfiesError(
            "selfies_1_symbol", f"{symbol} is no symbol of SELFIES 1.0.4"
        )
    bond, isotope, element, hand, hydrogens, sign = (g or "" for g in match.groups())
    element = element.capitalize()
    hydrogens = {"H": "H1", "H0": ""}.get(hydrogens, hydrogens)
    digits = sign.lstrip("+-")
    charge = int(digits) if digits else len(sign)
    sign = f"{sign[0]}{charge}" if charge else ""
    if element in _PLAIN and not (isotope or hand or hydrogens or sign):
        hydrogens = "H0"
    return f"[{bond}{isotope}{element}{hand}{hydrogens}{sign}]"


def encode(smiles: str) -> list[str]:
    """Symbols of SELFIES 1.0.4 of a molecule.

    Raises:
        SelfiesError: it has none.
    """
    return [to_old(symbol) for symbol in selfies_codec.encode(smiles)]


def try_encode(smiles: str) -> Encoded:
    """As ``encode``, with the reason of a failure in the result."""
    try:
        return Encoded(encode(smiles))
    except SelfiesError as error:
        return Encoded([], error.reason, str(error))


def decode(symbols: Iterable[str]) -> str:
    """SMILES of symbols of SELFIES 1.0.4, read with the current grammar.

    Raises:
        SelfiesError: something is no symbol of that version.
    """
    return selfies_codec.decode(to_current(symbol) for symbol in symbols)
