from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.chem.vocabulary import SPECIALS, Vocabulary
from chemscale_jax.core import partition
from chemscale_jax.core.batches import TokenRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.task import merge
from chemscale_jax.tasks import TASKS, causal_lm
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.step import (
    choose_slices,
    init_state,
    make_init,
    make_train_step,
)
from tests.tasks.test_force_field import counted
from tests.toy import common

VOCABULARY = Vocabulary((*SPECIALS, *(f"[{n}]" for n in range(11))))
# As lists of ids, begin and end included.
MOLECULES = [[2, *range(5, 5 + n), 3] for n in (1, 4, 6, 3, 2, 5)]
RULES = {"embed": "fsdp", "hidden": "tensor", "heads": "tensor", "vocabulary": "tensor"}


def packed(rows, length):
    """Rows of the given molecules; a place that holds none has token 1."""
    empty: list[Any] = [np.zeros((len(rows), length), np.int32) for _ in range(3)]
    batch = TokenRows(*empty)
    batch.tokens_BL[:] = VOCABULARY.pad
    for row, molecules in enumerate(rows):
        start = 0
        for number, ids in enumerate(molecules, 1):
            places = slice(start, start + len(ids))
            batch.tokens_BL[row, places] = ids
            batch.segment_BL[row, places] = number
            batch.position_BL[row, places] = np.arange(len(ids))
            start += len(ids)
    return batch


def make_config(**model):
    config = common.base()
    config.task = "causal_lm"
    config.data = {"stream": "tokens"}
    fields = {"width": 16, "depth": 2, "heads": 2, "positions": 16, "window": 4}
    config.model = {"name": "gpt_neo", **fields, **model}
    config.optimizer.lr = 1e-2
    return config


def make_task(config, *batches):
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batches)
    artifacts = {"vocabulary": VOCABULARY.to_json()}
    return TASKS[config.task](config, specs, artifacts)


@pytest.fixture(scope="module")
def setting():
    """Config, task and a batch of eight rows."""
    pairs = [MOLECULES[n % 6 : n % 6 + 2] for n in range(8)]
    config, batch = make_config(), packed(pairs, 16)
    return config, make_task(config, batch), batch


def test_metrics_of_hand_worked_rows():
    batch = packed([[[2, 5, 3], [2, 6, 7, 3]], [[2, 8, 3]]], 8)
    p = np.full((2, 8, VOCABULARY.size), 0.05)
    p[0, 0, 5] = 0.25  # a symbol
    p[0, 1, 3] = 0.5  # an end
    p[0, 2, 2] = 0.9  # of the next molecule: counts nothing
    logits = jnp.asarray(np.log(p) + 3.0)  # a shift changes no distribution
    log_prob_BL, mask_BL = causal_lm.next_log_probs(logits, batch)
    np.testing.assert_array_equal(
        mask_BL, [[1, 1, 0, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    )
    usual = np.log(0.05 * 16)
    first = np.log(0.05 * 15 + 0.25)
    second = np.log(0.05 * 15 + 0.5)
    nll = [first - np.log(0.25), second - np.log(0.5)]
    nll += [usual - np.log(0.05)] * 5
    found = causal_lm.row_metrics(batch, log_prob_BL, mask_BL)
    values = {name: float(mean.value()) for name, mean in found.items()}
    assert values == pytest.approx(
        {
            "nll": sum(nll) / 7,
            "nll_symbols": (nll[0] + 3 * nll[2]) / 4,
            "nll_molecule": sum(nll) / 3,
            "tokens": 7.0,
            "molecules": 3.0,
            "token_fill": 10 / 16,
        },
        rel=1e-5,
    )


def test_a_molecule_scores_the_same_in_any_row(setting):
    _, task, _ = setting
    variables = task.init(jax.random.key(3))
    rows = packed([[MOLECULES[1], MOLECULES[2]], [MOLECULES[2]]], 16)
    noisy = rows._replace(tokens_BL=np.where(rows.segment_BL == 0, 7, rows.tokens_BL))
    found = jax.jit(task.predict_fn)(variables["params"], {}, noisy)
    log_prob_BL = np.asarray(found["log_prob_BL"])
    first, size = len(MOLECULES[1]), len(MOLECULES[2])
    np.testing.assert_allclose(
        log_prob_BL[0, first : first + size], log_prob_BL[1, :size], atol=1e-5
    )
    assert np.all(log_prob_BL[~np.asarray(found["mask_BL"])] == 0)
    assert np.all(log_prob_BL[np.asarray(found["mask_BL"])] < 0)


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
    # Positions are spread over fsdp only, norms and biases are not spread.
    assert here < 0.35 * whole
    untied = make_task(make_config(tied=False))
    shapes = jax.eval_shape(untied.init, jax.random.key(0))
    partition.param_shardings(shapes, untied.param_axes, RULES, mesh)


def test_halves_merge_to_the_whole_and_empty_rows_count_nothing(setting):
    _, task, batch = setting
    params = task.init(jax.random.key(0))["params"]
    evaluate = jax.jit(task.eval_fn)
    whole = evaluate(params, {}, batch)
    empty = packed([[]] * 4, 16)
    first, second = (jax.tree.map(lambda x, s=s: x[s::2], batch) for s in (0, 1))
    second = jax.tree.map(lambda *x: np.concatenate(x), second, empty)
    halves = merge(evaluate(params, {}, first), evaluate(params, {}, second))
    for name in ("nll", "nll_symbols", "nll_molecule"):
        np.testing.assert_allclose(halves[name].total, whole[name].total, rtol=1e-5)
        assert halves[name].count == whole[name].count


def two_steps(setting, **axes):
    config, task, batch = setting
    mesh = partition.make_mesh(**axes)
    optimizer = make_optimizer(config.optimizer, 10, ())
    init, shardings = make_init(task, optimizer, RULES, mesh)
    rows, whole = partition.row_sharding(mesh), partition.replicated(mesh)
    step, traces = counted(
        make_train_step(task, optimizer, 0, choose_slices((batch,), 0, mesh))
    )
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
        # Compiles for long, and spreads rows only.
        pytest.param({"data": 8}, marks=pytest.mark.slow),
    ],
)
def test_meshes_agree(setting, axes):
    loss, params = two_steps(setting, data=1)
    found = two_steps(setting, **axes)
    # Only the order of summation differs, twice through Adam.
    np.testing.assert_allclose(found[0], loss, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), found[1], params
    )


def test_loss_falls_and_each_length_compiles_once(setting):
    config, _, long = setting
    short = packed([[m] for m in MOLECULES[:4]], 8)
    task = make_task(config, long, short)
    optimizer = make_optimizer(config.optimizer, 40, ())
    step, traces = counted(make_train_step(task, optimizer, 0))
    step, state, losses = jax.jit(step), init_state(task, optimizer, 0), []
    for _ in range(30):
        for batch in (long, short):
            state, output = step(state, batch, jnp.asarray(False))
            losses.append(float(output.loss))
    # Half of what is left is which molecule it is.
    assert losses[-2] < 0.4 * losses[0]
    assert traces == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "gpt2"}, "'gpt2', expected 'gpt_neo'"),
        ({"layers": 3}, r"gpt_neo has no option \['layers'\]"),
        ({"vocabulary": 7}, "vocabulary is 7, the data have 16 tokens"),
        ({"positions": 15}, "rows have 16 tokens, config.model.positions is 15"),
    ],
)
def test_what_makes_no_sense_is_refused(setting, changes, message):
    _, _, batch = setting
    with pytest.raises(UserError, match=message):
        make_task(make_config(**changes), batch)


def test_rows_of_several_molecules_keep_them_apart():
    vocabulary = Vocabulary((*SPECIALS, "[C]"), "selfies").to_json()
    cut = {"vocabulary": vocabulary, "rows": {"form": "cut"}}
    packed = {"vocabulary": vocabulary, "rows": {"form": "packed"}}
    assert not causal_lm.make_options(make_config(), cut).segments
    assert causal_lm.make_options(make_config(), packed).segments
    with pytest.raises(UserError, match="which would see one another"):
        causal_lm.make_options(make_config(segments=False), packed)


def test_data_without_a_vocabulary_are_refused():
    with pytest.raises(UserError, match=r"have no vocabulary.*use 'tokens'"):
        TASKS["causal_lm"](make_config(), (), {})
