"""The data sources by name: each reads `config.data` and gives records."""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.ani1x import Ani1xSource, embedded_path
from chemscale_jax.data.frames.ani_layouts import open_ani
from chemscale_jax.data.frames.ase_db import open_ase_db
from chemscale_jax.data.frames.extxyz import Keys, open_extxyz
from chemscale_jax.data.frames.frames import UnitNames
from chemscale_jax.data.frames.md17 import open_md17
from chemscale_jax.data.frames.qm7x import open_qm7x
from chemscale_jax.data.frames.qm22 import open_qm22
from chemscale_jax.data.frames.rmd17 import open_rmd17
from chemscale_jax.data.frames.source import FrameSource
from chemscale_jax.data.frames.spice import open_spice


def _units(data: Any) -> UnitNames:
    return UnitNames(data.energy_unit, data.force_unit, data.length_unit)


def _keys(data: Any) -> Keys:
    return Keys(data.energy_key, data.forces_key)


def _ani1x(data: Any, path: Any = None) -> FrameSource:
    names = _units(data).filled("hartree", "hartree/angstrom", "angstrom")
    return Ani1xSource(
        data.path if path is None else path,
        data.labels,
        energy_unit=names.energy,
        force_unit=names.force,
        length_unit=names.length,
    )


def _embedded(data: Any) -> FrameSource:
    """The set of the package, or another file in its layout where a path is given."""
    return _ani1x(data, data.path or embedded_path())


def _tfds(data: Any) -> FrameSource:
    # TFDS takes a second to import, which only its users should pay.
    from chemscale_jax.data.frames.tfds_ani1x import open_prepared

    return open_prepared(data.path)


def _rmd17(data: Any) -> FrameSource:
    return open_rmd17(data.path, data.molecule, data.split_index, _units(data))


def _extxyz(data: Any) -> FrameSource:
    return open_extxyz(
        data.path, data.test_path, _keys(data), _units(data), data.labels
    )


def _ase_db(data: Any) -> FrameSource:
    return open_ase_db(
        data.path, data.test_path, _keys(data), _units(data), data.labels
    )


# {name: the ConfigDict `config.data` -> its records}
SOURCES: Mapping[str, Callable[[Any], FrameSource]] = MappingProxyType(
    {
        "embedded": _embedded,
        "ani1x": _ani1x,
        "tfds": _tfds,
        "ani": lambda data: open_ani(data.path, _units(data)),
        "rmd17": _rmd17,
        "md17": lambda data: open_md17(data.path, data.test_path, _units(data)),
        "spice": lambda data: open_spice(data.path, _units(data)),
        "qm7x": lambda data: open_qm7x(data.path, _units(data)),
        "extxyz": _extxyz,
        "ase_db": _ase_db,
        "qm22": lambda data: open_qm22(data.path, data.test_path, _units(data)),
    }
)
# Those whose test set may be a file of its own.
_WITH_TEST_PATH = ("md17", "extxyz", "ase_db", "qm22")


def open_source(data: Any) -> FrameSource:
    """The source that ``config.data.source`` names.

    Args:
        data: the ConfigDict ``config.data``.

    Raises:
        UserError: unknown source, or the reader cannot use the file.
    """
    if data.source not in SOURCES:
        near = difflib.get_close_matches(str(data.source), SOURCES, n=1, cutoff=0.0)
        raise UserError(
            f"config.data.source={data.source!r} is unknown: did you mean "
            f"{near[0]!r}? Sources: {', '.join(SOURCES)}"
        )
    if data.test_path and data.source not in _WITH_TEST_PATH:
        raise UserError(
            f"config.data.test_path is for the sources {', '.join(_WITH_TEST_PATH)}, "
            f"not for {data.source!r}: leave it empty"
        )
    return SOURCES[data.source](data)
