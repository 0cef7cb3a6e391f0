import dataclasses
import pathlib

import jax
import pytest

from chemscale_jax.commands import plan
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.cells import single_cell
from chemscale_jax.studies.devices import DEVICES
from chemscale_jax.studies.mesh_plan import (
    MeshSizes,
    mesh_table,
    parse_mesh,
    plan_on_mesh,
)
from chemscale_jax.studies.plan import Planner

H100 = DEVICES["h100"]


def test_meshes_are_written_as_axes_and_devices():
    assert parse_mesh("data=8,fsdp=4") == MeshSizes(8, 4, 1)
    assert parse_mesh("tensor=2").devices == 2
    assert str(parse_mesh("data=8,fsdp=4")) == "data=8 fsdp=4"
    for wrong in ("8", "data", "data=0", "data=-1", "rows=2", "data=2;fsdp=2"):
        with pytest.raises(UserError, match="is not AXIS=DEVICES"):
            parse_mesh(wrong)


def on_meshes(config, folder, rows, *meshes, depth=2, more=()):
    flags = [f"--config.batch.rows={rows}", f"--config.model.depth={depth}", *more]
    cell = single_cell(config, folder, flags)
    planner = Planner()
    prepared, alone = planner.prepare(cell), planner.plan(cell)
    return [plan_on_mesh(prepared, alone, MeshSizes(*sizes), H100) for sizes in meshes]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A tiny language model on one device and on eight."""
    folder = tmp_path_factory.mktemp("plan") / "run"
    return on_meshes("configs/chemgpt.py:smoke", folder, 8, (1, 1, 1), (2, 4, 1))


def test_a_mesh_shares_the_work_and_the_state(planned):
    one, eight = planned
    assert sum(one.exchange.by_kind.values()) == 0
    assert eight.exchange.within > 0
    assert eight.exchange.across == 0
    # Parameters and both moments over four devices, but for norms and biases.
    state = one.cell.state_bytes
    assert state < one.state_bytes < 1.3 * state
    assert eight.state_bytes < 0.45 * one.state_bytes
    assert eight.step_bytes < one.step_bytes
    busy = dataclasses.replace(H100, overhead_s=0.0)
    work = eight.step_s(busy) - eight.sending_s(busy)
    assert work == pytest.approx(one.step_s(busy) / 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", ["configs/chemgpt.py:smoke", "configs/unimol2_pretrain.py:smoke"]
)
def test_layers_exchange_parameters_and_no_activations(config, tmp_path):
    def of_rows(depth):
        """What eight more rows add, all of it outside of the layers."""
        few, many = (
            on_meshes(
                config, tmp_path / f"{depth}-{rows}", rows, (2, 4, 1), depth=depth
            )
            for rows in (8, 16)
        )
        return many[0].exchange.within - few[0].exchange.within

    assert of_rows(4) == pytest.approx(of_rows(2), rel=0.02)


def test_moments_on_the_host_make_room_and_take_time(planned, tmp_path):
    here = planned[0]
    offload = "--config.optimizer.offload=True"
    (away,) = on_meshes(
        "configs/chemgpt.py:smoke", tmp_path / "run", 8, (1, 1, 1), more=[offload]
    )
    # Two numbers for each parameter, and the number of updates.
    assert away.host_bytes == 8 * away.cell.parameters + 4
    assert away.memory == here.memory - away.host_bytes
    waited = 2 * away.host_bytes / H100.host_link
    assert away.step_s(H100) == pytest.approx(here.step_s(H100) + waited)
    assert "wait in its host's memory" in mesh_table([away], H100)
    assert "wait in its host's memory" not in mesh_table([here], H100)


def test_what_does_not_fit_is_said_with_how_much(planned):
    small = dataclasses.replace(H100, memory=planned[1].memory)
    table = mesh_table(planned[1:], small, price=2.0)
    assert "data=2 fsdp=4" in table
    assert "no, " in table
    assert "GB too much" in table
    assert "all-reduce" in table
    assert planned[1].fits(dataclasses.replace(small, memory=small.memory / 0.9))


def test_the_command_plans_a_run_without_a_study(capsys):
    assert len(jax.devices()) == 8
    flags = ["--mesh=data=2", "--device=h100", "--config.batch.rows=8"]
    assert plan.main([*flags, "--config=configs/chemgpt.py:smoke"]) == 0
    assert "data=2" in capsys.readouterr().out
    assert not pathlib.Path("plan").exists()
    with pytest.raises(UserError, match="does not divide over 5 devices"):
        plan.main(["--config=configs/chemgpt.py:smoke", "--mesh=data=5"])
