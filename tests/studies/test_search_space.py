"""Ranges, and random settings drawn from them."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.search_space import (
    Choice,
    Range,
    draws,
    grid,
    parse_arguments,
    parse_space,
)

SPACE = parse_space(
    {
        "optimizer.lr": "log(1e-5, 1e-1)",
        "optimizer.weight_decay": "uniform(0, 0.5)",
        ":width": "int(8, 10)",
        "optimizer.schedule": "choice(constant, cosine)",
    }
)


def test_ranges_are_read():
    assert SPACE["optimizer.lr"] == Range("log", 1e-5, 1e-1)
    assert SPACE[":width"] == Range("int", 8, 10)
    assert SPACE["optimizer.schedule"] == Choice(("constant", "cosine"))
    assert parse_space({"a": "choice(4, 8.5, True)"})["a"] == Choice((4, 8.5, True))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log",
        "log(1)",
        "log(0, 1)",
        "log(2, 1)",
        "int(0.5, 2)",
        "uniform(a, b)",
        "choice()",
        "normal(0, 1)",
        "log(1, 2) + 1",
    ],
)
def test_ranges_that_cannot_be_read(text):
    with pytest.raises(UserError, match=r"range of optimizer.lr.*log\(low, high\)"):
        parse_space({"optimizer.lr": text})


def test_draws_fill_the_ranges_as_their_kinds_say():
    found = draws(SPACE, 400, seed=1)
    lr = np.log10([chosen["optimizer.lr"] for chosen in found])
    assert lr.min() > -5.001
    assert lr.max() < -0.999
    # Uniform in the logarithm: the mean of 400 is within four standard errors.
    assert abs(lr.mean() + 3) < 4 * (4 / 12**0.5) / 20
    decay = np.array([chosen["optimizer.weight_decay"] for chosen in found])
    assert abs(decay.mean() - 0.25) < 4 * (0.5 / 12**0.5) / 20
    assert {chosen[":width"] for chosen in found} == {8, 9, 10}
    assert {chosen["optimizer.schedule"] for chosen in found} == {"constant", "cosine"}
    assert all(float(f"{x:.4g}") == x for x in decay)


def test_more_draws_begin_with_the_same_ones():
    assert draws(SPACE, 9, seed=3)[:4] == draws(SPACE, 4, seed=3)
    assert draws(SPACE, 4, seed=3) != draws(SPACE, 4, seed=4)


def test_draws_differ_and_say_when_there_are_no_more():
    space = parse_space({"seed": "int(0, 3)"})
    assert sorted(chosen["seed"] for chosen in draws(space, 4, seed=0)) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="only about 4 different"):
        draws(space, 5, seed=0)


def test_a_grid_is_of_choices():
    space = parse_space({"a": "choice(1, 2)", "b": "choice(x, y)"})
    assert list(grid(space)) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    with pytest.raises(UserError, match=r"optimizer.lr is a range.*--search=random"):
        list(grid(SPACE))


def test_arguments_give_each_field_once():
    assert parse_arguments(["a=log(1, 2)", "b=choice(x=1)"]) == {
        "a": "log(1, 2)",
        "b": "choice(x=1)",
    }
    for wrong in (["a"], ["a=log(1, 2)", "a=log(2, 3)"]):
        with pytest.raises(UserError, match="each field once"):
            parse_arguments(wrong)
