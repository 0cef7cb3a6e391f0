"""Settings that Optuna chooses, with a trainer that only writes files."""

import math

import pytest

from chemscale_jax.studies.cell_source import OptunaCells
from chemscale_jax.studies.cells import Cell, cell_name
from chemscale_jax.studies.optuna_trials import OptunaTrials
from chemscale_jax.studies.search_space import parse_space
from tests.studies import test_sweep
from tests.studies.test_sweep import rows, run

optuna = pytest.importorskip("optuna")
fake = test_sweep.fake
SPACE = parse_space({"optimizer.lr": "log(1e-4, 1e-1)", "train.seed": "int(0, 2)"})


def make(settings):
    return Cell(cell_name(settings), (), {}, None, settings)  # pyright: ignore


def cells(folder, number=10, generation=4, seed=0):
    trials = OptunaTrials(SPACE, f"sqlite:///{folder}/o.db", "study", folder, seed)
    return OptunaCells(trials, make, number, generation)


def score(cell):
    return abs(math.log(cell.chosen["optimizer.lr"] / 0.003))


def advance(source):
    source.advance({cell.name: score(cell) for cell in source.cells})


@pytest.mark.slow
def test_generations_are_asked_for_until_there_are_enough(tmp_path):
    source = cells(tmp_path)
    assert len(source.cells) == 4
    assert not source.complete
    advance(source)
    assert len(source.cells) == 8
    advance(source)
    assert len(source.cells) == 10
    assert source.complete
    assert source.wants_scores
    advance(source)
    assert len(source.cells) == 10
    assert not source.wants_scores


def test_the_study_goes_on_where_it_was(tmp_path):
    (tmp_path / "cut").mkdir()
    whole, cut = cells(tmp_path), cells(tmp_path / "cut")
    for _ in range(2):
        advance(whole)
        # As after a kill: known from the storage alone, told or not.
        cut = cells(tmp_path / "cut")
        advance(cut)
        cut = cells(tmp_path / "cut")
    assert [cell.name for cell in cut.cells] == [cell.name for cell in whole.cells]
    assert cells(tmp_path).complete


@pytest.mark.slow
def test_a_generation_that_a_kill_cut_short_is_completed(tmp_path, monkeypatch):
    ask = OptunaTrials.ask

    def dies(self):
        if len(self.own()) == 6:
            raise KeyboardInterrupt
        return ask(self)

    source = cells(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(OptunaTrials, "ask", dies)
        with pytest.raises(KeyboardInterrupt):
            advance(source)
    assert len(cells(tmp_path).cells) == 8


@pytest.mark.slow
def test_two_sweeps_share_a_study_and_train_their_own_trials(tmp_path):
    storage = f"sqlite:///{tmp_path}/shared.db"
    own = []
    for name in ("a", "b"):
        trials = OptunaTrials(SPACE, storage, "one", tmp_path / name, 0)
        source = OptunaCells(trials, make, 4, 4)
        advance(source)
        own.append({cell.name for cell in source.cells})
    assert not own[0] & own[1]
    study = optuna.load_study(study_name="one", storage=storage)
    assert len(study.trials) == 8
    assert all(trial.value is not None for trial in study.trials)


def test_runs_that_diverge_are_told_as_the_worst(tmp_path):
    source = cells(tmp_path)
    scores = {cell.name: score(cell) for cell in source.cells}
    scores[source.cells[0].name] = math.inf
    source.advance(scores)
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path}/o.db")
    assert study.trials[0].value == math.inf
    assert study.best_value == min(scores.values())


def test_a_sweep_learns_from_the_first_scores(fake, tmp_path):
    told = fake(
        search="optuna",
        policy="tpe",
        settings=["--policy.fraction=0.34"],
        space=["optimizer.lr=log(1e-4, 1e-1)"],
        trials=6,
        generation=3,
    )
    run(told)
    found = rows(tmp_path / "sweep")
    assert len(found) == 6
    assert sorted(int(row["epochs"]) for row in found.values()) == [3] * 5 + [9]
    # A second command asks for nothing more.
    assert run(told)[2]
    assert rows(tmp_path / "sweep") == found
