"""SMILES cut into symbols: bracket atoms, two-letter elements, ring numbers %nn.

Joining the symbols gives the text again. The text is taken as it is: that it is a
molecule is the business of ``smiles.read_molecule``.
"""

import re
from collections.abc import Iterable

from chemscale_jax.chem.selfies_codec import Encoded

SYMBOL_PATTERN = (
    r"\[[^\[\]\s]+\]|Br|Cl|[BCNOPSFI]|[bcnops]|->|<-|%\d\d|%\(\d+\)|[\d=#$:/\\.()-]"
)
_SYMBOLS = re.compile(SYMBOL_PATTERN)


class SmilesSymbolError(ValueError):
    """A text has characters that are no SMILES."""


def split(text: str) -> list[str]:
    """The symbols of a SMILES string.

    Raises:
        SmilesSymbolError: a character belongs to no symbol.
    """
    symbols = _SYMBOLS.findall(text)
    if "".join(symbols) == text:
        return symbols
    at = 0
    for match in _SYMBOLS.finditer(text):
        if match.start() != at:
            break
        at = match.end()
    raise SmilesSymbolError(
        f"{text!r} is no SMILES: no symbol begins at character {at + 1}, {text[at]!r}"
    )


encode = split


def try_encode(smiles: str) -> Encoded:
    """As ``split``, with the reason of a failure in the result."""
    if not smiles:
        return Encoded([], "empty", "the line has no SMILES")
    try:
        return Encoded(split(smiles))
    except SmilesSymbolError as error:
        return Encoded([], "smiles_symbol", str(error))


def decode(symbols: Iterable[str]) -> str:
    """The text of symbols."""
    return "".join(symbols)
