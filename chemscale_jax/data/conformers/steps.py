"""From lines of text to molecules of a conformer store, in pure functions.

Read lines, leave out repeats, make conformers: the local way (`conform_source`) and the
Apache Beam pipeline call the same functions on the same items, so both write the same
store. A molecule belongs to the shard that its key says, and repeats of it do as well.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.chem.canonical_smiles import canonical_smiles
from chemscale_jax.chem.conformers import ConformerSettings, conform, flat
from chemscale_jax.chem.molecule_record import MoleculeRecord, record_of_smiles
from chemscale_jax.chem.scaffolds import ACYCLIC, scaffold_of
from chemscale_jax.chem.smiles import molecule_key
from chemscale_jax.data.conformers.codec import STATUS_CODES, encode_record
from chemscale_jax.data.text.encode_lines import shorten
from chemscale_jax.data.text.molecule_text import Chunk
from chemscale_jax.data.text.text_layout import Layout
from chemscale_jax.data.text.token_store import Failure

DUPLICATE = "duplicate"
UNUSABLE = "unusable"
_GIVEN_UP = "the process did not survive this molecule, or came to no end"


class Candidate(NamedTuple):
    """A line with a molecule."""

    line: int
    key: int  # `molecule_key` of the SMILES
    smiles: str  # canonical


class Reading(NamedTuple):
    """What some lines hold; each is in one of the lists."""

    candidates: list[Candidate]
    failures: list[Failure]
    lines: int
    read: float  # share of the source that was read up to here


class Molecule(NamedTuple):
    """One molecule of a store, encoded."""

    line: int
    key: int
    atoms: int
    conformers: int
    status: int  # place in `STATUS_CODES`
    scaffold: str
    data: bytes  # `encode_record`


class Making(NamedTuple):
    """What became of some candidates; each is in one of the lists."""

    molecules: list[Molecule]
    failures: list[Failure]
    cpu_s: float


def read_chunk(
    chunk: Chunk,
    given_up: Mapping[int, str],
    at: Callable[[int], None],
    *,
    layout: Layout,
    max_atoms: int,
) -> Reading:
    """Reads lines.

    Args:
        chunk: the lines.
        given_up: places of lines that must not be touched, and why.
        at: is called with the place of each line before it is touched.
        layout: where the SMILES is.
        max_atoms: larger molecules, by heavy atoms, are refused.
    """
    candidates, failures = [], []
    for place, line in enumerate(chunk.lines):
        number = chunk.first + place
        text, reason, message = layout.read(line)
        if place in given_up:
            reason, message = given_up[place], _GIVEN_UP
        if not reason:
            at(place)
            parsed = canonical_smiles(text, max_atoms)
            reason, message = parsed.reason, parsed.message
            if not reason:
                key = molecule_key(parsed.canonical)
                candidates.append(Candidate(number, key, parsed.canonical))
                continue
        failures.append(Failure(number, reason, shorten(text), shorten(message)))
    return Reading(candidates, failures, len(chunk.lines), chunk.read)


def shard_of(keys: np.ndarray, shards: int) -> np.ndarray:
    """The shard of each molecule: equal ranges of keys.

    Args:
        keys: (molecules,) uint64.
        shards: number of them.
    """
    # Of the upper half, so that the product has room.
    return ((keys >> np.uint64(32)) * np.uint64(shards)) >> np.uint64(32)


def shard_of_key(key: int, shards: int) -> int:
    """`shard_of` for one molecule."""
    return ((key >> 32) * shards) >> 32


def shard_of_line(line: int, shards: int) -> int:
    """The shard whose ledger has a line that holds no molecule."""
    return line % shards


def leave_out_repeats(
    candidates: Iterable[Candidate],
) -> tuple[list[Candidate], list[Failure]]:
    """The first line of each molecule, in order, and all other lines.

    Args:
        candidates: all of one shard, in any order.
    """
    first: dict[str, int] = {}
    distinct, repeats = [], []
    for candidate in sorted(candidates):
        line = first.setdefault(candidate.smiles, candidate.line)
        if line == candidate.line:
            distinct.append(candidate)
            continue
        repeats.append(
            Failure(
                candidate.line,
                DUPLICATE,
                shorten(candidate.smiles),
                f"the molecule of line {line}",
            )
        )
    return distinct, repeats


def make_molecules(
    candidates: Sequence[Candidate],
    given_up: Mapping[int, str],
    at: Callable[[int], None],
    *,
    settings: ConformerSettings,
    max_atoms: int,
    float32: bool,
) -> Making:
    """Makes records with conformers, and encodes them.

    A molecule without a geometry is stored with its drawing and its status says so.

    Args:
        candidates: distinct molecules.
        given_up: places of steps that must not be taken, and why. Candidate i has two:
            its record is place 2 i, its conformers are place 2 i + 1.
        at: is called with each place before the step.
        settings: how to make conformers.
        max_atoms: of the largest molecule.
        float32: whether coordinates are stored exactly.
    """
    began = time.process_time()
    molecules, failures = [], []
    for i, candidate in enumerate(candidates):
        line, _, smiles = candidate
        if 2 * i in given_up:
            shown = shorten(smiles)
            failures.append(Failure(line, given_up[2 * i], shown, _GIVEN_UP))
            continue
        at(2 * i)
        record = record_of_smiles(smiles, f"line {line}", max_atoms=max_atoms)
        if record.status != "failed":
            if 2 * i + 1 in given_up:
                reason = f"making a conformer failed: {given_up[2 * i + 1]}"
                record = flat(record, reason)
            else:
                at(2 * i + 1)
                record = conform(record, settings)
        if record.status == "failed":
            failures.append(
                Failure(line, UNUSABLE, shorten(smiles), shorten(record.reason))
            )
            continue
        molecules.append(encode_molecule(record, line, float32=float32))
    return Making(molecules, failures, time.process_time() - began)


def encode_molecule(record: MoleculeRecord, line: int, *, float32: bool) -> Molecule:
    """A record as a molecule of a store.

    Args:
        record: with a status other than "failed".
        line: of the source.
        float32: whether coordinates are stored exactly.
    """
    return Molecule(
        line,
        molecule_key(record.smiles),
        len(record.species_N),
        len(record.positions_KN3),
        STATUS_CODES.index(record.status),
        scaffold_of(record.smiles) if record.has_bonds else ACYCLIC,
        encode_record(record, float32=float32),
    )
