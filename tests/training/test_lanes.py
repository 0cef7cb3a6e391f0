import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.training import checkpoint, lanes, loop
from chemscale_jax.training.lane_programs import Lane, LanePrograms, spreads_lanes
from chemscale_jax.training.optimizer import make_optimizer
from tests import toy

# Lanes and solo runs are compiled apart, so sums may be taken in another order; 40
# steps of Adam let the last bit grow.
SAME = 1e-5


class Seeded(toy.ToyStream):
    """Each seed has its own order and length of epochs, and another poisoned batch."""

    def __init__(self, seed: int, poison_epoch: int | None = None):
        super().__init__(poison_epoch)
        self.seed = seed

    def train_epoch(self, epoch):
        poison = 1 if epoch == self.poison_epoch else None
        return toy.ToyEpoch(
            epoch + 100 * self.seed, 3 + (epoch + self.seed) % 2, poison
        )


def make_config(seed, lr=0.05, **rules):
    rules = {
        "epochs": 6,
        "early_stop_epochs": 2,
        "plateau": {"factor": 0.5, "patience": 0, "floor": 1e-4, "threshold": 0.3},
        "checkpoint_every_steps": 2,
    } | rules
    config = toy.make_config(**rules)
    config.seed = seed
    config.optimizer.lr = lr
    config.optimizer.ema_decay = 0.5
    return config


# Rates so different that plateau and early stop come at different epochs.
CONFIGS = {
    "quick": make_config(0, lr=0.9),
    "slow": make_config(1, lr=0.01),
    "short": make_config(2, lr=0.3, max_steps=9),
}


def make_task(energy=1.0):
    task = toy.make_task()
    return dataclasses.replace(task, loss_weights={"square": energy})


def solo(path, config, task=None, stream=None):
    path.mkdir(parents=True)
    optimizer = make_optimizer(config.optimizer, 20, ())
    loop.train(
        task or make_task(),
        stream or Seeded(config.seed),
        optimizer,
        config,
        Workdir(path),
        partition.make_mesh(data=1),
    )
    return Workdir(path)


def together(path, configs, tasks=None, streams=None, rests=None, **mesh):
    pause_after, on_rest = rests or ((), None)
    made = []
    for k, config in enumerate(configs):
        folder = path / str(k)
        folder.mkdir(parents=True, exist_ok=True)
        task = tasks[k] if tasks else make_task()
        stream = streams[k] if streams else Seeded(config.seed)
        made.append(Lane(task, stream, config, Workdir(folder), 20))
    outcomes = lanes.train(
        made,
        partition.make_mesh(data=1, **mesh),
        pause_after=pause_after,
        on_rest=on_rest,
    )
    return outcomes, [lane.workdir for lane in made]


def timeless(workdir):
    return [{k: v for k, v in r.items() if k != "time"} for r in workdir.metrics()]


def assert_same_run(left, right, rtol=SAME):
    """Equal but for rounding: log, checkpoints and weights."""
    a, b = timeless(left), timeless(right)
    assert [{**r, "value": 0} for r in a] == [{**r, "value": 0} for r in b]
    np.testing.assert_allclose(
        [r["value"] for r in a], [r["value"] for r in b], rtol=rtol, atol=1e-7
    )
    steps = [
        sorted(p.name for p in w.checkpoints.glob("[0-9]*")) for w in (left, right)
    ]
    assert steps[0] == steps[1]
    assert checkpoint.best_step(left) == checkpoint.best_step(right)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6),
        checkpoint.load_variables(left),
        checkpoint.load_variables(right),
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("solo")
    return {name: solo(folder / name, config) for name, config in CONFIGS.items()}


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 2, 3])
def test_a_lane_equals_the_same_run_alone(alone, tmp_path, at_once):
    configs = [config.copy_and_resolve_references() for config in CONFIGS.values()]
    for config in configs:
        config.train.lanes_at_once = at_once
    outcomes, workdirs = together(tmp_path / "lanes", configs)
    for single, workdir in zip(alone.values(), workdirs, strict=True):
        assert_same_run(workdir, single)
    # The rules took effect, and at different moments.
    epochs = [outcome.progress.epoch for outcome in outcomes]
    assert len({*epochs}) > 1, epochs
    assert {outcome.state for outcome in outcomes} == {"finished"}
    assert outcomes[2].reason == "9 steps done"
    halved = [
        next(
            (i for i, x in enumerate(w.series("train", "lr")[1]) if x < 0.9 * lr), None
        )
        for w, lr in zip(workdirs, (0.9, 0.01, 0.3), strict=True)
    ]
    assert len({*halved}) > 1, halved


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdirs of lanes that nothing stopped."""
    _, workdirs = together(tmp_path_factory.mktemp("whole"), list(CONFIGS.values()))
    return workdirs


@pytest.mark.parametrize(
    ("lane", "at"),
    [
        pytest.param(0, (0, 1), marks=pytest.mark.slow),
        (1, (102, 0)),
        pytest.param(2, (201, 2), marks=pytest.mark.slow),
    ],
)
def test_lanes_cut_short_and_resumed_equal_unbroken_ones(whole, tmp_path, lane, at):
    configs = list(CONFIGS.values())

    class Crashing(Seeded):
        def iterate(self, epoch, start):
            for index in range(start, len(epoch)):
                if (epoch.epoch, index) == at:
                    raise ConnectionError("cut off")
                yield epoch[index]

    streams = [
        Crashing(c.seed) if k == lane else Seeded(c.seed) for k, c in enumerate(configs)
    ]
    with pytest.raises(ConnectionError):
        together(tmp_path / "cut", configs, streams=streams)
    outcomes, resumed = together(tmp_path / "cut", configs)
    for left, right in zip(resumed, whole, strict=True):
        assert timeless(left) == timeless(right)
        a, b = map(checkpoint.load_variables, (left, right))
        assert jax.tree.all(jax.tree.map(np.array_equal, a, b))
    assert all(outcome.state == "finished" for outcome in outcomes)


@pytest.mark.parametrize("at", [pytest.param((0, 1), marks=pytest.mark.slow), (102, 3)])
def test_lanes_asked_to_stop_go_on_where_they_were(whole, tmp_path, at):
    configs = list(CONFIGS.values())

    class Asking(Seeded):
        def iterate(self, epoch, start):
            for index in range(start, len(epoch)):
                if (epoch.epoch, index) == at:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield epoch[index]

    streams = [Asking(config.seed) for config in configs]
    outcomes, _ = together(tmp_path / "cut", configs, streams=streams)
    assert "interrupted" in {outcome.state for outcome in outcomes}
    _, resumed = together(tmp_path / "cut", configs)
    for left, right in zip(resumed, whole, strict=True):
        assert timeless(left) == timeless(right)


def test_lanes_pause_each_on_its_own_and_go_on_in_the_same_process(whole, tmp_path):
    configs = list(CONFIGS.values())
    seen = []
    # What each lane does next: the second waits for good.
    orders = iter([(2, 1, 3), (None, 1, None), (None, 1, None)])

    def on_rest(outcomes):
        seen.append([(o.state, o.progress.epoch) for o in outcomes])
        return next(orders)

    outcomes, workdirs = together(
        tmp_path / "lanes", configs, rests=((1, 1, None), on_rest)
    )
    assert seen[0] == [("paused", 1), ("paused", 1), ("finished", 2)]
    assert seen[1] == [("paused", 2), ("paused", 1), ("finished", 2)]
    assert [o.state for o in outcomes] == ["finished", "paused", "finished"]
    for k in (0, 2):
        assert timeless(workdirs[k]) == timeless(whole[k])
    # The one that waits goes on with the others done.
    outcomes, workdirs = together(tmp_path / "lanes", configs, rests=((1, 3, 1), None))
    assert [o.state for o in outcomes] == ["finished", "paused", "finished"]
    assert outcomes[1].progress.epoch == 3
    together(tmp_path / "lanes", configs)
    assert timeless(workdirs[1]) == timeless(whole[1])


def test_a_lane_that_diverges_leaves_the_others_unchanged(alone, tmp_path, capsys):
    configs = list(CONFIGS.values())
    streams = [Seeded(0), Seeded(1, poison_epoch=1), Seeded(2)]
    outcomes, workdirs = together(tmp_path / "lanes", configs, streams=streams)
    assert [o.state for o in outcomes] == ["finished", "failed", "finished"]
    assert "point-101-1-0" in outcomes[1].reason
    assert "lane 1 failed" in capsys.readouterr().err
    for k, name in ((0, "quick"), (2, "short")):
        assert_same_run(workdirs[k], alone[name])
    # What the lane saved before it failed is whole.
    assert checkpoint.best_step(workdirs[1]) == 4


def test_each_lane_has_its_decay_schedule_and_loss_weights(tmp_path):
    def weights_at(step):
        return {"square": jnp.where(step < 5, 0.1, 2.0)}

    tasks = [
        make_task(3.0),
        dataclasses.replace(make_task(2.0), weights_at=weights_at),
    ]
    configs = [make_config(seed, early_stop_epochs=0) for seed in (5, 6)]
    for config, decay in zip(configs, (0.1, 0.4), strict=True):
        config.optimizer.name = "adamw"
        config.optimizer.weight_decay = decay
        config.loss = {"alpha_energy": decay}
    configs[1].optimizer.schedule = "cosine"
    configs[1].optimizer.warmup_steps = 3
    _, workdirs = together(tmp_path / "lanes", configs, tasks)
    for k, (config, task) in enumerate(zip(configs, tasks, strict=True)):
        assert_same_run(workdirs[k], solo(tmp_path / f"{k}", config, task))


class Uneven(Seeded):
    """Some batches have fewer rows, and each seed has them elsewhere."""

    batch_specs = (
        *toy.SPECS,
        {
            k: jax.ShapeDtypeStruct((4, *s.shape[1:]), s.dtype)
            for k, s in toy.SPECS[0].items()
        },
    )

    def iterate(self, epoch, start):
        for index in range(start, len(epoch)):
            rows = 4 if (index + self.seed) % 2 and epoch.epoch != 1000 else 8
            yield {name: x[:rows] for name, x in epoch[index].items()}


def test_batches_of_several_shapes(tmp_path):
    configs = [make_config(seed, lr=0.1 * (1 + seed)) for seed in range(2)]
    streams = [Uneven(config.seed) for config in configs]
    _, workdirs = together(tmp_path / "lanes", configs, streams=streams)
    for k, config in enumerate(configs):
        single = solo(tmp_path / str(k), config, stream=Uneven(config.seed))
        assert_same_run(workdirs[k], single)


# Two devices get lanes of their own (one of them a place to spare), eight get rows.
@pytest.mark.parametrize("devices", [2, 8])
def test_lanes_over_several_devices_agree(alone, tmp_path, devices, monkeypatch):
    orders, gather = set(), LanePrograms.gather

    def noting(programs, groups, going_on):
        groups = gather(programs, groups, going_on)
        orders.add(groups.order)
        return groups

    monkeypatch.setattr(LanePrograms, "gather", noting)
    # The one in the middle is done first.
    names = ("slow", "short", "quick")
    made = [
        Lane(make_task(), Seeded(c.seed), c, Workdir(tmp_path / name), 20)
        for name, c in ((name, CONFIGS[name]) for name in names)
    ]
    for lane in made:
        lane.workdir.path.mkdir()
    mesh = partition.make_mesh(data=devices)
    assert spreads_lanes(len(made), mesh) == (devices == 2)
    lanes.train(made, mesh)
    # Of the two lanes that went on, one was taken to the other's side.
    assert len(orders) == (2 if devices == 2 else 1), orders
    for lane, name in zip(made, names, strict=True):
        assert_same_run(lane.workdir, alone[name])


def test_lanes_that_cannot_share_a_program_are_refused(tmp_path):
    first, other = make_config(0), make_config(1)
    other.optimizer.clip_norm = 1.0
    with pytest.raises(UserError, match=r"lane 1 differs.*optimizer.clip_norm: 0.0 ->"):
        together(tmp_path, [first, other])
    renamed = dataclasses.replace(make_task(), loss_weights={"frames": 1.0})
    with pytest.raises(UserError, match=r"loss terms \['frames'\]"):
        together(tmp_path, [first, make_config(1)], [make_task(), renamed])
    assert json.dumps(first.to_dict())
    first.optimizer.offload = True
    with pytest.raises(UserError, match="offload is for a run that is trained by"):
        together(tmp_path, [first, make_config(1)])
