"""The published law of Uni-Mol2, and what its Table 3 cannot mean."""

import numpy as np
import pytest

from chemscale_jax.analysis.scaling import published_laws as laws
from chemscale_jax.analysis.scaling.fit import prediction
from chemscale_jax.analysis.scaling.forms import FORMS, make_inputs


def numbers(part):
    (found,) = [f for f in laws.audit() if part in f.claim]
    return found.numbers


def test_the_law_gives_the_published_losses():
    sizes = np.array(list(laws.UNIMOL2_SIZES.values()))
    losses = laws.unimol2_loss(sizes, laws.LAST_STEP)
    assert losses.round(4).tolist() == [0.1245, 0.1038, 0.0946, 0.0905, 0.0885, 0.0875]
    # In raw parameters the term of size would be nothing.
    assert laws.unimol2_loss(84e6, laws.LAST_STEP) < 0.087


def test_the_law_is_a_form_of_the_fits():
    sizes, steps = np.array([42.0, 310.0]), np.array([2e5, 8.1e5])
    inputs = make_inputs({"M": sizes, "S": steps})
    ours = prediction(FORMS["unimol2"], laws.UNIMOL2, inputs)
    assert ours == pytest.approx(laws.unimol2_loss(sizes, steps), rel=1e-12)


def test_columns_of_table_3_are_exchanged():
    found = numbers("Pearson")
    for name in ("570M", "1.1B"):
        r_squared = found[f"{name}: stated R^2"]
        assert r_squared > found[f"{name}: square of the stated Pearson r"]
        exchanged = found[f"{name}: square of the stated R^2"]
        assert exchanged == pytest.approx(laws.TABLE_3[name].pearson, abs=0.01)


def test_r_squared_of_the_held_out_size_is_negative():
    found = numbers("R^2 of the 570M")
    assert found["range of the law"] == pytest.approx(0.0026, abs=5e-5)
    assert found["variance of the law"] == pytest.approx(6.5e-7, rel=0.2)
    assert found["R^2 of Eq. 15"] < -2


def test_one_error_contradicts_the_other():
    found = numbers("MSE")
    assert found["1.1B: relative error of the stated MSE"] == pytest.approx(0.106, 0.01)
    right = found["1.1B: relative error of 8.458e-7"]
    assert right == pytest.approx(found["1.1B: stated RMAE"], rel=0.15)
    right = found["570M: relative error of the stated MSE"]
    assert right == pytest.approx(found["570M: stated RMAE"], rel=0.15)


def test_the_term_of_compute_is_nothing():
    found = numbers("compute")
    assert found["largest value"] == pytest.approx(3.4e-11, rel=0.05)
    assert found["largest share of the loss"] < 1e-9


def test_size_is_near_its_end_and_steps_are_not():
    found = numbers("up to 1.1B")
    assert found["loss of an infinite model"] == pytest.approx(0.0866, abs=5e-5)
    assert found["1.1B above it"] == pytest.approx(0.0009, abs=5e-5)
    assert found["310M above it"] == pytest.approx(0.0039, abs=5e-5)
    assert found["gain of twice the steps"] == pytest.approx(0.0125, abs=3e-4)
    assert found["gain of twice the steps"] > found["310M above it"]


def test_at_equal_compute_the_law_prefers_a_small_model():
    found = numbers("Compute is")
    at = {name: found[f"{name} at the compute of 1.1B"] for name in laws.UNIMOL2_SIZES}
    assert min(at, key=at.__getitem__) == "84M"
    assert at["84M"] == pytest.approx(0.0749, abs=2e-4)
    assert at["1.1B"] == pytest.approx(0.0875, abs=2e-4)
    assert found["operations of 1.1B over those of 84M"] == pytest.approx(6.0, abs=0.1)


def test_measures_of_a_line():
    measured = np.array([3.0, 2.0, 1.0])
    score = laws.measures(measured + 0.1, measured)
    assert score.pearson == pytest.approx(1.0)
    assert score.mse == pytest.approx(0.01)
    assert score.rmae == pytest.approx((0.1 / 3 + 0.05 + 0.1) / 3)
    assert score.r_squared == pytest.approx(1 - 0.03 / 2)
    # A constant offset of half the spread leaves r at 1 and nothing of R^2.
    assert laws.measures(measured + 1, measured).r_squared < 0
