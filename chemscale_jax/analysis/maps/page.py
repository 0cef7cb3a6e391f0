"""One HTML file with maps to look into: the structure under the pointer, zoom, search.

It loads nothing from anywhere. So that 20,000 molecules fit into some megabytes,
structures are compact SVG (`chem.structure_svg`), and stand with the cells of their row
in records of which 200 are packed together (zlib, base64); the page unpacks those that
are looked at. Coordinates are 16 bits each.
"""

import base64
import html
import json
import os
import pathlib
import re
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from chemscale_jax.analysis.maps.mapped_molecules import (
    ACYCLIC_NAME,
    MOST_POINTS,
    SCAFFOLD,
    Coloring,
    MappedMolecules,
)
from chemscale_jax.analysis.maps.page_template import PAGE
from chemscale_jax.analysis.maps.plots import (
    GROUP_STYLES,
    NUMBER_COLORS,
    OTHERS,
    number_range,
    shown_groups,
)
from chemscale_jax.chem.structure_svg import STYLE, structure_svg, structure_svgs
from chemscale_jax.core.errors import UserError

PAGE_HTML = "map.html"
# Molecules of which records are packed together.
CHUNK = 200
# Colours of numbers.
_SHADES = 32
# Columns of the input that are shown, and characters of a cell.
MOST_COLUMNS = 16
_LONGEST_CELL = 120
_RECORD, _CELL = "\x1e", "\x1f"
_SEPARATORS = str.maketrans(dict.fromkeys((_RECORD, _CELL, "\0"), " "))


def write_map_page(
    molecules: MappedMolecules,
    maps: Mapping[str, np.ndarray],
    colorings: Sequence[Coloring],
    path: pathlib.Path,
    *,
    title: str,
    processes: int | None = None,
    progress: bool = True,
) -> int:
    """Writes the page; returns its bytes.

    Args:
        molecules: at most `MOST_POINTS` of which are shown.
        maps: (n, 2) by the name of the space.
        colorings: to choose from, the first one at once.
        path: of the file.
        title: of the page.
        processes: that draw structures; default all that may be used.
        progress: whether there is a bar.

    Raises:
        UserError: there are too many molecules, or the file cannot be written.
    """
    n = len(molecules.shown)
    if n > MOST_POINTS:
        raise UserError(
            f"{n:,} molecules are too many for a page: show {MOST_POINTS:,} at most"
        )
    smiles = molecules.smiles[molecules.shown].tolist()
    svgs = structure_svgs(smiles, processes=processes, progress=progress)
    first = [coloring.name for coloring in colorings]
    names = [name for name in first if name in molecules.columns]
    names += [name for name in molecules.columns if name not in names]
    names = names[:MOST_COLUMNS]
    meta = {
        "molecules": n,
        "chunk": CHUNK,
        "columns": ["row", "SMILES", "scaffold", *names],
        "spaces": [
            {"name": name, "points": _points(points)} for name, points in maps.items()
        ],
        "labels": [_label(coloring) for coloring in colorings],
    }
    records = _records(molecules, names, smiles, svgs)
    contents = {
        "TITLE": html.escape(title),
        "STYLE": STYLE,
        # Text of the input must not end the script.
        "META": json.dumps(meta).replace("<", "\\u003c"),
        "RECORDS": "\n".join(records),
    }
    text = re.sub(f"@({'|'.join(contents)})@", lambda mark: contents[mark[1]], PAGE)
    content = text.encode()
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): choose another folder"
        ) from None
    return len(content)


def _records(
    molecules: MappedMolecules,
    names: Sequence[str],
    smiles: Sequence[str],
    svgs: Sequence[str],
) -> list[str]:
    columns = [molecules.columns[name][molecules.shown].tolist() for name in names]
    rows = molecules.index[molecules.shown].tolist()
    every = [
        _CELL.join([svg, str(row), text, scaffold, *(_cell(cell) for cell in cells)])
        for svg, row, text, scaffold, *cells in zip(
            svgs, rows, smiles, molecules.scaffolds.tolist(), *columns, strict=True
        )
    ]
    return [
        _base64(zlib.compress(_RECORD.join(every[i : i + CHUNK]).encode(), 9))
        for i in range(0, len(every), CHUNK)
    ]


def _cell(cell: str) -> str:
    text = cell.translate(_SEPARATORS)
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"


def _points(points: np.ndarray) -> str:
    """Both axes on one scale, so that the larger one goes from 0 to 65535."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = float((high - low).max()) or 1.0
    centred = (points - (low + high) / 2) / extent + 0.5
    return _base64(np.rint(centred * 65535).astype("<u2").tobytes())


def _label(coloring: Coloring) -> dict[str, Any]:
    if coloring.groups is not None:
        styles, codes = _group_styles(coloring)
    else:
        styles, codes = _number_styles(coloring)
    packed = _base64(codes.astype(np.uint8).tobytes())
    fixed = coloring.groups is None  # shades are not switched off
    return {"name": coloring.name, "styles": styles, "codes": packed, "fixed": fixed}


def _group_styles(coloring: Coloring) -> tuple[list[dict[str, Any]], np.ndarray]:
    assert coloring.groups is not None
    shown = shown_groups(coloring)
    styles: list[dict[str, Any]] = []
    codes = np.full(len(coloring.groups), len(shown))
    for style, (name, count) in zip(GROUP_STYLES, shown.items(), strict=False):
        codes[coloring.groups == name] = len(styles)
        styles.append({**style._asdict(), "name": name, "count": count})
        if coloring.name == SCAFFOLD and name != ACYCLIC_NAME:
            styles[-1]["svg"] = structure_svg(name)
    unknown = coloring.groups == ""
    codes[unknown] = len(styles) + 1
    rest = int((codes == len(styles)).sum())
    for name, count, marker in (
        ("other groups", rest, OTHERS.marker),
        ("unknown", int(unknown.sum()), "x"),
    ):
        shown_name = name if count else ""
        styles.append(
            {
                "color": OTHERS.color,
                "marker": marker,
                "name": shown_name,
                "count": count,
            }
        )
    return styles, codes


def _number_styles(coloring: Coloring) -> tuple[list[dict[str, Any]], np.ndarray]:
    assert coloring.numbers is not None
    low, high = number_range(coloring.numbers)
    known = coloring.known
    share = (np.where(known, coloring.numbers, low) - low) / (high - low)
    codes = np.clip((share * _SHADES).astype(int), 0, _SHADES - 1)
    codes[~known] = _SHADES
    shades = colormaps[NUMBER_COLORS](np.linspace(0, 1, _SHADES))
    styles: list[dict[str, Any]] = [
        {"color": to_hex(shade), "marker": "o", "name": ""} for shade in shades
    ]
    # Some of the shades tell what they stand for.
    for place in np.linspace(0, _SHADES - 1, 5).round().astype(int):
        middle = low + (place + 0.5) / _SHADES * (high - low)
        styles[place]["name"] = f"{middle:.3g}"
    unknown = int((~known).sum())
    styles.append(
        {
            "color": OTHERS.color,
            "marker": "x",
            "name": "unknown" if unknown else "",
            "count": unknown,
        }
    )
    return styles, codes


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
