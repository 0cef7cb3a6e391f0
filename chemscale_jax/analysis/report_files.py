"""What a report consists of, and its files in the workdir."""

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.figure import Figure

from chemscale_jax.analysis import plots
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir


class Report(NamedTuple):
    """A finished run for a reader."""

    table: str  # of results, for terminals and Markdown alike
    figures: Mapping[str, Figure]  # by the name of their file
    card: str  # Markdown


def write(report: Report, workdir: Workdir) -> None:
    """Writes plots/*.png and card.md.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        workdir.plots.mkdir(exist_ok=True)
        for name, figure in report.figures.items():
            path = workdir.plots / f"{name}.png"
            figure.savefig(path, dpi=plots.DPI)
        workdir.card.write_text(report.card, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"workdir {workdir.path} cannot be written ({error.strerror}); make it "
            "writable or copy it elsewhere"
        ) from None
