"""From parts to a store: vocabulary, unknown symbols, ledger, coverage, round trip."""

import csv
import dataclasses
import heapq
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from chemscale_jax.chem import selfies_bridge, selfies_codec, smiles_tokens
from chemscale_jax.chem.smiles import molecule_key, read_molecule
from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text.encode_lines import shorten
from chemscale_jax.data.text.molecule_text import TextSource
from chemscale_jax.data.text.token_parts import OVERFLOW_SYMBOL, Block, TokenParts
from chemscale_jax.data.text.token_store import (
    LEDGER_COLUMNS,
    LEDGER_FILE,
    StoreWriter,
    map_tokens,
)

UNKNOWN = "unknown_symbol"
ON_UNKNOWN = ("drop", "keep", "fail")
_MOLECULES_PER_BLOCK = 20_000
# Cells of the table of molecules by symbols that is made for a block.
_CELLS = 2**24
_DIFFERENCES_SHOWN = 10
# Each raises a ValueError where symbols have no meaning.
_DECODERS: dict[str, Callable[[Sequence[str]], str]] = {
    "selfies": selfies_codec.decode,
    "selfies-1": selfies_bridge.decode,
    "smiles": smiles_tokens.decode,
}


@dataclasses.dataclass(frozen=True)
class Finish:
    """How parts become a store.

    Attributes:
        vocabulary: of the ids; None to make one of the symbols.
        max_vocabulary: size of one that is made, special tokens included.
        on_unknown: "drop" molecules with a symbol that is not in the vocabulary (they
            are in the ledger then), or "keep" them with [UNK] in its place, or "fail".
        round_trip: number of molecules that are decoded and compared; None for one in
            50, at least 200 and at most 1,000.
        seed: of the choice of these.
    """

    vocabulary: Vocabulary | None = None
    max_vocabulary: int = 10_000
    on_unknown: str = "drop"
    round_trip: int | None = None
    seed: int = 0

    def sample_size(self, molecules: int) -> int:
        """How many of these molecules are decoded and compared."""
        wanted = self.round_trip
        if wanted is None:
            wanted = min(max(molecules // 50, 200), 1000)
        return min(wanted, molecules)


def finish_store(
    folder: pathlib.Path,
    parts: TokenParts,
    source: TextSource,
    notation: str,
    how: Finish,
    facts: Mapping[str, Any],
) -> None:
    """Writes the store of complete parts.

    Args:
        folder: of the store.
        parts: all of them.
        source: what they were made from.
        notation: of the symbols.
        how: vocabulary and checks.
        facts: for ``store.json``.

    Raises:
        UserError: there is an unknown symbol and it must not be.
    """
    names = [*parts.symbols, OVERFLOW_SYMBOL]
    counts = np.zeros(len(names), np.int64)
    for block in parts.blocks(_MOLECULES_PER_BLOCK):
        counts += np.bincount(block.tokens, minlength=len(names))
    vocabulary = how.vocabulary or Vocabulary.from_counts(
        dict(zip(parts.symbols, counts.tolist(), strict=False)),
        notation,
        how.max_vocabulary,
    )
    ids = [vocabulary.encode([name]) for name in names]
    lacks = np.array([vocabulary.unk in some for some in ids]) & (counts > 0)
    if how.on_unknown == "fail" and lacks.any():
        raise unknown_error([names[i] for i in np.flatnonzero(lacks)], vocabulary)
    coverage = _Coverage(names, counts, lacks)
    dropped = parts.folder / "dropped.part"
    with (
        StoreWriter(folder, vocabulary) as writer,
        dropped.open("w", encoding="utf-8", newline="") as drops,
    ):
        at_once = max(1, min(_MOLECULES_PER_BLOCK, _CELLS // len(names)))
        for block in parts.blocks(at_once):
            owner = np.repeat(np.arange(len(block.lengths)), block.lengths)
            present = coverage.count(block, owner)
            stays = np.ones(len(block.lengths), bool)
            if how.on_unknown == "drop":
                stays[present[:, lacks].any(axis=1)] = False
                for row in np.flatnonzero(~stays):
                    absent = [names[i] for i in np.flatnonzero(present[row] & lacks)]
                    csv.writer(drops, lineterminator="\n").writerow(
                        (block.lines[row], UNKNOWN, "", shorten(" ".join(absent)))
                    )
            tokens, lengths = _to_ids(
                block.tokens[stays[owner]], block.lengths[stays], ids
            )
            writer.append(
                tokens,
                lengths,
                block.lines[stays],
                block.keys[stays],
                block.heavy_atoms[stays],
            )
        drops.close()
        failed = _write_ledger(folder / LEDGER_FILE, parts, dropped, source)
        dropped.unlink()
        writer.close()
        lines = parts.progress.lines
        assert lines == writer.molecules + failed.total(), "a line got lost"
        round_trip = _round_trip(folder, writer, how)
        writer.finish(
            {
                "lines": lines,
                "failed": dict(sorted(failed.items())),
                **facts,
                "round_trip": round_trip,
            },
            {"on_unknown": how.on_unknown, **coverage.report(vocabulary, ids)},
        )


def unknown_error(symbols: Sequence[str], vocabulary: Vocabulary) -> UserError:
    """What to tell a user who wants no unknown symbols."""
    shown = " ".join(symbols[:10]) + (" ..." if len(symbols) > 10 else "")
    return UserError(
        f"{len(symbols)} symbols are not in the vocabulary of {vocabulary.size} "
        f"tokens: {shown}; --on-unknown=drop leaves such molecules out and lists them, "
        "keep writes [UNK]; without --vocabulary one is made from the data"
    )


class _Coverage:
    """Counts symbols, and molecules that have them."""

    def __init__(self, names: list[str], counts: np.ndarray, lacks: np.ndarray):
        self._names, self._counts, self._lacks = names, counts, lacks
        self._molecules_with = np.zeros(len(names), np.int64)
        self._molecules = self._with_unknown = 0

    def count(self, block: Block, owner: np.ndarray) -> np.ndarray:
        """Adds molecules; returns which symbol is in which, (m, symbols)."""
        present = np.zeros((len(block.lengths), len(self._names)), bool)
        present[owner, block.tokens] = True
        self._molecules_with += present.sum(axis=0)
        self._molecules += len(present)
        self._with_unknown += int(present[:, self._lacks].any(axis=1).sum())
        return present

    def report(self, vocabulary: Vocabulary, ids: list[np.ndarray]) -> dict[str, Any]:
        """Content of coverage.json; molecules are those before any was dropped."""
        used = [int(i) for i in np.argsort(-self._counts, kind="stable")]
        used = [i for i in used if self._counts[i]]

        def numbers(i: int) -> dict[str, int]:
            return {
                "count": int(self._counts[i]),
                "molecules": int(self._molecules_with[i]),
            }

        total = int(self._counts.sum())
        unknown = int(self._counts[self._lacks].sum())
        return {
            "vocabulary_size": vocabulary.size,
            "molecules": self._molecules,
            "molecules_with_unknown": self._with_unknown,
            "symbols": total,
            "unknown_symbols": unknown,
            "unknown_share": unknown / total if total else 0.0,
            "unknown": {self._names[i]: numbers(i) for i in used if self._lacks[i]},
            "cut_into_pieces": {
                self._names[i]: numbers(i) for i in used if len(ids[i]) > 1
            },
            "known": {self._names[i]: numbers(i) for i in used if not self._lacks[i]},
        }


def _to_ids(
    tokens: np.ndarray, lengths: np.ndarray, ids: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Provisional numbers to ids, of which a symbol may have several."""
    sizes = np.array([len(some) for some in ids])
    flat = np.concatenate(ids)
    starts = np.cumsum(sizes) - sizes
    if (sizes == 1).all():
        return flat[tokens], lengths
    grown = sizes[tokens]
    ends = np.cumsum(grown)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - grown, grown)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    new_lengths = np.bincount(owner, grown, len(lengths)).astype(np.int64)
    return flat[np.repeat(starts[tokens], grown) + within], new_lengths


def _write_ledger(
    path: pathlib.Path, parts: TokenParts, dropped: pathlib.Path, source: TextSource
) -> Counter[str]:
    """Joins the lines that failed and those that were dropped; counts the reasons."""
    failed: Counter[str] = Counter()
    with (
        path.open("w", encoding="utf-8", newline="") as out,
        parts.ledger() as failures,
        dropped.open(encoding="utf-8", newline="") as drops,
    ):
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(LEDGER_COLUMNS)
        rows = heapq.merge(
            csv.reader(failures),
            _with_smiles(drops, source),
            key=lambda row: int(row[0]),
        )
        for row in rows:
            failed[row[1]] += 1
            writer.writerow(row)
    return failed


def _with_smiles(drops: IO[str], source: TextSource) -> Iterator[list[str]]:
    """Rows of dropped molecules, with the SMILES that the source has in these lines."""
    rows = csv.reader(drops)
    row = next(rows, None)
    for chunk in source.chunks() if row is not None else ():
        while row is not None and int(row[0]) < chunk.first + len(chunk.lines):
            smiles, _, _ = source.layout.read(chunk.lines[int(row[0]) - chunk.first])
            yield [row[0], row[1], shorten(smiles), row[3]]
            row = next(rows, None)
        if row is None:
            return


def _round_trip(
    folder: pathlib.Path, writer: StoreWriter, how: Finish
) -> dict[str, Any]:
    """Decodes some molecules and compares them with what they were."""
    vocabulary = writer.vocabulary
    tokens = map_tokens(folder / "tokens.bin")
    offsets, lines, keys = (
        np.load(folder / f"{name}.npy") for name in ("offsets", "lines", "keys")
    )
    decode = _DECODERS[vocabulary.notation]
    size = how.sample_size(writer.molecules)
    chosen = np.random.default_rng(how.seed).choice(writer.molecules, size, False)
    differences = []
    for i in np.sort(chosen):
        symbols = vocabulary.decode(tokens[offsets[i] : offsets[i + 1]].tolist())
        try:
            smiles = decode(symbols)
            found = read_molecule(smiles)
        except ValueError as error:
            why = shorten(f"({error})")
            differences.append({"line": int(lines[i]), "decoded": why})
            continue
        if found.reason or molecule_key(found.canonical) != keys[i, 0]:
            differences.append({"line": int(lines[i]), "decoded": shorten(smiles)})
    return {
        "molecules": size,
        "equal": size - len(differences),
        "share": (size - len(differences)) / size if size else None,
        "seed": how.seed,
        "differences": differences[:_DIFFERENCES_SHOWN],
    }
