"""SMILES to SELFIES symbols and back, in the alphabet of SELFIES 2.

Symbols are those of the ``selfies`` library under its default rules, which are strict:
a molecule that these rules cannot say is refused, never cut to fit. The "." between
the parts of a salt is a symbol of its own.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import selfies

from chemscale_jax.chem.selfies_encoder import fast_symbols
from chemscale_jax.chem.smiles import read_molecule

REASONS = {
    "selfies_syntax": "SELFIES knows no such text: dative bonds, wildcards, ...",
    "selfies_kekulisation": "SELFIES finds no pattern of double bonds",
    "selfies_valence": "an atom has more bonds than SELFIES allows it",
    "selfies_size": "a branch or ring is longer than SELFIES can count",
    "selfies_error": "the library failed",
}
_BEGINNINGS = {
    "failed to parse": "selfies_syntax",
    "kekulization": "selfies_kekulisation",
    "input violates": "selfies_valence",
}
# Three index symbols count to 16**3; four cannot be read back.
_LONGEST_SPAN = 16**3
# Between them these use every rule of the fast encoder.
_PROBES = (
    "C[C@H](N)C(=O)O",
    "C[C@@]12CCC(=O)[C@H]1[C@@H](C)CC2",
    "F/C=C/C#N",
    "O=[N+]([O-])c1ccc2[nH]c3ccccc3c2c1",
    "[Na+].[O-]S(=O)(=O)c1cc[n+](CCCCCCCCCCCCCCCCCCC(=O)NC2CC2)cc1",
    "c1ccc2c(c1)c1ccccc1s2.[13CH4].[nH]1nnc2ccsc12",
    "O=C1C=CC(=O)C=C1-c1c[se]cc1.C[Si](C)(C)O[B-](F)(F)F",
)


class Encoded(NamedTuple):
    """Symbols of a molecule, or why there are none."""

    symbols: list[str]
    reason: str = ""  # "" or one of ``REASONS``, or of ``smiles.REASONS``
    message: str = ""


class SelfiesError(ValueError):
    """A molecule has no SELFIES, or symbols are no SELFIES; ``reason`` is a code."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def split(text: str) -> list[str]:
    """The symbols of a SELFIES string.

    Raises:
        SelfiesError: a bracket is not closed, or text stands between symbols.
    """
    try:
        symbols = list(selfies.split_selfies(text))
    except ValueError as error:
        raise SelfiesError(
            "selfies_syntax", f"{text!r} is no SELFIES: {error}"
        ) from error
    if "".join(symbols) != text or not all(map(_is_symbol, symbols)):
        raise SelfiesError(
            "selfies_syntax",
            f"{text!r} is no SELFIES: write every symbol in square brackets",
        )
    return symbols


def _is_symbol(symbol: str) -> bool:
    return symbol == "." or symbol[0] == "["


def encode(smiles: str) -> list[str]:
    """SELFIES symbols of a molecule, its atoms in the order of the text.

    A text that SELFIES refuses is tried once more as RDKit writes it, with charges
    separated: N(=O)=O as [N+](=O)[O-].

    Raises:
        SelfiesError: it has no SELFIES.
    """
    encoded = try_encode(smiles)
    if encoded.reason:
        raise SelfiesError(encoded.reason, f"{smiles!r}: {encoded.message}")
    return encoded.symbols


def try_encode(smiles: str) -> Encoded:
    """As ``encode``, with the reason of a failure in the result."""
    encoded = _encode_as_written(smiles)
    if not encoded.reason:
        return encoded
    parsed = read_molecule(smiles)
    if parsed.reason:
        return Encoded([], parsed.reason, parsed.message)
    if parsed.canonical == smiles:
        return encoded
    return _encode_as_written(parsed.canonical)


def decode(symbols: Iterable[str]) -> str:
    """SMILES of SELFIES symbols; any sequence of valid symbols is a molecule.

    Raises:
        SelfiesError: something is not a symbol of SELFIES 2.
    """
    text = "".join(symbols)
    split(text)  # the library passes over text between symbols
    try:
        return str(selfies.decoder(text))
    except selfies.DecoderError as error:
        what = str(error).splitlines()[0]
        raise SelfiesError("selfies_syntax", f"cannot decode: {what}") from error
    except (RecursionError, ValueError, IndexError) as error:
        raise SelfiesError("selfies_error", f"cannot decode: {error!r}") from error


def round_trip(smiles: str, symbols: Iterable[str]) -> bool:
    """Whether symbols decode to the molecule of a SMILES string."""
    wanted = read_molecule(smiles)
    found = read_molecule(decode(symbols))
    return not found.reason and found.canonical == wanted.canonical


def _encode_as_written(smiles: str) -> Encoded:
    if _fast_encoder_agrees():
        symbols = fast_symbols(smiles)
        if symbols is not None:
            return Encoded(symbols)
    try:
        symbols = split(selfies.encoder(smiles))
    except selfies.EncoderError as error:
        return Encoded([], *_explain(str(error)))
    except Exception as error:  # the library fails in many ways on odd texts
        return Encoded([], "selfies_error", f"selfies: {error!r}")
    if len(symbols) > _LONGEST_SPAN and any(s[-3:] in ("h4]", "g4]") for s in symbols):
        return Encoded([], "selfies_size", f"a span of more than {_LONGEST_SPAN}")
    return Encoded(symbols)


@functools.cache
def _fast_encoder_agrees() -> bool:
    """Whether the installed library still writes what ``fast_symbols`` writes."""
    return all(
        fast_symbols(smiles) == list(selfies.split_selfies(selfies.encoder(smiles)))
        for smiles in _PROBES
    )


def _explain(message: str) -> tuple[str, str]:
    """Reason and one line from the library's message of several lines."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reason = "selfies_error"
    for beginning, code in _BEGINNINGS.items():
        if lines[0].startswith(beginning):
            reason = code
    details = [line for line in lines if "bond(s)" in line]
    return reason, f"selfies: {details[0].strip('[]') if details else lines[0]}"
