"""Pretraining from the command line: trained, reported, and resumed exactly."""

import jax
import numpy as np
import pytest

from chemscale_jax import __main__ as console
from chemscale_jax import main
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data.conformers.molecule_stream import MoleculeStream
from chemscale_jax.training import checkpoint

SMOKE = [
    "--config=configs/unimol2_pretrain.py:smoke",
    "--config.train.checkpoint_every_steps=2",
    "--config.log.every_steps=1",
    # One device takes all rows at once, for which less is compiled.
    "--config.mesh.data=1",
    "--config.train.rows_at_once=8",
]


def run(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(console.__file__.rsplit("/", 2)[0])
        assert main.main(["main", *SMOKE, f"--workdir={path}"]) == 0
    return Workdir(path)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return run(tmp_path_factory.mktemp("pretraining") / "run")


def test_the_report_has_every_loss_beside_its_baseline(workdir):
    card = workdir.card.read_text()
    for title in ("masked elements", "coordinates", "distances"):
        assert f"| {title}" in card
    assert "without a network" in card
    assert (workdir.plots / "learning_curves.png").stat().st_size > 5000
    terms = {"token": "token_entropy", "coord": "coord_zero", "dist": "dist_noised"}
    for term, baseline in terms.items():
        _, losses = workdir.series("valid", term)
        assert len(losses) == 2
        # The same noise each time, so the same baseline.
        assert len(set(workdir.series("valid", baseline)[1])) == 1
        assert len(workdir.series("train", term)[1]) > 2
    # Little is learned in seconds, but elements are.
    losses = workdir.series("valid", "token")[1]
    assert losses[1] < losses[0]
    total = sum(workdir.series("valid", term)[1][-1] for term in terms)
    assert workdir.series("valid", "loss")[1][-1] == pytest.approx(total, rel=1e-5)


def test_an_interrupted_run_goes_on_exactly(workdir, tmp_path, monkeypatch):
    iterate = MoleculeStream.iterate

    def cut(self, epoch, start):
        for index, batch in enumerate(iterate(self, epoch, start)):
            if epoch is self.train_epoch(1) and index == 3:
                raise ConnectionError("cut off")
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(MoleculeStream, "iterate", cut)
        with pytest.raises(ConnectionError):
            run(tmp_path / "cut")
    resumed = run(tmp_path / "cut")

    def timeless(found):
        return [{k: v for k, v in r.items() if k != "time"} for r in found.metrics()]

    assert timeless(resumed) == timeless(workdir)
    left, right = map(checkpoint.load_variables, (resumed, workdir))
    assert jax.tree.all(jax.tree.map(np.array_equal, left, right))
