"""The report of a run: table, plots and model card, from the files of its workdir."""

from matplotlib.figure import Figure

from chemscale_jax.analysis import card, plots, tables
from chemscale_jax.analysis.check_table import check_section
from chemscale_jax.analysis.splits import read_splits
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir


def write_report(workdir: Workdir) -> str:
    """Writes plots/*.png and card.md of a run; returns the results table.

    Everything is read from the workdir, so a report can be made again at any time.

    Raises:
        UserError: the folder is not a workdir, or its run has made no predictions.
    """
    if not workdir.path.is_dir():
        raise UserError(
            f"workdir {workdir.path} does not exist; give the folder of a run"
        )
    config, run = workdir.config(), workdir.run()
    curves = plots.curves_of(workdir.metrics())
    splits = read_splits(workdir)
    force_only = card.force_only(config)
    table = tables.results_table(splits, force_only)
    figures: dict[str, Figure] = {
        "learning_curves": plots.learning_curves(curves),
        "force_parity": plots.force_parity(splits),
        "energy_parity": plots.energy_parity(splits, force_only),
        "error_per_element": plots.error_per_element(splits),
    }
    text = card.model_card(config, run, workdir.artifacts(), splits, table)
    text += check_section(workdir)
    try:
        workdir.plots.mkdir(exist_ok=True)
        for name, figure in figures.items():
            path = workdir.plots / f"{name}.png"
            figure.savefig(path, dpi=plots.DPI, bbox_inches="tight")
        workdir.card.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"workdir {workdir.path} cannot be written ({error.strerror}); make it "
            "writable or copy it elsewhere"
        ) from None
    return table
