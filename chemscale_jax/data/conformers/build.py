"""What all ways of making a conformer store share: the plan, its checks, the last step.

A store grows in a folder beside it (``OUT.parts``) and appears under its name only when
it is complete.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

from chemscale_jax.chem.conformers import RELAX_WORK, ConformerSettings
from chemscale_jax.chem.molecule_record import MAX_ATOMS
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers.codec import VERSION
from chemscale_jax.data.conformers.shards import finish_store
from chemscale_jax.data.conformers.store import STORE_FILE, ConformerStore
from chemscale_jax.data.journaled_files import JournaledFiles
from chemscale_jax.data.text.molecule_text import (
    BYTES_PER_CHUNK,
    LINES_PER_CHUNK,
    TextSource,
)

MOST_SHARDS = 10_000
# Molecules that are made and recorded together.
PER_JOB = 16
# Files of the lines that were read, see `conformer_parts`.
READ_FILES = ("rows", "smiles", "ledger")
# Of a source, for each shard: some 100,000 lines.
_BYTES_PER_SHARD = 2**22
_LINES_PER_SHARD = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a store is to hold; all that its bytes depend on beside the source.

    Attributes:
        conformers: how they are made.
        max_atoms: larger molecules, by heavy atoms, are refused.
        float32: store coordinates exactly, in twice the space.
        shards: files of the store; 0 for one per 4 MB of the source.
    """

    conformers: ConformerSettings = ConformerSettings()  # noqa: RUF009
    max_atoms: int = MAX_ATOMS
    float32: bool = False
    shards: int = 0


class Build(NamedTuple):
    """A store that is being made."""

    source: TextSource
    plan: Plan  # with its number of shards
    folder: pathlib.Path  # of the parts
    parts: JournaledFiles  # of reading; its lock keeps other processes out


def build_store(
    source: TextSource,
    out: str | os.PathLike,
    plan: Plan,
    make: Callable[[Build], None],
) -> ConformerStore:
    """What all ways of making a store share: checks, parts, and the last step.

    Args:
        source: the lines.
        out: folder of the store.
        plan: what it is to hold.
        make: writes the shards that are not there yet, and leaves the number of lines
            as ``lines`` in the state of the parts.

    Raises:
        UserError: see `conform_source`.
    """
    out = pathlib.Path(out).expanduser()
    plan = _checked(plan, source)
    if out.exists() and not (out / STORE_FILE).exists():
        if not out.is_dir() or any(out.iterdir()):
            raise UserError(
                f"{out} is there and no conformer store: choose another --out, a "
                "folder that does not exist yet"
            )
    made = {
        "source": dict(source.identity),
        "layout": dataclasses.asdict(source.layout),
        **dataclasses.asdict(plan),
        "relax_work": RELAX_WORK,
        "codec": VERSION,
        "versions": {"rdkit": importlib.metadata.version("rdkit")},
    }
    folder = out.with_name(out.name + ".parts")
    if (out / STORE_FILE).exists():
        store = ConformerStore.open(out)
        if json.loads(json.dumps(made)) != store.info.get("made"):
            raise UserError(
                f"{out} is a conformer store of another file or of other settings: "
                "remove it, or choose another --out"
            )
        # It was killed after the store was done.
        shutil.rmtree(folder, ignore_errors=True)
        return store
    stamp = {**made, "chunks": [LINES_PER_CHUNK, BYTES_PER_CHUNK], "job": PER_JOB}
    with JournaledFiles(folder / "read", READ_FILES, stamp) as parts:
        make(Build(source, plan, folder, parts))
        lines = parts.state["lines"]
        if not lines:
            where = source.identity.get("path", "the list")
            raise UserError(f"{where} holds no line with a molecule")
        facts = {"float32": plan.float32, "made": made}
        finish_store(folder, out, plan.shards, lines, facts)
    shutil.rmtree(folder)
    return ConformerStore.open(out)


def _checked(plan: Plan, source: TextSource) -> Plan:
    """The plan with its number of shards, if it makes sense."""
    limits = {
        "conformers": (plan.conformers.count, 1, 1000),
        "max_atoms": (plan.max_atoms, 1, 65_535),
        "shards": (plan.shards, 0, MOST_SHARDS),
        "seed": (plan.conformers.seed, 0, 2**63 - 1),
    }
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise UserError(f"{name} is {value}: use {low} to {high}")
    if plan.shards:
        return plan
    facts = source.identity
    size = facts.get("bytes", 0) // _BYTES_PER_SHARD
    size = max(size, facts.get("molecules", 0) // _LINES_PER_SHARD)
    return dataclasses.replace(plan, shards=min(size + 1, MOST_SHARDS))
