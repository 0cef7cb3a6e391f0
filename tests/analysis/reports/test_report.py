import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from chemscale_jax.analysis import plots
from chemscale_jax.analysis.reports import report
from chemscale_jax.commands import report as command
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import read_json, write_json

PLOTS = ("learning_curves", "force_parity", "energy_parity", "error_per_element")


def test_report_writes_plots_and_card(workdir):
    settings = dict(matplotlib.rcParams)
    table = report.write_report(workdir)
    assert table.splitlines()[2].startswith("| valid")
    assert dict(matplotlib.rcParams) == settings
    assert sorted(path.stem for path in workdir.plots.iterdir()) == sorted(PLOTS)
    for name in PLOTS:
        image = imread(workdir.plots / f"{name}.png")
        assert min(image.shape[:2]) > 400
        # Something is drawn: neither blank nor one colour.
        inked = (image[..., :3].min(axis=-1) < 0.9).mean()
        assert 0.005 < inked < 0.6, name
    card = workdir.card.read_text()
    assert table in card
    for fact in (
        "hand-made",
        "painn",
        "9.9.9",
        "0123abcd",
        "2 x cpu",
        "finished: 2 epochs done",
        "`reference_energies.H` | -10.5",
        "and 88 more",
        "H O",
        "5 Å",
    ):
        assert fact in card, fact
    for name in PLOTS:
        assert f"plots/{name}.png" in card


def test_report_can_be_made_again_and_says_the_same(workdir):
    first = report.write_report(workdir), workdir.card.read_text()
    assert (report.write_report(workdir), workdir.card.read_text()) == first


def test_a_torn_last_line_of_the_log_changes_nothing(workdir):
    whole = plots.curves_of(workdir.metrics())
    with workdir.metrics_jsonl.open("a") as log:
        log.write('{"step": 110, "epoch": 0, "spl')
    torn = plots.curves_of(workdir.metrics())
    np.testing.assert_equal(torn, whole)
    report.write_report(workdir)


def test_curves_keep_order_and_show_what_was_not_finite(workdir):
    curves = plots.curves_of(workdir.metrics())
    steps, values = curves["valid"]["loss"]
    assert steps.tolist() == [50, 100]
    assert values.tolist() == [11.0 / 50, 11.0 / 100]
    assert np.isnan(curves["heldout"]["loss"][1]).all()


def test_learning_curves_draw_every_split(workdir):
    figure = plots.learning_curves(
        plots.curves_of(workdir.metrics()), "force_mae", "force MAE (meV/Å)"
    )
    loss, force, rate = figure.axes
    legend = loss.get_legend()
    assert legend is not None
    names = {text.get_text() for text in legend.get_texts()}
    assert names == {
        "training batch",
        "training, mean of an epoch",
        "valid",
        "heldout",
    }
    assert force.get_yscale() == "log"
    assert len(force.get_lines()) == 3
    assert len(rate.get_lines()) == 1
    lines = [
        line for line in force.get_lines() if line.get_marker() not in ("", "None")
    ]
    assert len({line.get_linestyle() for line in lines}) == 2
    assert len({str(line.get_marker()) for line in lines}) == 2


def test_forces_only_says_so_on_card_and_table(workdir):
    config = read_json(workdir.config_json)
    config["loss"]["alpha_energy"] = 0.0
    write_json(workdir.config_json, config)
    assert "uncalibrated" in report.write_report(workdir)
    assert "lack a constant for each molecule" in workdir.card.read_text()


def test_a_split_without_labels_is_drawn_as_such(workdir):
    path = workdir.predictions / "heldout.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["energy_mask"][:] = False
    arrays["forces_mask"][:] = False
    np.savez(path, allow_pickle=False, **arrays)
    table = report.write_report(workdir)
    heldout = [line for line in table.splitlines() if line.startswith("| heldout")]
    assert heldout[0].count(" - ") == 8


def test_command_prints_the_table(workdir, capsys):
    assert command.main([f"--workdir={workdir.path}"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("| split")
    assert str(workdir.card) in printed


def test_command_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert stop.value.code == 0
    assert "chemscale report --workdir=" in capsys.readouterr().out


def _remove_predictions(workdir):
    for path in workdir.predictions.iterdir():
        path.unlink()


def _cut_predictions(workdir):
    path = workdir.predictions / "valid.npz"
    path.write_bytes(path.read_bytes()[:1000])


def _drop_an_array(workdir):
    np.savez(workdir.predictions / "valid.npz", n_atoms=np.ones(1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_remove_predictions, "has no predictions yet"),
        (_cut_predictions, "valid.npz is not a file of predictions"),
        (_drop_an_array, "valid.npz has no id, index, energy_true"),
        (lambda w: w.metrics_jsonl.unlink(), "has no metrics.jsonl"),
        (lambda w: w.config_json.unlink(), "config.json does not exist"),
        (lambda w: w.plots.write_text(""), "cannot be written"),
    ],
)
def test_what_is_missing_is_named_in_one_line(workdir, spoil, message):
    spoil(workdir)
    with pytest.raises(UserError, match=message) as error:
        command.main([f"--workdir={workdir.path}"])
    assert "\n" not in str(error.value)


def test_a_missing_workdir_is_named(tmp_path):
    with pytest.raises(UserError, match="workdir .*nowhere does not exist"):
        command.main([f"--workdir={tmp_path / 'nowhere'}"])


def test_reports_need_no_jax():
    code = (
        "import sys, chemscale_jax.commands.report; "
        "sys.exit('jax' in sys.modules or 'rdkit' in sys.modules or "
        "'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
