import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import config_files, partition
from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import loss_of, merge
from chemscale_jax.data import STREAMS
from chemscale_jax.tasks import TASKS, force_field
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.step import (
    choose_slices,
    init_state,
    make_init,
    make_train_step,
)


@pytest.fixture(scope="module")
def setting():
    """Config, task and first batch of the smoke form."""
    config = config_files.load("configs/painn_ani1x.py:smoke")
    config.data.train_size = 64
    config.data.valid_size = 8
    config.optimizer.warmup_steps = 0
    stream = STREAMS[config.data.stream](config, 0, 1)
    task = TASKS[config.task](config, stream.batch_specs, stream.artifacts)
    return config, task, stream.train_epoch(0)[0]


def test_every_term_on_hand_worked_errors():
    # Two molecules of one and two atoms; the second has no energy label.
    pack = GraphPack(
        positions_N3=jnp.zeros((4, 3)),
        species_N=jnp.asarray([1, 6, 8, 0]),
        molecule_N=jnp.asarray([0, 1, 1, 2]),
        senders_E=jnp.asarray([3]),
        receivers_E=jnp.asarray([3]),
        molecule_mask_M=jnp.asarray([True, True, False]),
        charge_M=jnp.zeros(3),
        spin_M=jnp.zeros(3),
        energy_M=jnp.asarray([1.0, jnp.nan, 0.0]),
        energy_mask_M=jnp.asarray([True, False, False]),
        forces_N3=jnp.zeros((4, 3)).at[3].set(jnp.nan),
        forces_mask_N=jnp.asarray([True, True, True, False]),
    )
    forces_N3 = jnp.asarray(
        [[3.0, 4.0, 0.0], [0.0, 0.0, 1.0], [2.0, -2.0, 0.0], [9.0, 9.0, 9.0]]
    )
    metrics = force_field.row_metrics(pack, jnp.asarray([3.0, 7.0, 5.0]), forces_N3)
    found = {name: float(mean.value()) for name, mean in metrics.items()}
    expected = {
        "energy_l1": 2.0,
        "energy_l2": 4.0,
        "force_l1_component": 12.0 / 9,  # over nine real components
        "force_l2_component": 34.0 / 9,
        "force_l1_equation": (5.0 + 3.0) / 2,  # norms of the molecules
        "force_l2_equation": (25.0 + 9.0) / 2,
        "energy_mae": 2000.0,  # meV per atom
        "force_mae": 12000.0 / 9,
        "frames": 2.0,
        "node_fill": 0.75,
        "edge_fill": 0.0,
    }
    assert found == pytest.approx(expected)


def test_labels_that_are_missing_leave_gradients_finite(setting):
    _, task, batch = setting
    variables = task.init(jax.random.key(0))
    missing = batch._replace(
        energy_M=np.full_like(batch.energy_M, np.nan),
        energy_mask_M=np.zeros_like(batch.energy_mask_M),
    )

    def loss(params):
        metrics = task.loss_fn(params, {}, missing, jax.random.key(0))
        return loss_of(metrics, task.loss_weights)

    grads = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
    assert float(optax_norm(grads)) > 0


def optax_norm(tree):
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def test_force_only_training_has_no_energy_term(setting):
    config, _, _ = setting
    config = config.copy_and_resolve_references()
    config.loss.alpha_energy = 0.0
    task = TASKS[config.task](config, (), {})
    assert dict(task.loss_weights) == {"force_l1_component": 1.0}
    config.loss.power, config.loss.form = "l2", "equation"
    task = TASKS[config.task](config, (), {})
    assert dict(task.loss_weights) == {"force_l2_equation": 1.0}
    unlabelled = {"labelled": {"energy": 1.0, "force": 0.0}}
    with pytest.raises(UserError, match="has no force labels"):
        TASKS[config.task](config, (), unlabelled)
    config.model.name = "pain"
    with pytest.raises(UserError, match="'pain', expected one of"):
        TASKS[config.task](config, (), {})


def test_each_parameter_has_one_rule_and_no_rule_is_dead(setting):
    config, task, _ = setting
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    mesh = partition.make_mesh(data=4, fsdp=2)
    placed = partition.param_shardings(
        shapes, task.param_axes, config.mesh.rules.to_dict(), mesh
    )
    sharded = [s for s in jax.tree.leaves(placed) if "fsdp" in s.spec]
    assert len(sharded) > 5


def test_halves_merge_to_the_whole_and_padding_rows_count_nothing(setting):
    _, task, batch = setting
    variables = task.init(jax.random.key(0))
    evaluate = jax.jit(task.eval_fn)

    def of(part):
        return evaluate(variables["params"], variables["constants"], part)

    first, second = (jax.tree.map(lambda x, s=s: x[s::2], batch) for s in (0, 1))
    halves, whole = merge(of(first), of(second)), of(batch)
    for name in task.loss_weights:
        np.testing.assert_allclose(halves[name].total, whole[name].total, rtol=1e-5)
        assert halves[name].count == whole[name].count


@pytest.fixture(scope="module")
def unsharded(setting):
    return one_step(setting, data=1)


def counted(function):
    """The function, and a list of one number: how often it was traced."""
    traces = [0]

    def traced(*arguments):
        traces[0] += 1
        return function(*arguments)

    return traced, traces


def one_step(setting, **axes):
    config, task, batch = setting
    mesh = partition.make_mesh(**axes)
    optimizer = make_optimizer(config.optimizer, 10, ())
    init, shardings = make_init(task, optimizer, config.mesh.rules.to_dict(), mesh)
    rows, whole = partition.row_sharding(mesh), partition.replicated(mesh)
    step, traces = counted(
        make_train_step(task, optimizer, 0, choose_slices((batch,), 0, mesh))
    )
    step = jax.jit(
        step,
        in_shardings=(shardings, rows, whole),
        out_shardings=(shardings, whole),
    )
    state = init(0)
    for _ in range(2):
        state, output = step(state, jax.device_put(batch, rows), np.bool_(False))
    assert traces == [1]
    return float(output.loss), jax.device_get(state.params)


@pytest.mark.parametrize("axes", [(8, 1, 1), (4, 2, 1)])
def test_meshes_agree(setting, unsharded, axes):
    loss, params = one_step(
        setting, **dict(zip(partition.MESH_AXES, axes, strict=True))
    )
    # Only the order of summation differs, twice through Adam.
    np.testing.assert_allclose(loss, unsharded[0], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), params, unsharded[1]
    )


def test_loss_falls_on_one_batch(setting):
    config, task, batch = setting
    optimizer = make_optimizer(config.optimizer, 40, ())
    state = init_state(task, optimizer, 0)
    step, traces = counted(make_train_step(task, optimizer, 0, slices=lambda batch: 8))
    step = jax.jit(step)
    losses = []
    for _ in range(40):
        state, output = step(state, batch, jnp.asarray(False))
        losses.append(float(output.loss))
    assert losses[-1] < 0.5 * losses[0]
    assert traces == [1]
