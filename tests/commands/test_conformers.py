import re

import pytest

from chemscale_jax.commands import conformers, scaffolds
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers import pipeline
from chemscale_jax.data.conformers.store import ConformerStore

TABLE = (
    "name,structure\nethanol,CCO\nnothing,\nphenol,Oc1ccccc1\nspirit,OCC\namine,CN\n"
)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def run(table, out, *more):
    flags = ["--column=structure", "--workers=0", f"--out={out}"]
    return conformers.main([str(table), *flags, *more])


def test_the_summary_tells_everything(table, tmp_path, capsys):
    folder = tmp_path / "store"
    assert run(table, folder, "--conformers=3", "--shards=2", "--seed=4") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        f"lines       5: 3 stored, 2 in {folder}/ledger.csv (1 duplicate, 1 empty)"
    )
    assert printed[1] == "status      3 3d: " + conformers.STATUSES["3d"]
    assert re.fullmatch(
        r"conformers  9, in int16; 2 shards, [\d,]+ bytes per molecule", printed[2]
    )
    assert printed[3] == "scaffolds   2"
    assert printed[4].endswith("molecules per core-second")
    assert printed[5] == f"written to  {folder}"
    info = ConformerStore.open(folder).info
    assert info["made"]["conformers"]["seed"] == 4
    # Given again, it says the same without work.
    assert run(table, folder, "--conformers=3", "--shards=2", "--seed=4") == 0
    assert capsys.readouterr().out.splitlines() == printed[:4] + printed[5:]


def test_options_reach_the_store(table, tmp_path, capsys):
    assert run(table, tmp_path / "store", "--float32", "--max-atoms=3") == 0
    assert "1 too_large" in capsys.readouterr().out
    store = ConformerStore.open(tmp_path / "store")
    assert store.info["coordinates"] == "float32"
    assert store.info["made"]["max_atoms"] == 3
    assert store.atoms.max() == 3


def test_a_run_that_is_stopped_says_how_to_go_on(table, tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(conformers, "conform_source", stopped)
    assert run(table, tmp_path / "store") == 130
    assert "store.parts, and the same command goes on" in capsys.readouterr().err


def test_options_of_beam(table, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="give --runner too"):
        run(table, tmp_path / "s", "--beam-options=--x=1")
    with pytest.raises(UserError, match="--workers is for making a store without"):
        run(table, tmp_path / "s", "--runner=DirectRunner")
    seen = []

    def fake(source, out, plan, *, runner, options):
        seen.append((str(out), plan.shards, runner, options))
        raise UserError("enough")

    monkeypatch.setattr(pipeline, "conform_with_beam", fake)
    flags = ["--out=o", "--shards=5", "--runner=R", "--beam-options=--a=1 --b=2"]
    with pytest.raises(UserError, match="enough"):
        conformers.main([str(table), "--column=structure", *flags])
    assert seen == [("o", 5, "R", "--a=1 --b=2")]


def test_scaffolds_of_a_store_and_a_file(table, tmp_path, capsys):
    run(table, tmp_path / "store")
    (tmp_path / "b.smi").write_text("C1CC1\nCCO\n")
    out = tmp_path / "report"
    sets = [str(tmp_path / "store"), str(tmp_path / "b.smi")]
    capsys.readouterr()
    assert scaffolds.main([*sets, f"--out={out}", "--workers=0"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"molecules +\| +3 \| +2 \| +1 \| +1 \| +4 \|", printed)
    assert printed.endswith(f"written to {out}\n")
    names = {path.name for path in out.iterdir()}
    assert names == {"report.md", "scaffolds.csv", "scaffolds.png"}
    with pytest.raises(UserError, match="3 sets are given"):
        scaffolds.main([*sets, sets[0], f"--out={out}"])
    with pytest.raises(UserError, match="workers is -1"):
        scaffolds.main([*sets, f"--out={out}", "--workers=-1"])
