import dataclasses
import itertools

import pytest

from chemscale_jax.commands import plan as plan_command
from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.devices import CPU, DEVICES
from chemscale_jax.studies.plan import PLAN, Planner, make_plan, study_cells
from chemscale_jax.studies.planned_cell import PlannedCell, data_of, plan_table

STUDIES = ("force_fields", "painn_ani1x", "chemgpt", "unimol2")
H100 = DEVICES["h100"]


def cells_of(config, folder, *overrides):
    return study_cells(f"scaling_{config}", folder, overrides)


def planned_cell(**changes):
    numbers = {
        field.name: 1.0 if "per_step" in field.name else 8
        for field in dataclasses.fields(PlannedCell)
    }
    known = {"name": "a", "config": "", "dtype": "float32", "stand_in": False}
    known |= {"molecules": None, "tokens": None, "compiled_bytes": None}
    return PlannedCell(**{**numbers, "open_loops": 0, **known, **changes})


@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_of_every_study_has_a_config(name, tmp_path):
    module = config_files.load_module(config_files.find(f"scaling_{name}.py"))
    for form in module.FORMS:
        cells = list(module.study(form))
        # Another name for each, so that no two share a default folder.
        names = set()
        for cell in cells:
            first, *fields = config_files.cell_arguments(f"x.py:{form}", cell)
            assert not fields
            config = module.get_config(first.partition(":")[2])
            assert config.form == form
            names.add(config.name)
        assert len(names) == len(cells) > 1


def test_the_grids_are_those_that_are_stated():
    def grid(name, form):
        module = config_files.load_module(config_files.find(f"scaling_{name}.py"))
        return [tuple(cell.values()) for cell in module.study(form)]

    # Paper: three widths by three depths by four sizes; Allegro without two of them.
    assert len(grid("force_fields", "full")) == 4 * (9 + 9 + 7)
    small = grid("force_fields", "small")
    assert len(small) == 3 * 3 * 4
    assert max(width for _, width, _, _ in small) <= 32
    # Equal capacities at two depths tell capacity from parameters.
    medium = {(w, d) for _, w, d, _ in grid("force_fields", "medium")}
    crossings = [
        (a, b)
        for a, b in itertools.combinations(medium, 2)
        if a[0] * a[1] == b[0] * b[1]
    ]
    assert len(crossings) == 2
    assert len(grid("chemgpt", "full")) == 8 * 5
    assert len(grid("chemgpt", "small")) == 4 * 4
    assert len(grid("unimol2", "full")) == 6
    assert len(grid("unimol2", "small")) == 3 * 4


def test_cells_of_the_small_study_take_equal_numbers_of_updates():
    for frames in (100, 316, 1_000, 3_162):
        config = config_files.load(f"scaling_force_fields.py:small,frames={frames}")
        assert config.train.max_steps == 1_500
        assert config.train.ensemble == 3
        assert config.optimizer.schedule == "cosine"
        assert config.loss.alpha_energy == 0
        assert 2_900 < config.data.passes * frames <= 3_200


@pytest.mark.slow
def test_a_language_model_of_absent_data_costs_what_the_paper_says(tmp_path):
    cells = cells_of("chemgpt.py:full", tmp_path)
    assert len(cells) == 40
    one = Planner().plan(cells[0])
    # Width 16: parameters without embeddings, and 100 rows in 13 batches, 10 times.
    assert one.parameters_nonembedding == 77_600
    assert (one.steps, one.batch, one.tokens) == (130, 8.0, 51_200)
    assert one.stand_in
    # By formula 1.69e6 per token, of dense causal attention and matrix products.
    assert 1.5e6 < one.flops_per_step / 4096 < 6e6
    table = plan_table([one], H100)
    assert "the data are not on this machine" in table
    assert "77,600" in table


def test_cells_that_share_a_program_are_traced_once_and_a_plan_is_kept(
    tmp_path, monkeypatch
):
    cells = cells_of("chemgpt.py:smoke", tmp_path)[:1]
    (first,) = make_plan(cells, tmp_path)
    assert (tmp_path / PLAN).exists()
    assert first.seeds == 2
    assert first.steps == 12

    def never(*_):
        raise AssertionError("it was planned before")

    monkeypatch.setattr(Planner, "plan", never)
    assert make_plan(cells, tmp_path) == [first]
    changed = cells_of("chemgpt.py:smoke", tmp_path, "--config.train.max_steps=13")[:1]
    with pytest.raises(AssertionError):
        make_plan(changed, tmp_path)


def test_sizes_that_nobody_states_are_an_error(tmp_path):
    (cell, *_) = cells_of("painn_ani1x.py:full", tmp_path, "--config.data.train_size=0")
    with pytest.raises(UserError, match=r"does not say how many to train on"):
        Planner().plan(cell)


def test_hours_and_memory_count_the_seeds():
    one, three = planned_cell(seeds=1), planned_cell(seeds=3)
    assert three.hours(H100) == pytest.approx(3 * one.hours(H100))
    assert three.memory(H100) == 3 * one.memory(H100)
    assert one.memory(H100) == 8 + 8
    # A processor takes rows one at a time.
    cpu = dataclasses.replace(H100, name=CPU)
    assert one.memory(cpu) == 8 + 8 / 8
    assert planned_cell(compiled_bytes=4.0).memory(cpu) == 8 * 8 + 4 / 8
    assert data_of(one) == "8 frames"


def test_what_does_not_fit_is_named():
    small = dataclasses.replace(H100, memory=1.0)
    assert "does not fit one h100: a" in plan_table([planned_cell()], small)
    assert "does not fit" not in plan_table([planned_cell()], H100)


def test_a_config_without_a_study(tmp_path):
    with pytest.raises(UserError, match=r"has no study\(arguments\)"):
        study_cells("painn_ani1x.py", tmp_path, [])


def test_the_command_refuses_what_it_cannot_read():
    with pytest.raises(UserError, match="cannot read argument"):
        plan_command.main(["--config=scaling_chemgpt.py:smoke", "--bogus"])


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_faithful_studies_pass_the_dry_run(name, capsys):
    argv = [f"--config=scaling_{name}.py", "--device=h100"]
    assert plan_command.main(argv) == 0
    out = capsys.readouterr().out
    assert "hours on one h100" in out
    if name == "unimol2":
        # 838 million molecules each; Table 2's sizes.
        assert "818,359" in out
    if name == "chemgpt":
        assert "1,208,455,168" in out
