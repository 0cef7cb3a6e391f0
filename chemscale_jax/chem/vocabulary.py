"""Which token has which id: the word list of a language model over molecules.

A token is one whole symbol of the notation, so that nothing is ever split. The five
special tokens come first, with the ids of the published ChemGPT tokenizers.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SPECIALS = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
NOTATIONS = ("selfies", "selfies-1", "smiles")
CONTINUES = "##"  # begins a word piece that belongs to the piece before it
LONGEST_WORD = 100  # characters; the published tokenizers cut no longer word
SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Tokens by id.

    Attributes:
        tokens: place = id; the special tokens are the first five.
        notation: what the symbols are: "selfies" (the alphabet of SELFIES 2),
            "selfies-1" (that of SELFIES 1.0.4) or "smiles".
        word_pieces: a symbol that is no token is cut into the longest known pieces
            from the left (WordPiece), as the published tokenizers do, instead of
            becoming one [UNK].
    """

    tokens: tuple[str, ...]
    notation: str = "selfies"
    word_pieces: bool = False

    unk = 0
    pad = 1
    begin = 2
    end = 3
    mask = 4
    specials = len(SPECIALS)

    def __post_init__(self) -> None:
        if self.tokens[: self.specials] != SPECIALS:
            found = ", ".join(self.tokens[: self.specials]) or "nothing"
            raise ValueError(
                f"a vocabulary begins with {', '.join(SPECIALS)}; this one begins "
                f"with {found}"
            )
        if self.notation not in NOTATIONS:
            raise ValueError(
                f"{self.notation!r} is not a notation of a vocabulary; choose one of "
                f"{', '.join(NOTATIONS)}"
            )
        if len(self.ids) != len(self.tokens):
            twice = next(t for t in self.tokens if self.tokens.count(t) > 1)
            raise ValueError(f"the vocabulary lists {twice!r} twice; list it once")
        if len(self.tokens) > 2**16:
            raise ValueError(
                f"a vocabulary of {len(self.tokens)} tokens; ids are 16-bit numbers: "
                f"keep at most {2**16}"
            )

    @classmethod
    def from_counts(
        cls, counts: Mapping[str, int], notation: str, max_size: int = 10_000
    ) -> "Vocabulary":
        """The most frequent symbols, by falling count, ties in the order of the text.

        Args:
            counts: how often each symbol occurs in the training text.
            notation: of the symbols.
            max_size: number of tokens at most, the special ones included.
        """
        ranked = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
        ranked = [symbol for symbol in ranked if symbol not in SPECIALS]
        return cls(SPECIALS + tuple(ranked[: max_size - cls.specials]), notation)

    @property
    def size(self) -> int:
        """Number of tokens, the special ones included."""
        return len(self.tokens)

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """Id of each token."""
        return {token: place for place, token in enumerate(self.tokens)}

    @functools.cached_property
    def symbol_ids(self) -> dict[str, int]:
        """Id of each token that is a whole symbol: no special one, no later piece."""
        # Text that spells "[CLS]" is unknown text, not the beginning of a molecule.
        return {
            token: place
            for token, place in self.ids.items()
            if place >= self.specials
            and not (self.word_pieces and token.startswith(CONTINUES))
        }

    def encode(self, symbols: Iterable[str]) -> np.ndarray:
        """Ids of the symbols of one molecule, without begin and end.

        Args:
            symbols: in order. What is not in the vocabulary becomes ``unk``, after
                an attempt to cut it into word pieces where these are used.

        Returns:
            uint16 array with one id per symbol (more where a symbol was cut).
        """
        known = self.symbol_ids
        if not self.word_pieces:
            return np.array([known.get(symbol, 0) for symbol in symbols], np.uint16)
        ids: list[int] = []
        for symbol in symbols:
            found = known.get(symbol)
            ids.extend(self._pieces(symbol) if found is None else [found])
        return np.array(ids, np.uint16)

    def _pieces(self, symbol: str) -> list[int]:
        """Greedy longest match from the left; the whole is unknown if a rest is."""
        if len(symbol) > LONGEST_WORD:
            return [self.unk]
        ids: list[int] = []
        start = 0
        while start < len(symbol):
            prefix = CONTINUES if start else ""
            for stop in range(len(symbol), start, -1):
                found = self.ids.get(prefix + symbol[start:stop])
                if found is not None and found >= self.specials:
                    ids.append(found)
                    start = stop
                    break
            else:
                return [self.unk]
        return ids

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Symbols of ids; special tokens are left out, word pieces are joined."""
        symbols: list[str] = []
        for i in ids:
            if i < self.specials:
                continue
            token = self.tokens[i]
            if self.word_pieces and token.startswith(CONTINUES) and symbols:
                symbols[-1] += token[len(CONTINUES) :]
            else:
                symbols.append(token)
        return symbols

    def coverage(
        self,
        counts: Mapping[str, int],
        molecules: int | None = None,
        molecules_with_unknown: int | None = None,
    ) -> dict[str, Any]:
        """How much of a text this vocabulary knows.

        Args:
            counts: how often each symbol occurs in the text.
            molecules: number of molecules of the text.
            molecules_with_unknown: of these, how many hold an unknown symbol.

        Returns:
            numbers of symbols and of distinct symbols, the unknown ones among them,
            every unknown symbol with its count (most frequent first), the symbols that
            are cut into word pieces, and the tokens that the text does not use.
        """
        known = self.symbol_ids
        absent = {s: n for s, n in counts.items() if s not in known}
        unknown = {s: n for s, n in absent.items() if self.unk in self.encode([s])}
        total, lost = sum(counts.values()), sum(unknown.values())
        report = {
            "vocabulary": self.size,
            "symbols": total,
            "unknown_symbols": lost,
            "unknown_share": lost / total if total else 0.0,
            "distinct_symbols": len(counts),
            "distinct_unknown": len(unknown),
            "unknown": dict(sorted(unknown.items(), key=lambda item: (-item[1], item))),
            "cut_into_pieces": [s for s in absent if s not in unknown],
            "unused_tokens": [token for token in known if not counts.get(token)],
        }
        if molecules is not None:
            report["molecules"] = molecules
        if molecules_with_unknown is not None:
            report["molecules_with_unknown"] = molecules_with_unknown
        return report

    def to_json(self) -> dict[str, Any]:
        """As a dictionary that ``json`` can write."""
        return {
            "schema": SCHEMA,
            "notation": self.notation,
            "word_pieces": self.word_pieces,
            "tokens": list(self.tokens),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Vocabulary":
        """From what ``to_json`` gives.

        Raises:
            ValueError: it is no vocabulary, or one of a later version.
        """
        if "tokens" not in record or "schema" not in record:
            raise ValueError(
                "this is no vocabulary: it has no field 'schema' or 'tokens'; a "
                "Hugging Face tokenizer.json is read with read_hf_tokenizer"
            )
        if record["schema"] != SCHEMA:
            raise ValueError(
                f"the vocabulary has schema {record['schema']}, this program reads "
                f"{SCHEMA}; use the version of the program that wrote it"
            )
        return cls(tuple(record["tokens"]), record["notation"], record["word_pieces"])

    def save(self, path: str | Path) -> None:
        """Write as a JSON file."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a file that ``save`` wrote."""
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} is not a JSON file ({error}); give the vocabulary.json that "
                "tokenising wrote"
            ) from error
        return cls.from_json(record)
