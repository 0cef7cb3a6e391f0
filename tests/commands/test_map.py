import csv
import json

import numpy as np
import pytest

from chemscale_jax.commands import map as command
from chemscale_jax.core.errors import UserError
from tests.analysis.embedding_files import ring_smiles, ring_values, table


@pytest.fixture
def spaces(tmp_path):
    smiles = [*ring_smiles(), "CCO", ""]
    for name, scale in (("trained", 3.0), ("untrained", 0.0)):
        values = np.concatenate([ring_values(scale, seed=1), [[0.0] * 8, [np.nan] * 8]])
        table(smiles, values).save(tmp_path / f"{name}.npz")
    rows = [f"{text},{i / 9:.3f}" for i, text in enumerate(smiles)]
    rows[-1] = "?\xe9,"
    text = "smiles,logS\n" + "\n".join(rows) + "\n"
    (tmp_path / "mols.csv").write_bytes(text.encode("latin-1"))  # not UTF-8
    return tmp_path


def test_map_of_files(spaces, capsys):
    out = spaces / "maps"
    status = command.main(
        [
            f"--embeddings={spaces}/trained.npz,{spaces}/untrained.npz",
            f"--input={spaces}/mols.csv",
            "--names=model,control",
            "--color=scaffold,logS",
            "--method=pca",
            f"--out={out}",
        ]
    )
    assert status == 0
    printed = capsys.readouterr().out
    assert "**model wins**" in printed
    assert "- model is better than control: difference +" in printed
    assert {path.name for path in out.iterdir() if path.is_file()} == {
        "map.html",
        "map.csv",
        "map_scaffold.png",
        "map_logS.png",
        "report.md",
        "report.json",
    }
    with (out / "map.csv").open() as stream:
        assert [row["row"] for row in csv.DictReader(stream)] == [
            str(i) for i in range(102)
        ]
    spaces_told = json.loads((out / "report.json").read_text())["spaces"]
    assert list(spaces_told) == ["model", "control"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give --embeddings=FILE, or --config"),
        (["--embeddings=a.npz", "--config=configs/maps.py"], "not both"),
        (["--embeddings=a.npz", "--colour=x"], "--colour=x"),
        (["--embeddings=no.npz"], "no.npz does not exist"),
        (["--embeddings=no.txt"], "no.txt must end in"),
        (["--config=configs/maps.py:smoke", "--metod=pca"], "--config.map.method=pca"),
        (["--config=configs/painn_ani1x.py:smoke"], "for maps take configs/maps.py"),
    ],
)
def test_mistakes_are_told(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told):
        command.main([*arguments, "--out=maps"])


@pytest.mark.slow
def test_a_config_embeds_and_goes_on(tmp_path, capsys, monkeypatch):
    out = tmp_path / "maps"
    smoke = ["--config=configs/maps.py:smoke", f"--out={out}"]
    assert command.main(smoke) == 0
    text = capsys.readouterr().out
    assert "# PCA maps of 200 molecules" in text
    assert "trained is" in text
    dates = {p: p.stat().st_mtime_ns for p in (out / "embeddings").iterdir()}
    assert {p.name for p in dates} == {
        *("trained.npz", "trained.json", "morgan.npz", "morgan.json")
    }
    assert command.main([*smoke, "--config.map.color=scaffold"]) == 0
    assert dates == {p: p.stat().st_mtime_ns for p in (out / "embeddings").iterdir()}
    with pytest.raises(UserError, match="controls has morgn"):
        command.main([*smoke, "--config.embed.controls=('morgn',)"])
