"""Forms of scaling laws, and fits that recover what was planted."""

import csv
import os
import pathlib

import numpy as np
import pytest

from chemscale_jax.analysis.scaling import selection as scaling_selection
from chemscale_jax.analysis.scaling.estimates import estimate
from chemscale_jax.analysis.scaling.fit import (
    CHINCHILLA_DELTA,
    fit_form,
    nonnegative,
    prediction,
)
from chemscale_jax.analysis.scaling.forms import FORMS, make_inputs
from chemscale_jax.analysis.scaling.huber_descent import Problem, descend, huber
from chemscale_jax.core.errors import UserError
from tests.analysis.scaling_studies import IDENTIFIABLE, noisy


@pytest.fixture(scope="module")
def anywhere():
    """Points at which all forms can be evaluated."""
    rng = np.random.default_rng(0)
    letters = {name: rng.uniform(1, 100, 7) for name in ("x", "N", "D", "M", "S")}
    return make_inputs(letters, rng.uniform(0, 9, 7))


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_derivatives_are_those_of_the_law(form, anywhere):
    theta = np.random.default_rng(1).normal(0, 0.5, (3, len(form.names)))
    _, jacobian = form.log_loss(theta, anywhere)
    for place in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[place] = 1e-6
        up, down = (form.log_loss(theta + s, anywhere)[0] for s in (step, -step))
        assert jacobian[:, :, place] == pytest.approx((up - down) / 2e-6, abs=1e-8)


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_published_notation_and_back(form, anywhere):
    theta = np.random.default_rng(2).normal(0, 0.5, len(form.names))
    constants = form.constants(theta, anywhere.centres)
    back = form.theta_of(constants, anywhere.centres)
    assert back == pytest.approx(theta, abs=1e-12)


def test_laws_in_published_notation():
    at = {"N": np.array([1e6]), "D": np.array([1e8]), "M": np.array([42.0])}
    inputs = make_inputs({**at, "S": np.array([1e5])}, np.array([9.0]))
    two = {"E": 1.8, "A": 480.0, "a": 0.35, "B": 2100.0, "b": 0.37}
    expected = 1.8 + 480 / 1e6**0.35 + 2100 / 1e8**0.37
    found = prediction(FORMS["chinchilla"], two, inputs)
    assert found == pytest.approx([expected], rel=1e-12)
    worth = 1e8 * (1 + 15 * (1 - np.exp(-9 / 15)))
    expected = 1.8 + 480 / 1e6**0.35 + 2100 / worth**0.37
    found = prediction(FORMS["repeated"], {**two, "R*": 15.0}, inputs)
    assert found == pytest.approx([expected], rel=1e-12)
    kaplan = {"Nc": 8.8e13, "aN": 0.076, "Dc": 5.4e13, "aD": 0.095}
    expected = ((8.8e13 / 1e6) ** (0.076 / 0.095) + 5.4e13 / 1e8) ** 0.095
    found = prediction(FORMS["kaplan"], kaplan, inputs)
    assert found == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize("name", IDENTIFIABLE)
def test_exact_losses_give_the_planted_law(name):
    planted = IDENTIFIABLE[name]
    fit = fit_form(planted.law, planted.inputs, planted.losses)
    assert fit.constants == pytest.approx(planted.constants, rel=1e-3)


def test_huber_is_quadratic_then_linear():
    assert huber(np.array([0.5, -2.0]), 1.0).tolist() == [0.125, 1.5]
    assert huber(np.array([3.0]), np.inf).tolist() == [4.5]


def test_descent_meets_the_median_for_a_small_delta():
    y = np.array([0.0, 1.0, 2.0, 3.0, 100.0])

    def constant(theta):
        return np.repeat(theta, 5, axis=1), np.ones((len(theta), 5, 1))

    problem = Problem(constant, y, 1e-3, np.array([[-1e3, 1e3]]))
    theta, _ = descend(problem, np.array([[50.0]]), iterations=500)
    assert theta[0, 0] == pytest.approx(2.0, abs=1e-2)
    theta, _ = descend(problem._replace(delta=np.inf), np.array([[50.0]]))
    assert theta[0, 0] == pytest.approx(21.2)


def test_coefficients_are_the_best_that_are_not_negative():
    rng = np.random.default_rng(3)
    phi = rng.normal(size=(50, 9, 3))
    found, objective = nonnegative(phi)
    assert (found >= 0).all()
    off = np.einsum("gnm,gm->gn", phi, found) - 1
    assert objective == pytest.approx(0.5 * (off**2).sum(axis=1))
    for _ in range(200):
        other = np.abs(rng.normal(0, 0.5, found.shape))
        worse = 0.5 * ((np.einsum("gnm,gm->gn", phi, other) - 1) ** 2).sum(axis=1)
        assert (worse >= objective - 1e-9).all()


def test_one_wild_loss_moves_little():
    planted = IDENTIFIABLE["chinchilla"]
    losses = np.exp(noisy(planted.losses, 0, 0.005).mean(axis=1))
    clean = fit_form(planted.law, planted.inputs, losses).constants
    losses[5] *= 1.3
    wild = fit_form(planted.law, planted.inputs, losses).constants
    assert abs(wild["b"] - clean["b"]) < 0.05
    plain = fit_form(planted.law, planted.inputs, losses, 1e9).constants
    assert abs(plain["b"] - clean["b"]) > abs(wild["b"] - clean["b"])


def test_what_cannot_be_fitted_is_said():
    inputs = make_inputs({"N": np.ones(4), "D": np.ones(4)})
    with pytest.raises(UserError, match="5 parameters and 4 points"):
        fit_form(FORMS["chinchilla"], inputs, np.ones(4))
    inputs = make_inputs({"x": np.arange(1.0, 5)})
    with pytest.raises(UserError, match="positive and finite"):
        fit_form(FORMS["power"], inputs, np.array([1.0, 2.0, -1.0, np.nan]))


@pytest.mark.shared
def test_points_of_chinchilla():
    """Read off Fig. 4 of Hoffmann et al. 2022 by Besiroglu et al. 2024."""
    folder = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data" / "ref"
    with (folder / "chinchilla_svg_extracted_245.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    size, flops, losses = (
        np.array([float(row[name]) for row in rows])
        for name in ("Model Size", "Training FLOP", "loss")
    )
    data = flops / (6 * size)
    form, kept = FORMS["chinchilla"], np.argsort(losses)[:-5]
    fit = fit_form(
        form,
        make_inputs({"N": size[kept], "D": data[kept]}),
        losses[kept],
        CHINCHILLA_DELTA,
    )
    assert fit.constants["A"] == pytest.approx(477.8, abs=0.1)
    assert fit.constants["B"] == pytest.approx(2143, abs=1)
    assert fit.constants["E"] == pytest.approx(1.817, abs=5e-4)
    assert fit.constants["a"] == pytest.approx(0.3473, abs=5e-5)
    assert fit.constants["b"] == pytest.approx(0.3672, abs=5e-5)
    assert fit.objective == pytest.approx(0.001018274018, rel=1e-7)
    # With all points, five of them hold b.
    fit = fit_form(form, make_inputs({"N": size, "D": data}), losses, CHINCHILLA_DELTA)
    assert fit.constants["b"] == pytest.approx(0.453, abs=5e-4)
    fit, estimates = estimate(fit)
    intervals = {one.name: one.interval for one in estimates}
    (lever,) = [
        x for x in scaling_selection.levers(fit, intervals) if "b" in x.exponent
    ]
    assert lever.what == "the 5 highest losses"
    assert lever.without == pytest.approx(0.3672, abs=1e-3)
