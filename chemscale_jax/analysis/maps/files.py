"""All files of a map at once: report, plots, page and the row of every molecule."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from chemscale_jax.analysis.maps import page as map_page
from chemscale_jax.analysis.maps import report as map_report
from chemscale_jax.analysis.maps.embedding_maps import MapSettings
from chemscale_jax.analysis.maps.mapped_molecules import SCAFFOLD, MappedMolecules
from chemscale_jax.analysis.maps.study import MapStudy, StudySettings, study_maps


class WrittenMaps(NamedTuple):
    """What was found, as Markdown and in full, and the bytes of the page."""

    text: str
    study: MapStudy
    page_bytes: int


def write_maps(
    molecules: MappedMolecules,
    folder: pathlib.Path,
    *,
    color: Sequence[str] = (SCAFFOLD,),
    settings: MapSettings | None = None,
    study: StudySettings | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> WrittenMaps:
    """Lays out, measures and writes; finished layouts are taken from the folder.

    Args:
        molecules: from `mapped_molecules.read_molecules`.
        folder: for map.html, map_LABEL.png, map.csv, report.md and report.json.
        color: labels, "scaffold" or columns.
        settings: of the layout.
        study: of the measures.
        processes: that draw structures; default all that may be used.
        progress: whether there are bars.

    Raises:
        UserError: there is no such column, too few molecules, or the folder cannot be
            written.
    """
    colorings = [molecules.coloring(name) for name in color]
    found = study_maps(
        molecules,
        colorings,
        settings or MapSettings(),
        study or StudySettings(),
        folder / "layouts",
        progress=progress,
    )
    text = map_report.write_map_report(found, folder)
    size = map_page.write_map_page(
        molecules,
        found.maps,
        colorings,
        folder / map_page.PAGE_HTML,
        title=f"{len(molecules.shown):,} molecules",
        processes=processes,
        progress=progress,
    )
    return WrittenMaps(text, found, size)
