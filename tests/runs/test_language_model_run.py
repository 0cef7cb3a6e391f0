"""A language model from the command line: trained, resumed, reported and sampled."""

import csv

import pytest

from chemscale_jax import __main__ as console
from chemscale_jax import main
from chemscale_jax.core.likelihoods import Likelihoods
from chemscale_jax.core.workdir import Workdir, read_json

SMOKE = "--config=configs/chemgpt.py:smoke"
# One device takes all rows of a batch at once, for which less is compiled.
AT_ONCE = ["--config.mesh.data=1", "--config.train.rows_at_once=8"]
TINY = [
    *AT_ONCE,
    "--config.batch.buckets=(128,)",
    "--config.batch.rows=8",
    "--config.batch.tokens=1024",
    "--config.model.width=16",
    "--config.data.embedded_molecules=120",
    "--config.sample.molecules=8",
    "--config.sample.reference=8",
    "--config.sample.max_tokens=24",
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("language") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(console.__file__.rsplit("/", 2)[0])
        assert main.main(["main", SMOKE, *TINY, f"--workdir={path}"]) == 0
    return Workdir(path)


def test_report_tells_losses_samples_and_limits(workdir):
    card = workdir.card.read_text()
    assert "nats/molecule" in card
    assert "| novelty" in card
    assert "It writes selfies and knows" in card
    assert (workdir.plots / "learning_curves.png").stat().st_size > 5000
    assert (workdir.samples / "properties.png").exists()
    assert read_json(workdir.samples / "metrics.json")


def test_losses_are_logged_in_every_unit(workdir):
    at = {name: workdir.series("valid", name)[1] for name in ("nll", "nll_molecule")}
    assert len(at["nll"]) == 2
    assert at["nll"][1] < at["nll"][0]
    # A molecule has a few dozen targets.
    assert 10 < at["nll_molecule"][0] / at["nll"][0] < 100
    facts = workdir.artifacts()
    sizes = facts["training_set"]
    assert sizes["molecules"] + facts["validation_set"]["molecules"] <= 120
    assert sizes["tokens"] == sizes["symbols"] + 2 * sizes["molecules"]


def test_molecules_scored_alone_have_the_logged_loss(workdir):
    found = Likelihoods.load(workdir.predictions / "valid.npz")
    assert len(found) == workdir.artifacts()["validation_set"]["molecules"]
    # The second epoch is the better one, whose weights are kept.
    logged = {n: workdir.series("valid", n)[1][1] for n in ("nll", "nll_molecule")}
    assert found.nats.mean() == pytest.approx(logged["nll_molecule"], rel=1e-4)
    assert found.nats.sum() / found.tokens.sum() == pytest.approx(
        logged["nll"], rel=1e-4
    )
    assert "| scored alone" in workdir.card.read_text()


def test_sampling_writes_likelihoods_and_prints_the_metrics(workdir, tmp_path, capsys):
    out = tmp_path / "generated.csv"
    command = console.load("sample")
    arguments = [f"--workdir={workdir.path}", "--num=6", f"--out={out}", "--max-new=24"]
    assert command.main(arguments) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert all(float(row["log_likelihood"]) < 0 for row in rows)
    assert "IntDiv" in capsys.readouterr().out


def test_an_exported_model_is_fine_tuned(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(console.__file__.rsplit("/", 2)[0])
    exported, molecules = tmp_path / "exported", tmp_path / "mine.smi"
    command = console.load("export")
    assert command.main([f"--workdir={workdir.path}", f"--out={exported}"]) == 0
    molecules.write_text("".join(f"{'C' * n}O\n{'C' * n}N\n" for n in range(1, 31)))
    arguments = [
        "--config=configs/chemgpt.py:finetune,width=16",
        "--config.model.depth=2",
        "--config.train.epochs=2",
        f"--config.init_from={exported}",
        f"--config.data.path={molecules}",
        *AT_ONCE,
        "--config.batch.buckets=(48,)",
        "--config.batch.tokens=384",
        "--config.sample.molecules=0",
    ]
    path = tmp_path / "tuned"
    assert main.main(["main", *arguments, f"--workdir={path}"]) == 0
    assert "26 of 26 arrays taken" in capsys.readouterr().out
    losses = Workdir(path).series("valid", "nll_molecule")[1]
    assert losses[-1] < losses[0]


def test_resuming_a_finished_run_changes_nothing(workdir, monkeypatch, capsys):
    monkeypatch.chdir(console.__file__.rsplit("/", 2)[0])
    before = workdir.metrics_jsonl.read_bytes()
    assert main.main(["main", SMOKE, *TINY, f"--workdir={workdir.path}"]) == 0
    assert "resumed at step" in capsys.readouterr().out
    assert workdir.metrics_jsonl.read_bytes() == before
