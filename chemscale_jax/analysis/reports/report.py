"""The report of a run: table, plots and model card, from the files of its workdir."""

from collections.abc import Callable, Mapping

from chemscale_jax.analysis import report_files
from chemscale_jax.analysis.properties.report import property_report
from chemscale_jax.analysis.reports.denoising_report import denoising_report
from chemscale_jax.analysis.reports.force_field_report import force_field_report
from chemscale_jax.analysis.reports.language_report import language_report
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir

# By the config's task.
REPORTS: Mapping[str, Callable[[Workdir], report_files.Report]] = {
    "force_field": force_field_report,
    "causal_lm": language_report,
    "conformer_denoising": denoising_report,
    "property_regression": property_report,
}


def write_report(workdir: Workdir) -> str:
    """Writes plots/*.png and card.md of a run; returns the results table.

    Everything is read from the workdir, so a report can be made again at any time.

    Raises:
        UserError: the folder is not a workdir, or its run is not finished.
    """
    if not workdir.path.is_dir():
        raise UserError(
            f"workdir {workdir.path} does not exist; give the folder of a run"
        )
    report = REPORTS[workdir.config()["task"]](workdir)
    report_files.write(report, workdir)
    return report.table
