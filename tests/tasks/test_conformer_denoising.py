"""Noise, losses and the contract of pretraining on molecules with coordinates."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.batches import DenoisingRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import merge
from chemscale_jax.models import unimol2
from chemscale_jax.tasks import TASKS, denoising_losses
from chemscale_jax.tasks.conformer_noise import Noise, Noised, add_noise, aligned
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.step import init_state, make_init, make_train_step
from tests.models import unimol2_rows
from tests.tasks.test_force_field import counted
from tests.toy import common

SIZES = (5, 8, 1, 7, 2, 8, 6, 3)
RULES = {"embed": "fsdp", "hidden": "tensor", "heads": "tensor", "vocabulary": "tensor"}
ELEMENTS = {"6": 70, "7": 20, "8": 10}
ADD_NOISE = jax.jit(add_noise, static_argnums=0)
# Float32 sums over some hundred numbers, in another order.
RTOL = 2e-5
# What is left of each loss after 200 steps with one molecule, at most.
FALLS = {"token": 0.5, "coord": 0.9, "dist": 0.9}


def rows_of(molecules, places, numbers=None):
    """Molecules, the rows that are left over being padding."""
    rows = unimol2_rows.batch(molecules, places)
    flat = np.asarray(rows.positions_BN3) * [0.5, 2.0, 0.0]
    if numbers is None:
        numbers = np.arange(len(molecules))
    leaves: list[Any] = [flat.astype(np.float32), np.asarray(numbers, np.uint32)]
    return DenoisingRows(rows, *leaves)


def padded(batch, rows):
    """Some rows of padding after the others."""
    return jax.tree.map(
        lambda x: np.concatenate([x, np.zeros((rows, *x.shape[1:]), x.dtype)]), batch
    )


def make_config(**model):
    config = common.base()
    config.task = "conformer_denoising"
    config.data = {"stream": "molecules"}
    sizes = {"width": 16, "depth": 2, "heads": 2, "pair_width": 8, "pair_hidden": 4}
    fields = {"name": "unimol2", "size": "tiny", "variant": "clean", **sizes}
    config.model = {**fields, "distance_scale": 0.5, **model}
    config.noise = dataclasses.asdict(Noise())
    config.loss = {"token": 1.0, "coord": 1.0, "dist": 1.0}
    config.optimizer.lr = 1e-2
    return config


def make_task(config, *batches):
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batches)
    return TASKS[config.task](config, specs, {"elements": ELEMENTS})


@pytest.fixture(scope="module")
def setting():
    """Config, task and a batch of eight molecules."""
    molecules = [unimol2_rows.molecule(n, seed=i) for i, n in enumerate(SIZES)]
    config, batch = make_config(), rows_of(molecules, 8)
    return config, make_task(config, batch), batch


def svd_aligned(moved, fixed):
    """Kabsch's own way, with the determinant corrected."""
    moved, fixed = moved - moved.mean(0), fixed - fixed.mean(0)
    u, _, vt = np.linalg.svd(moved.T @ fixed)
    sign = np.sign(np.linalg.det(u @ vt))
    return moved @ u @ np.diag([1, 1, sign]) @ vt


def test_alignment_is_the_best_rotation_for_any_shape():
    rng = np.random.default_rng(0)
    fixed = rng.normal(0, 2, (7, 9, 3))
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned *= np.sign(np.linalg.det(turned))
    moved = fixed @ turned + rng.normal(0, 0.2, fixed.shape)
    moved[1] = fixed[1] * [1, 1, -1]  # a mirror image must stay one
    moved[2] *= [1, 1, 0]  # flat
    fixed[2] *= [1, 1, 0]
    fixed[3] = np.linspace(-1, 1, 9)[:, None] * [[1, 2, 3]]  # on a line
    moved[3] = fixed[3] @ turned
    sizes = np.array([9, 9, 9, 9, 6, 2, 1])
    real = np.arange(9)[None] < sizes[:, None]
    for i, n in enumerate(sizes):
        fixed[i] -= fixed[i, :n].mean(0)
    shifted, shown = moved + np.array([5.0, 0.0, 0.0]), fixed * real[..., None]
    found = jax.jit(aligned)(jnp.float32(shifted), jnp.float32(shown), real)
    found = np.asarray(found)
    assert (found[~real] == 0).all()
    for i, n in enumerate(sizes):
        best = svd_aligned(moved[i, :n], fixed[i, :n])
        expected = np.square(best - fixed[i, :n]).sum()
        reached = np.square(found[i, :n] - fixed[i, :n]).sum()
        assert reached == pytest.approx(expected, abs=1e-3, rel=1e-3)
        # It was turned, and nothing else.
        np.testing.assert_allclose(
            np.linalg.norm(found[i, :n], axis=1),
            np.linalg.norm(moved[i, :n] - moved[i, :n].mean(0), axis=1),
            atol=1e-4,
        )


def test_noise_has_the_shares_and_the_size_asked_for():
    molecule = unimol2_rows.molecule(10)
    batch = rows_of([molecule] * 600, 12)
    found = ADD_NOISE(Noise(align=False), batch, jax.random.key(1))
    real = np.asarray(found.species_BN) > 0
    masked, flat = np.asarray(found.masked_BN), np.asarray(found.flat_B)
    assert (masked <= real).all()
    # int(1.5 + U) is 1 or 2.
    assert set(masked.sum(1)) == {1, 2}
    assert abs(masked.sum() / 6000 - 0.15) < 0.01
    np.testing.assert_array_equal(
        found.rows.species_BN, np.where(masked, 127, batch.molecules.species_BN)
    )
    assert abs(np.asarray(found.featured_B).mean() - 0.5) < 0.06
    assert abs(flat.mean() - 0.25) < 0.05
    assert (flat <= np.asarray(found.featured_B)).all()
    # Every atom of a molecule can be masked.
    assert (masked[:, :10].mean(0) > 0.08).all()
    added = np.asarray(found.rows.positions_BN3 - found.clean_BN3)
    assert (added[~real] == 0).all()
    assert added[real].std() == pytest.approx(0.2, rel=0.03)
    assert abs(added[real].mean()) < 0.01
    clean = np.asarray(found.clean_BN3)
    np.testing.assert_allclose(clean[:, :10].mean(1), 0, atol=1e-5)
    assert (clean[flat][:, :, 2] == 0).all()


def test_withheld_features_have_their_ids_and_padding_stays():
    known, unknown = unimol2_rows.molecule(4), unimol2_rows.molecule(4)
    bare = {"atom_BN8": 1, "bond_BNN3": 1, "path_BNN": 511, "degree_BN": 1}
    unknown = unknown._replace(
        **{name: np.full_like(getattr(unknown, name), x) for name, x in bare.items()}
    )
    batch = rows_of([known, unknown], 6)
    found = ADD_NOISE(Noise(drop_features=1.0), batch, jax.random.key(0))
    expected = rows_of([unknown, unknown], 6).molecules
    for name in bare:
        np.testing.assert_array_equal(
            getattr(found.rows, name), getattr(expected, name)
        )
    kept = Noise(drop_features=0.0, flat_share=1.0, noise_ang=0.0, mask_fraction=0.0)
    found = ADD_NOISE(kept, batch, jax.random.key(0))
    for name in bare:
        np.testing.assert_array_equal(
            getattr(found.rows, name), getattr(batch.molecules, name)
        )
    # What has no bonds cannot be drawn.
    np.testing.assert_array_equal(found.flat_B, [True, False])


def test_losses_of_a_hand_worked_batch():
    species = np.array([[6, 8, 0], [7, 0, 0], [0, 0, 0]])
    clean = np.zeros((3, 3, 3), np.float32)
    clean[0, 1] = [3.0, 4.0, 0.0]
    found = clean.copy()
    found[0, 1] = [3.0, 5.0, 1.0]  # off by 2 over all axes
    found[1, 0] = [0.0, 0.0, 3.0]
    found[:, 2] = 99.0  # padding
    noised = Noised(
        rows=unimol2_rows.batch([unimol2_rows.molecule(2)], 3)._replace(
            positions_BN3=jnp.asarray(clean + 1.0)
        ),
        species_BN=jnp.asarray(species, jnp.uint8),
        clean_BN3=jnp.asarray(clean),
        masked_BN=jnp.asarray(species == 8),
        flat_B=jnp.asarray([False, True, False]),
        featured_B=jnp.asarray([True, True, False]),
    )
    logits = np.zeros((3, 3, 128), np.float32)
    logits[0, 1, 8] = 2.0
    metrics = denoising_losses.denoising_metrics(
        noised, jnp.asarray(logits), jnp.asarray(found)
    )
    metrics |= denoising_losses.baseline_metrics(
        noised, denoising_losses.element_log_probs(ELEMENTS)
    )
    values = {name: float(mean.value()) for name, mean in metrics.items()}
    stretch = 35**0.5 - 5
    assert values == pytest.approx(
        {
            "token": np.log(127 + np.exp(2.0)) - 2.0,
            "token_accuracy": 1.0,
            "token_entropy": -np.log(10 / (100 + 124)),
            "coord": (1.0 + 3.0) / 2,
            "coord_3d": 1.0,
            "coord_2d": 3.0,
            "coord_zero": 3.0,
            "dist": stretch / 2 / 2,
            "dist_3d": stretch / 2,
            "dist_2d": 0.0,
            "dist_noised": 0.0,
            "molecules": 2.0,
            "atoms": 3.0,
            "atom_fill": 1 / 3,
        },
        rel=1e-5,
        abs=1e-6,
    )


def test_room_company_and_empty_rows_change_nothing(setting):
    _, task, batch = setting
    params = unimol2_rows.rough(unimol2.Unimol2Options(16, 2, 2, 8, 4))
    evaluate = jax.jit(task.eval_fn)
    whole = evaluate(params, {}, batch)
    order = [3, 0, 5, 7]
    molecules = [unimol2_rows.molecule(n, seed=i) for i, n in enumerate(SIZES)]
    first = rows_of([molecules[i] for i in order], 11, order)
    rest = [i for i in range(8) if i not in order]
    second = padded(rows_of([molecules[i] for i in rest], 8, rest), 2)
    halves = merge(evaluate(params, {}, first), evaluate(params, {}, second))
    for name in set(whole) - {"atom_fill"}:
        np.testing.assert_allclose(
            halves[name].total, whole[name].total, rtol=RTOL, err_msg=name
        )
    assert halves["token"].count == whole["token"].count > 0
    assert halves["coord"].count == whole["coord"].count == 8


def test_each_parameter_has_one_rule_and_no_rule_is_dead(setting):
    _, task, _ = setting
    mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    placed = partition.param_shardings(shapes, task.param_axes, RULES, mesh)
    whole = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    here = sum(
        np.prod(sharding.shard_shape(leaf.shape))
        for leaf, sharding in zip(
            jax.tree.leaves(shapes), jax.tree.leaves(placed), strict=True
        )
    )
    # The kernel of distances is large beside a tiny network, and is kept whole.
    kernel = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]["kernel"]))
    assert here - kernel < 0.6 * (whole - kernel)


def two_steps(setting, **axes):
    config, task, batch = setting
    mesh = partition.make_mesh(**axes)
    optimizer = make_optimizer(config.optimizer, 10, ())
    init, shardings = make_init(task, optimizer, RULES, mesh)
    rows, whole = partition.row_sharding(mesh), partition.replicated(mesh)
    step, traces = counted(make_train_step(task, optimizer, 0))
    step = jax.jit(
        step, in_shardings=(shardings, rows, whole), out_shardings=(shardings, whole)
    )
    state = init(0)
    for _ in range(2):
        state, output = step(state, jax.device_put(batch, rows), np.bool_(False))
    assert traces == [1]
    return float(output.loss), jax.device_get(state.params)


@pytest.mark.parametrize(
    "axes",
    [
        {"data": 2, "fsdp": 2, "tensor": 2},
        # Compiles for long.
        pytest.param({"data": 8}, marks=pytest.mark.slow),
    ],
)
def test_meshes_agree(setting, axes):
    loss, params = two_steps(setting, data=1)
    found = two_steps(setting, **axes)
    # Only the order of summation differs, twice through Adam.
    np.testing.assert_allclose(found[0], loss, rtol=1e-4)
    near = jax.tree.map(lambda a, b: np.mean(np.abs(a - b) < 2e-3), found[1], params)
    # Adam makes whole steps of gradients that are noise, such as biases of keys.
    assert min(jax.tree.leaves(near)) > 0.9


def test_losses_fall_and_each_room_compiles_once():
    molecule = unimol2_rows.molecule(6)
    rooms = [rows_of([molecule] * 8, places) for places in (6, 7)]
    config = make_config(dropout=0.0, attention_dropout=0.0, pair_dropout=0.0)
    config.optimizer.lr = 3e-3
    task = make_task(config, *rooms)
    optimizer = make_optimizer(config.optimizer, 200, ())
    step, traces = counted(make_train_step(task, optimizer, 0))
    step, state, found = jax.jit(step), init_state(task, optimizer, 0), []
    for _ in range(100):
        for batch in rooms:
            state, output = step(state, batch, jnp.asarray(False))
            found.append([float(output.metrics[term].value()) for term in FALLS])
    first, last = np.mean(found[:8], axis=0), np.mean(found[-16:], axis=0)
    assert (last < first * list(FALLS.values())).all(), last / first
    assert traces == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.name": "gpt"}, "'gpt', expected 'unimol2'"),
        ({"model.size": "2B"}, r"size is '2B', expected \('tiny'"),
        ({"model.variant": "dirty"}, r"variant is 'dirty', expected \('clean'"),
        ({"model.heads": 3}, "width 16 is not a multiple of"),
        ({"noise.mask_fraction": 1.5}, r"noise.mask_fraction is 1.5, must be in"),
        ({"noise.noise_ang": -1.0}, r"noise_ang is -1.0, must be 0 or more"),
        ({"loss.coord": -1.0}, "a weight must be 0 or more"),
        ({"loss": {"token": 0.0}}, "has no weight above 0"),
        ({"loss": {"energy": 1.0}}, r"no weight \['energy'\], expected"),
    ],
)
def test_what_makes_no_sense_is_refused(setting, change, message):
    _, _, batch = setting
    config = make_config()
    for name, value in change.items():
        if name == "loss":
            config.loss = value
        else:
            config.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=message):
        make_task(config, batch)


def test_data_without_elements_are_refused():
    with pytest.raises(UserError, match=r"count no elements.*use 'molecules'"):
        TASKS["conformer_denoising"](make_config(), (), {})
