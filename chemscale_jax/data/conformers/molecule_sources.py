"""Where molecules with coordinates come from, by name.

A file of SMILES is made into a conformer store once, in the cache folder, and found
again there by path, size, date and settings.
"""

import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Callable
from typing import Any

from chemscale_jax.chem.conformers import ConformerSettings
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config
from chemscale_jax.data.cache import cache_folder, file_identity
from chemscale_jax.data.conformers.build import Plan
from chemscale_jax.data.conformers.conform import conform_source
from chemscale_jax.data.conformers.embedded_conformers import embedded_conformers
from chemscale_jax.data.conformers.store import SCHEMA_VERSION, ConformerStore
from chemscale_jax.data.text.molecule_text import open_text


def open_molecules(data: Config) -> ConformerStore:
    """The conformer store that ``config.data`` names, made first if need be.

    Args:
        data: ``source``, ``path``, ``column``, ``conformers`` and
            ``embedded_molecules`` are read.

    Raises:
        UserError: a source is unknown, or cannot be read.
    """
    if data.source not in SOURCES:
        raise UserError(
            f"config.data.source={data.source!r} is unknown: use one of {(*SOURCES,)}"
        )
    if (data.source == "embedded") == bool(data.path):
        raise UserError(
            f"config.data.source={data.source!r} with config.data.path={data.path!r}: "
            "'embedded' has no path; 'file' and 'store' need one"
        )
    return SOURCES[data.source](data)


def _embedded(data: Config) -> ConformerStore:
    """Conformers of molecules that the package makes by itself."""
    return embedded_conformers(data.embedded_molecules, data.conformers)


def _file(data: Config) -> ConformerStore:
    """A file of SMILES."""
    path = pathlib.Path(data.path).expanduser()
    source = open_text(path, data.column)
    plan = Plan(conformers=ConformerSettings(count=data.conformers))
    # A checksum of a large file would cost seconds at every start.
    key: dict[str, Any] = {
        "source": file_identity(path),
        "column": data.column,
        "plan": repr(plan),
        "store": SCHEMA_VERSION,
        "rdkit": importlib.metadata.version("rdkit"),
    }
    text = json.dumps(key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    return conform_source(source, cache_folder() / f"conformers-{digest}", plan).store


# Name in config.data.source: a function of config.data.
SOURCES: dict[str, Callable[[Config], ConformerStore]] = {
    "embedded": _embedded,
    "file": _file,
    "store": lambda data: ConformerStore.open(data.path),
}
