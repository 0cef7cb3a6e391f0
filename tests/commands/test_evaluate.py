import csv
import json

import pytest

from chemscale_jax.commands import evaluate
from chemscale_jax.core.errors import UserError

GENERATED = "prompt,smiles\nCCO,CCO\nCCO,OCC\nCCN,\nCCN,CC(=O)[O-]\nCCN,CCC=O\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "made.csv").write_text(GENERATED)
    (tmp_path / "test.smi").write_text("CCO a\nCCCO b\nC(C c\nCCCCN d\n")
    return tmp_path


def test_files_become_figures_verdicts_and_a_plot(files, capsys):
    out = files / "out"
    status = evaluate.main(
        [
            f"--input={files / 'made.csv'}",
            "--column=smiles",
            f"--prompts={files / 'made.csv'}",
            "--prompts-column=prompt",
            f"--reference={files / 'test.smi'}",
            f"--train={files / 'test.smi'}",
            f"--out={out}",
            "--processes=1",
            "--all-reasons",
        ]
    )
    assert status == 0
    printed = capsys.readouterr().out
    assert "| valid" in printed
    assert str(out) in printed
    found = json.loads((out / "metrics.json").read_text())["metrics"]
    assert found["generated"]["valid"]["value"] == pytest.approx(4 / 5)
    assert found["reference"]["valid"]["value"] == pytest.approx(3 / 4)
    assert found["prompts"]["valid"]["over"] == 5
    # CCO is known.
    assert found["generated"]["novelty"]["value"] == pytest.approx(2 / 3)
    with (out / "filters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["smiles"] for row in rows] == ["CCO", "OCC", "", "CC(=O)[O-]", "CCC=O"]
    assert [row["passes"] for row in rows] == ["yes", "yes", "no", "no", "no"]
    assert rows[1]["canonical"] == "CCO"
    assert rows[2]["reasons"] == "unreadable: empty"
    assert rows[3]["reasons"] == "charge: O-1"
    assert rows[3]["passes_neutralised"] == "yes"
    assert rows[4]["reasons"] == "mcf: aldehyde or formyl"
    assert float(rows[0]["MW"]) == pytest.approx(46.069, abs=1e-3)
    assert rows[2]["MW"] == ""
    assert (out / "properties.png").stat().st_size > 10_000


def test_mistakes_are_named(files):
    out = f"--out={files / 'out'}"
    with pytest.raises(UserError, match="absent.csv does not exist"):
        evaluate.main([f"--input={files / 'absent.csv'}", out])
    made = f"--input={files / 'made.csv'}"
    with pytest.raises(UserError, match="rules.csv cannot be read"):
        evaluate.main([made, out, "--column=smiles", "--mcf=rules.csv"])
    (files / "out").write_text("a file")
    with pytest.raises(UserError, match="choose another folder"):
        evaluate.main([made, out, "--column=smiles", "--processes=1"])
