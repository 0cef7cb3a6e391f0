"""Structures as RDKit draws them, as SVG of a few hundred characters each.

RDKit's own SVG says the style of every line anew: 5,000 characters for a drug. Here all
lines are one path, all wedges another, and letters have one of two sizes, so that a
page can hold tens of thousands of structures. Coordinates are whole numbers.
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from rdkit import Chem
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from chemscale_jax.chem.molecule_record import molecule_of
from chemscale_jax.chem.smiles import quiet_rdkit
from chemscale_jax.chem.worker_map import ordered_map

WIDTH, HEIGHT = 320, 240
# Of the elements of `structure_svg`, for the page that shows them.
STYLE = """\
.mol path{fill:none;stroke:currentColor;stroke-width:2.4;stroke-linecap:round}
.mol path.w{fill:currentColor;stroke-width:1;stroke-linejoin:round}
.mol text{fill:currentColor;font:17px sans-serif}
.mol text.s{font-size:11px}
"""
_FONT = 17
# Letters of at most this size are indices: charges, isotopes, numbers of hydrogens.
_SMALL = 13
_PATH = re.compile(r"<path ([^>]*)d='([^']*)' style='([^']*)'")
_TEXT = re.compile(
    r"<text x='([^']*)' y='([^']*)'[^>]*?font-size:(\d+)px[^>]*>([^<]*)<"
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class _Point(NamedTuple):
    x: int
    y: int


def structure_svg(smiles: str) -> str:
    """What is inside an ``<svg class="mol" viewBox="0 0 320 240">``; styles: `STYLE`.

    Args:
        smiles: canonical.

    Returns:
        Elements; "" where there is no atom or RDKit cannot draw it.
    """
    if not smiles:
        return ""
    with quiet_rdkit():
        try:
            return _compact(_rdkit_svg(molecule_of(smiles)))
        except (RuntimeError, ValueError):
            return ""


def structure_svgs(
    smiles: Sequence[str], *, processes: int | None = None, progress: bool = True
) -> list[str]:
    """`structure_svg` of many, about a millisecond each.

    Args:
        smiles: canonical.
        processes: default all that may be used.
        progress: whether there is a bar for many.
    """
    return list(
        ordered_map(
            _some, smiles, processes=processes, label="structures", progress=progress
        )
    )


def _some(chunk: Sequence[str]) -> list[str]:
    return [structure_svg(smiles) for smiles in chunk]


def _rdkit_svg(mol: Chem.Mol) -> str:
    mol = rdMolDraw2D.PrepareMolForDrawing(mol)
    rdDepictor.Compute2DCoords(mol)
    canvas = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT, -1, -1, True)  # letters as text
    options = canvas.drawOptions()
    options.useBWAtomPalette()
    options.clearBackground = False
    options.prepareMolsBeforeDrawing = False
    options.maxFontSize = _FONT
    options.minFontSize = _FONT
    # Single rings are not drawn larger than those of drugs.
    options.scalingFactor = 28
    options.fixedBondLength = 28
    canvas.DrawMolecule(mol)
    canvas.FinishDrawing()
    return canvas.GetDrawingText()


def _compact(svg: str) -> str:
    lines, wedges = [], []
    for names, path, style in _PATH.findall(svg):
        points = _points(path)
        if "fill:none" not in style:
            wedges.append(_relative(points) + "z")
        elif "class=" in names:
            lines.append(_relative(points))
        # Others round off the corners between lines, as do the ends of ours.
    parts = []
    if lines:
        parts.append(f'<path d="{"".join(lines)}"/>')
    if wedges:
        parts.append(f'<path class="w" d="{"".join(wedges)}"/>')
    for x, y, size, text in _TEXT.findall(svg):
        place = f'x="{round(float(x))}" y="{round(float(y))}"'
        kind = ' class="s"' if int(size) <= _SMALL else ""
        parts.append(f"<text {place}{kind}>{text}</text>")
    return "".join(parts)


def _points(path: str) -> list[_Point]:
    numbers = [round(float(text)) for text in _NUMBER.findall(path)]
    return [_Point(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def _relative(points: list[_Point]) -> str:
    """The first point as it is, each other one from the one before."""
    text = f"M{points[0].x} {points[0].y}"
    for last, point in itertools.pairwise(points):
        x, y = point.x - last.x, point.y - last.y
        text += f"l{x}{y}" if y < 0 else f"l{x} {y}"
    return text
