"""Losses and the contract of predicting properties of molecules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.batches import PropertyRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import merge
from chemscale_jax.models import unimol2
from chemscale_jax.tasks import TASKS
from chemscale_jax.tasks.property_losses import property_metrics, read_targets
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.step import init_state, make_init, make_train_step
from tests.models import unimol2_rows
from tests.tasks.test_force_field import counted
from tests.toy import common

SIZES = (5, 8, 1, 7, 2, 8, 6, 3)
RULES = {"embed": "fsdp", "hidden": "tensor", "heads": "tensor", "vocabulary": "tensor"}
NETWORK = {"width": 16, "depth": 1, "heads": 2, "pair_width": 8, "pair_hidden": 4}


def artifacts(kind="regression", **changes):
    """What a stream says of two targets, or of one with three classes."""
    classes = kind == "multiclass"
    targets = {
        "names": ["colour"] if classes else ["mu", "gap"],
        "units": [""] if classes else ["D", "eV"],
        "kind": kind,
        "classes": ["red", "green", "blue"] if classes else [],
        "scaling": {"method": "standard", "shift": [1.0, 2.0], "scale": [0.5, 4.0]},
        "positive_weight": [3.0, 1.0] if kind == "binary" else [],
    }
    return {"targets": {**targets, **changes}}


def make_config(form="tanh", **model):
    config = common.base()
    config.task = "property_regression"
    fields = {"name": "unimol2", "size": "tiny", "variant": "clean", **NETWORK}
    config.model = {**fields, "distance_scale": 0.5, **model}
    config.data = {"stream": "properties", "source": "file"}
    config.head = {"form": form, "dropout": 0.1}
    config.loss = {"regression": "smooth_l1", "balance": True}
    config.optimizer.lr = 3e-3
    return config


def rows_of(molecules, places, labels=None, mask=None):
    """Molecules with labels of two targets, all there unless a mask is given."""
    M = len(molecules)
    rows = unimol2_rows.batch(molecules, places)
    if labels is None:
        labels = np.random.default_rng(0).normal(size=(M, 2))
    if mask is None:
        mask = np.ones((M, 2), bool)
    shown = np.where(mask, labels, 0.0)
    return PropertyRows(
        rows,
        jnp.asarray(shown, jnp.float32),
        jnp.asarray(mask),
        jnp.arange(M, dtype=jnp.uint32),
    )


def padded(batch, rows):
    return jax.tree.map(
        lambda x: np.concatenate([x, np.zeros((rows, *x.shape[1:]), x.dtype)]), batch
    )


def make_task(config, *batches, facts=None):
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batches)
    return TASKS[config.task](config, specs, facts or artifacts())


@pytest.fixture(scope="module")
def setting():
    """Config, task and a batch of eight molecules, some labels missing."""
    molecules = [unimol2_rows.molecule(n, seed=i) for i, n in enumerate(SIZES)]
    mask = np.ones((8, 2), bool)
    mask[1:3, 0] = mask[3:, 1] = False
    config, batch = make_config(), rows_of(molecules, 8, mask=mask)
    return config, make_task(config, batch), batch, molecules


def metrics_of(kind, outputs, labels, mask, loss="smooth_l1", **changes):
    targets = read_targets(artifacts(kind, **changes))
    found = property_metrics(
        targets,
        targets.constants,
        loss,
        jnp.asarray(outputs, jnp.float32),
        jnp.asarray(labels, jnp.float32),
        jnp.asarray(mask),
    )
    return {name: (float(m.value()), float(m.count)) for name, m in found.items()}


def test_errors_of_numbers_by_hand():
    outputs, labels = [[0.5, 3.0], [9.0, -1.0]], [[0.0, 1.0], [np.nan, 0.0]]
    mask = [[True, True], [False, True]]
    found = metrics_of("regression", outputs, labels, mask)
    # Errors of 0.5, 2 and 1: below 1 squared, above linear.
    assert found["smooth_l1"] == pytest.approx(((0.125 + 1.5 + 0.5) / 3, 3))
    assert found["mae"] == pytest.approx((3.5 / 3, 3))
    assert found["mae_mu"] == pytest.approx((0.25, 1))
    assert found["mae_gap"] == pytest.approx((6.0, 2))
    found = metrics_of("regression", outputs, labels, mask, "l2")
    assert found["l2"] == pytest.approx((5.25 / 3, 3))
    found = metrics_of("regression", outputs, labels, mask, "l1")
    assert found["l1"] == found["mae"]
    # The unit of an error of logarithms is not that of the target.
    logs = {"method": "log1p", "shift": [0.0, 0.0], "scale": [1.0, 1.0]}
    found = metrics_of("regression", outputs, labels, mask, scaling=logs)
    assert set(found) == {"smooth_l1", "mae"}


def test_losses_of_classes_by_hand():
    outputs, mask = [[2.0, -1.0], [-2.0, 0.5]], [[True, True], [True, False]]
    found = metrics_of("binary", outputs, [[1, 1], [1, np.nan]], mask)
    nll = np.log1p(np.exp([-2.0, 1.0, 2.0]))
    assert found["nll"] == pytest.approx((nll.mean(), 3))
    # Labels 1 of the first target count three times, at a logit moved by log 3.
    moved = np.log1p(np.exp([-2.0, 2.0]) / 3)
    assert found["bce"] == pytest.approx(((3 * moved.sum() + nll[1]) / 3, 3))
    assert found["accuracy"] == pytest.approx((1 / 3, 3))
    found = metrics_of(
        "multiclass", [[1.0, 2.0, 0.0]] * 3, [[1], [2], [0]], [[True], [True], [False]]
    )
    total = np.log(np.exp([1.0, 2.0, 0.0]).sum())
    assert found["ce"] == pytest.approx((total - 1.0, 2))
    assert found["accuracy"] == pytest.approx((0.5, 2))


def test_a_balanced_loss_is_least_at_the_share_of_labels():
    labels, mask = jnp.array([[1.0]] + [[0.0]] * 3), jnp.ones((4, 1), bool)
    targets = read_targets(artifacts("binary", names=["x"], positive_weight=[3.0]))

    def loss(logit):
        outputs = jnp.full((4, 1), logit)
        found = property_metrics(
            targets, targets.constants, "l1", outputs, labels, mask
        )
        return found["bce"].value()

    assert float(jax.grad(loss)(np.log(1 / 3))) == pytest.approx(0.0, abs=1e-6)


def test_padding_company_and_missing_labels_change_nothing(setting):
    _, task, batch, molecules = setting
    params = unimol2_rows.rough(unimol2.Unimol2Options(16, 1, 2, 8, 4))
    head = jax.device_get(task.init(jax.random.key(3))["params"]["head"])
    params = {**params, "head": jax.tree.map(lambda x: 5 * x, head)}
    evaluate = jax.jit(task.eval_fn)
    constants = task.init(jax.random.key(3))["constants"]
    np.testing.assert_allclose(constants["targets"]["spread"], [0.5, 4.0])
    whole = evaluate(params, constants, batch)
    assert {"smooth_l1", "mae", "mae_mu", "mae_gap"} < set(whole)
    labels, mask = np.asarray(batch.targets_BT), np.asarray(batch.target_mask_BT)
    parts = []
    for chosen, places, spare in (([3, 0, 5, 7], 11, 0), ([1, 2, 4, 6], 11, 2)):
        some = [molecules[i] for i in chosen]
        part = padded(rows_of(some, places, labels[chosen], mask[chosen]), spare)
        # A label that is masked has no say, whatever it is.
        odd = np.where(part.target_mask_BT, part.targets_BT, 77.0)
        parts.append(
            evaluate(params, constants, part._replace(targets_BT=jnp.asarray(odd)))
        )
    halves = merge(*parts)
    for name in set(whole) - {"atom_fill"}:
        # Float32 sums in another order.
        np.testing.assert_allclose(halves[name].total, whole[name].total, rtol=3e-5)
    assert halves["smooth_l1"].count == whole["smooth_l1"].count == mask.sum()
    assert whole["molecules"].total == 8


@pytest.mark.parametrize("form", ["tanh", "linear"])
def test_each_parameter_has_one_rule_and_no_rule_is_dead(setting, form):
    config, task = make_config(form), make_task(make_config(form), setting[2])
    optimizer = make_optimizer(config.optimizer, 10, ())
    mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
    _, placed = make_init(task, optimizer, RULES, mesh)
    assert set(placed.params["head"]) == {"out", *(["dense"] * (form == "tanh"))}
    assert "token_head" not in placed.params


@pytest.mark.slow
def test_meshes_agree(setting):
    config, task, batch, _ = setting
    optimizer = make_optimizer(config.optimizer, 10, ())
    losses = []
    meshes = (
        partition.make_mesh(data=1),
        partition.make_mesh(data=2, fsdp=2, tensor=2),
    )
    for mesh in meshes:
        init, shardings = make_init(task, optimizer, RULES, mesh)
        rows, whole = partition.row_sharding(mesh), partition.replicated(mesh)
        step, traces = counted(make_train_step(task, optimizer, 0))
        step = jax.jit(
            step,
            in_shardings=(shardings, rows, whole),
            out_shardings=(shardings, whole),
        )
        state = init(0)
        for _ in range(2):
            state, output = step(state, jax.device_put(batch, rows), np.bool_(False))
        assert traces == [1]
        losses.append(float(output.loss))
    # Only the order of summation differs.
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_loss_falls_and_frozen_parameters_stay(setting):
    _, _, batch, _ = setting
    still = {"dropout": 0.0, "attention_dropout": 0.0, "pair_dropout": 0.0}
    config = make_config("linear", **still)
    config.head.dropout = 0.0
    task = make_task(config, batch)
    optimizer = make_optimizer(config.optimizer, 200, ("^layers/",))
    step = jax.jit(make_train_step(task, optimizer, 0))
    state = init_state(task, optimizer, 0)
    before, found = jax.device_get(state.params), []
    for _ in range(60):
        state, output = step(state, batch, jnp.asarray(False))
        found.append(float(output.loss))
    # Without a layer that moves, embeddings and head fit eight molecules slowly.
    assert found[-1] < 0.7 * found[0]
    after = jax.device_get(state.params)
    same = jax.tree.map(np.array_equal, before, after)
    assert jax.tree.all(same["layers"])
    assert not jax.tree.all(same["head"])
    assert not same["tokens"]["embedding"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.form": "wide"}, r"head.form is 'wide', expected \('tanh', 'linear'\)"),
        ({"head.dropout": 1.0}, r"head.dropout is 1.0, must be in \[0, 1\)"),
        ({"loss.regression": "l3"}, r"regression is 'l3', expected \('smooth_l1'"),
        ({"model.size": "2B"}, r"size is '2B', expected \('tiny'"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    config = make_config()
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        TASKS[config.task](config, (), artifacts())


def test_data_without_targets_are_refused():
    with pytest.raises(UserError, match=r"have no targets.*stream='properties'"):
        TASKS["property_regression"](make_config(), (), {})
    odd = artifacts("multiclass", names=["a", "b"])
    with pytest.raises(UserError, match=r"give one target of two or more classes"):
        read_targets(odd)
