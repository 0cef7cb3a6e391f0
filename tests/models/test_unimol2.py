import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError
from chemscale_jax.models import unimol2, unimol2_blocks
from tests.models.unimol2_rows import TINY, batch, molecule, rough

SIZES = (5, 1, 8)
# Of float32, through two layers; of the largest number of each array.
ROUNDING = 1e-6

# Name of the model, and its parameters with both heads of pretraining, as published.
COUNTS = {
    "42M": 43_788_112,
    "84M": 84_116_080,
    "164M": 164_772_016,
    "310M": 310_082_880,
    "570M": 570_233_696,
    "1.1B": 1_129_209_696,
}
# GFLOP of one molecule of 27 atoms, with outer products as computed here.
GFLOPS = {"42M": 11.5, "84M": 22.9, "310M": 66.5, "1.1B": 163}
RULES = {"embed": "fsdp", "hidden": "tensor", "heads": "tensor", "vocabulary": None}


@pytest.fixture(scope="module")
def params():
    return rough(TINY)


@pytest.fixture(scope="module")
def molecules():
    return [molecule(atoms) for atoms in SIZES]


@pytest.fixture(scope="module")
def rows(molecules):
    return batch(molecules, 8)


@functools.partial(jax.jit, static_argnums=0)
def whole(options, params, rows, key=None):
    """Both tracks and the moved atoms."""
    encoded = unimol2.encode(options, params, rows, key)
    return *encoded, unimol2.move(options, params, encoded, rows, key)


@pytest.fixture(scope="module")
def found(params, rows):
    return [np.asarray(x) for x in whole(TINY, params, rows)]


def real_part(found, row, atoms):
    x_BTD, pair_BTTQ, moved_BN3 = (np.asarray(x)[row] for x in found)
    places = slice(atoms + 1)
    return x_BTD[places], pair_BTTQ[places, places], moved_BN3[:atoms]


def assert_near(found, expected, tolerance=ROUNDING):
    for ours, theirs in zip(found, expected, strict=True):
        largest = np.max(np.abs(theirs))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("size", COUNTS)
def test_published_numbers_of_parameters(size):
    assert unimol2.parameter_count(unimol2.faithful(size)) == COUNTS[size]


def test_our_sizes_have_the_parameters_that_their_names_say():
    assert unimol2.parameter_count(unimol2.clean("1M")) == pytest.approx(1e6, rel=0.1)
    assert unimol2.parameter_count(unimol2.clean("5M")) == pytest.approx(5e6, rel=0.1)


@pytest.mark.parametrize("size", GFLOPS)
def test_operations_of_a_molecule(size):
    flops = unimol2.forward_flops(unimol2.clean(size), 28)
    assert flops / 1e9 == pytest.approx(GFLOPS[size], rel=5e-3)


def test_a_molecule_is_the_same_alone_and_in_any_batch(params, molecules, found):
    larger = whole(TINY, params, batch(molecules[::-1], 12, garbage=True))
    for row, atoms in enumerate(SIZES):
        expected = real_part(found, row, atoms)
        assert_near(real_part(larger, 2 - row, atoms), expected)
        if atoms == 5:
            alone = whole(TINY, params, batch([molecules[row]], atoms))
            assert_near(real_part(alone, 0, atoms), expected)


def test_in_the_published_form_the_batch_matters_and_own_is_alone(params, molecules):
    one = molecules[0]
    published = dataclasses.replace(TINY, length="batch")
    # Theirs are padded to a multiple of 4 with the virtual atom.
    alone, padded = (
        real_part(whole(published, params, batch([one], n)), 0, 5) for n in (7, 11)
    )
    # Far beyond rounding.
    assert np.max(np.abs(alone[0] - padded[0])) > 1e-4
    own = dataclasses.replace(TINY, length="own")
    together = whole(own, params, batch(molecules[::-1], 11, garbage=True))
    assert_near(real_part(together, 2, 5), alone)


def test_lengths(rows):
    for length, expected in (
        ("exact", [6, 2, 9]),
        ("own", [8, 4, 12]),
        ("batch", [12, 12, 12]),
    ):
        options = dataclasses.replace(TINY, length=length)
        found = unimol2.make_places(options, rows).length_B
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mirrored", [False, True])
def test_atoms_move_with_the_molecule_and_tracks_do_not_see_it(
    params, rows, found, mirrored
):
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turn *= np.linalg.det(turn) * (-1 if mirrored else 1)
    shift = np.array([0.5, -1.0, 2.0])

    def placed(positions_BN3):
        return (np.asarray(positions_BN3) @ turn + shift).astype(np.float32)

    elsewhere = rows._replace(positions_BN3=jnp.asarray(placed(rows.positions_BN3)))
    turned = whole(TINY, params, elsewhere)
    for row, atoms in enumerate(SIZES):
        x_TD, pair_TTQ, moved_N3 = real_part(found, row, atoms)
        expected = x_TD, pair_TTQ, placed(moved_N3)
        # The Gaussians are 0.07 angstrom wide and see rounded coordinates.
        assert_near(real_part(turned, row, atoms), expected, 2e-5)
        if atoms > 1:
            start_N3 = np.asarray(rows.positions_BN3)[row, :atoms]
            assert np.max(np.abs(moved_N3 - start_N3)) > 1e-2


def test_one_atom_does_not_move(found, rows):
    moved_N3 = real_part(found, 1, 1)[2]
    np.testing.assert_array_equal(moved_N3, np.asarray(rows.positions_BN3)[1, :1])


def total(options, params, rows):
    """Everything that a loss could be made of, at real places."""
    encoded = unimol2.encode(options, params, rows)
    moved = unimol2.move(options, params, encoded, rows)
    real_BN = unimol2.atom_mask(rows)
    logits = unimol2.token_logits(options, params, encoded.x_BTD[:, 1:])
    pairs_BNN = real_BN[:, :, None] & real_BN[:, None, :]
    terms = (
        jnp.sum(jnp.sin(logits), 2) * real_BN,
        jnp.where(pairs_BNN, unimol2.distances(moved), 0),
        jnp.sum(jnp.sin(encoded.pair_BTTQ[:, 1:, 1:]), 3) * pairs_BNN,
    )
    return sum(jnp.sum(term) for term in terms)


@functools.partial(jax.jit, static_argnums=0)
def gradient(options, params, rows):
    return jax.grad(functools.partial(total, options))(params, rows)


@pytest.fixture(scope="module")
def hostile_rows(molecules):
    """Atoms that coincide, a single one, none at all."""
    coincident = molecules[0]._replace(positions_BN3=np.zeros((5, 3), np.float32))
    return batch([molecules[2], coincident, molecules[1], molecule(0)], 8)


@pytest.fixture(scope="module")
def grads(params, hostile_rows):
    return gradient(TINY, params, hostile_rows)


def test_gradients_are_finite_and_padding_has_none(grads):
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(grads))
    for name in ("tokens", "atoms", "degrees", "bonds", "paths"):
        np.testing.assert_array_equal(grads[name]["embedding"][0], 0)
    # All parts take part; the same number for all keys of a head changes nothing.
    nothing = ("bias/bias", "move_head/pair_norm/bias")
    for path, leaf in zip(
        partition.tree_paths(grads), jax.tree.leaves(grads), strict=True
    ):
        assert path.endswith(nothing) or np.max(np.abs(leaf)) > 1e-4, path


@pytest.mark.parametrize(
    "changes",
    [
        {"remat": "dots"},
        # Both compile for long.
        pytest.param({"remat": "full"}, marks=pytest.mark.slow),
        pytest.param({"unroll": 2}, marks=pytest.mark.slow),
    ],
)
def test_how_it_is_computed_changes_no_gradient(params, hostile_rows, grads, changes):
    options = dataclasses.replace(TINY, **changes)
    for ours, expected in zip(
        jax.tree.leaves(gradient(options, params, hostile_rows)),
        jax.tree.leaves(grads),
        strict=True,
    ):
        # Sums in another order.
        largest = np.max(np.abs(expected))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * largest + 1e-4)


def test_dropout_follows_from_the_key(params, rows, found):
    # Its random numbers take less to compile.
    again, same, other = (
        whole(TINY, params, rows, jax.random.key(seed, impl="unsafe_rbg"))
        for seed in (1, 1, 2)
    )
    for first, second, third, without in zip(again, same, other, found, strict=True):
        np.testing.assert_array_equal(first, second)
        assert np.any(first != third)
        assert np.any(np.asarray(first) != without)


def test_states_between_layers(params, rows, found):
    places = unimol2.make_places(TINY, rows)
    step = jax.jit(functools.partial(unimol2_blocks.layer, TINY))
    state, *later = jax.jit(
        lambda *args: [unimol2.encode(TINY, *args, layer=layer) for layer in (0, 1)]
    )(params, rows)
    for number, expected in enumerate((*later, found[:2])):
        block = jax.tree.map(lambda x, number=number: x[number], params["layers"])
        state = step(block, state, places, None)
        assert_near(state, expected)


def test_bfloat16_is_near_float32(rows):
    # As at the start: 2^-8 of each product, through two layers.
    params = rough(TINY, size=0.03)
    options = dataclasses.replace(TINY, dtype="bfloat16")
    near, exact = (whole(o, params, rows) for o in (options, TINY))
    for row, atoms in enumerate(SIZES):
        for ours, theirs in zip(
            real_part(near, row, atoms)[:2],
            real_part(exact, row, atoms)[:2],
            strict=True,
        ):
            assert ours.dtype == np.float32
            difference = np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
            assert 1e-5 < difference < 2e-2


def test_each_parameter_has_one_rule_and_no_rule_is_dead():
    shapes = jax.eval_shape(lambda key: unimol2.init(TINY, key), jax.random.key(0))
    for form in ("tanh", "linear"):
        head = jax.eval_shape(
            lambda key, form=form: unimol2.init_head(TINY, key, 2, form),
            jax.random.key(0),
        )
        tree = {**shapes, "params": {**shapes["params"], "head": head}}
        axes = (*unimol2.head_axes(form), *unimol2.param_axes(TINY))
        mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
        placed = partition.param_shardings(tree, axes, RULES, mesh)
    sizes = [
        (np.prod(sharding.shard_shape(leaf.shape)), leaf.size)
        for leaf, sharding in zip(
            jax.tree.leaves(tree), jax.tree.leaves(placed), strict=True
        )
    ]
    here, everywhere = np.sum(sizes, axis=0)
    # The kernel of distances is whole, and large beside so small a network.
    assert here < 0.7 * everywhere


def test_the_published_start():
    options = dataclasses.replace(TINY, width=64, pair_width=64)
    init = jax.jit(functools.partial(unimol2.init, options))
    params = init(jax.random.key(0, impl="unsafe_rbg"))["params"]
    for name in ("tokens", "atoms", "degrees", "bonds", "paths"):
        np.testing.assert_array_equal(params[name]["embedding"][0], 0)
        assert np.std(params[name]["embedding"][1:]) == pytest.approx(0.02, rel=0.05)
    for name in ("scale", "shift"):
        assert params["kernel"][name]["embedding"][0] == 0
    gate = params["layers"]["triangle"]["expand"]
    assert np.std(gate["kernel"]) == pytest.approx(0.02, rel=0.05)
    np.testing.assert_array_equal(gate["bias"], 0)
    # Uniform within 1/8.
    head = params["token_head"]["out"]["kernel"]
    assert 0.12 < np.max(np.abs(head)) < 0.125
    assert np.std(head) == pytest.approx(0.125 / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "width 16 is not a multiple"),
        ({"depth": 0}, "depth is 0, must be >= 1"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"length": "padded"}, "length is 'padded'"),
        ({"pair_type": "bond"}, "pair_type is 'bond'"),
        ({"pair_dropout": 1.0}, r"pair_dropout is 1.0, must be in \[0, 1\)"),
        ({"kernel_stop": 0.0}, "kernel_stop is 0.0, must be above"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        unimol2.init(dataclasses.replace(TINY, **changes), jax.random.key(0))


def test_sizes_and_settings():
    assert unimol2.faithful("84M").length == "batch"
    assert unimol2.faithful("84M", length="own").pair_type == "chirality"
    assert unimol2.clean("84M", remat="full").pair_type == "element"
    with pytest.raises(UserError, match=r"size is '2B', expected \('tiny'"):
        unimol2.clean("2B")
    with pytest.raises(UserError, match=r"unimol2 has no option \['layers'\]"):
        unimol2.clean("tiny", layers=3)
