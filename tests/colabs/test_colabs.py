"""Notebooks are pairs of a .py and an .ipynb without outputs, and they run."""

import os
import pathlib

import jupytext
import nbclient
import nbformat
import pytest

from colabs import pair
from tests.xla_flags import QUICK

ROOT = pathlib.Path(__file__).parent.parent.parent
SCRIPTS = pair.scripts()
README = (ROOT / "README.md").read_text()
# How many plots each notebook shows.
PLOTS = {
    "01_train_painn": 4,
    "02_use_a_force_field": 2,
    "03_compare_prompts": 3,
    "04_finetune_molecules": 3,
    "05_scaling_laws": 4,
    "06_tpe": 3,
    "07_maps": 3,
    "08_similarity_search": 4,
}
# How a table of results begins, where its first rows are not of a validation set.
TABLES = {"07_maps": "| trained", "08_similarity_search": "| property"}
# Seconds for one cell: the whole training is one.
SMOKE_TIMEOUT_S, FULL_TIMEOUT_S = 180, 3600


def cells(path):
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


def test_there_is_a_notebook():
    assert ROOT / "colabs" / "01_train_painn.py" in SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_equals_its_script_and_holds_no_outputs(script):
    notebook = script.with_suffix(".ipynb")
    assert not pair.stale(), "run python colabs/pair.py"
    assert cells(notebook) == cells(script)
    for cell in nbformat.read(notebook, as_version=4).cells:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")


def test_every_notebook_has_its_script():
    assert {path.stem for path in (ROOT / "colabs").glob("*.ipynb")} == {
        script.stem for script in SCRIPTS
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_installs_on_colab_first_and_has_a_badge(script):
    code = [source for kind, source in cells(script) if kind == "code"]
    assert '"google.colab" in sys.modules' in code[0]
    opens = "colab.research.google.com/github/chemscale/chemscale_jax/blob/main/colabs"
    assert f"({opens}/{script.stem}.ipynb)" in README.replace("https://", "")


@pytest.mark.colab
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_runs(script, tmp_path, monkeypatch):
    """In smoke form where CHEMSCALE_SMOKE=1 is set, else in full."""
    smoke = os.environ.get("CHEMSCALE_SMOKE") == "1"
    # The tests' eight devices share two cores; a reader's notebook has one device. In
    # smoke form it compiles for longer than it computes.
    monkeypatch.setenv("XLA_FLAGS", QUICK if smoke else "")
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=SMOKE_TIMEOUT_S if smoke else FULL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    shown = [out.data for out in outputs if out.output_type == "display_data"]
    assert sum("image/png" in data for data in shown) >= PLOTS[script.stem]
    table = TABLES.get(script.stem, "| valid")
    assert any(table in data.get("text/markdown", "") for data in shown)
    assert not [out for out in outputs if out.output_type == "error"]
