"""Published scaling laws to stand beside ours, and an audit of Uni-Mol2's.

Eq. 11 of Ji et al. 2024 (Uni-Mol2) gives the validation loss of a model with M million
parameters after S steps of 1,024 molecules:

    L(M, S, C) = 2.660 M^-1.137 + 1.848 S^-0.225 + 0.588 C^-1.479,  C = M S.

The paper states no units; millions of parameters and single steps are those that give
its numbers. It was fitted to the losses of the models of 42M to 310M at every 10,000th
step after the first 200,000, and predicts those of 570M and 1.1B. `audit` says what its
Table 3 and its terms can and cannot mean.
"""

import math
from typing import NamedTuple

import numpy as np

# Eq. 11: coefficient and exponent of each variable.
UNIMOL2 = {"A": 2.660, "a": 1.137, "B": 1.848, "b": 0.225, "G": 0.588, "c": 1.479}
# Parameters in millions, by the paper's names.
UNIMOL2_SIZES = {
    "42M": 42.0,
    "84M": 84.0,
    "164M": 164.0,
    "310M": 310.0,
    "570M": 570.0,
    "1.1B": 1100.0,
}
# 10^9 operations of a forward pass, for a molecule of 27 heavy atoms and its token,
# with outer products made as in the published code; counted from the layers.
FORWARD_GFLOPS = {
    "42M": 30.0,
    "84M": 60.0,
    "164M": 121.0,
    "310M": 166.0,
    "570M": 181.0,
    "1.1B": 363.0,
}
LAST_STEP = 810_000
FITTED_FROM = 200_000
# Steps over which Table 3 scores the two large models.
SCORED_STEPS = 100_000


class Score(NamedTuple):
    """A row of Table 3: the law against the run of a held-out size."""

    rmae: float  # relative mean absolute error
    mse: float
    r_squared: float
    pearson: float
    predicted: float  # loss after `LAST_STEP` steps
    measured: float


TABLE_3 = {
    "570M": Score(0.0169, 2.450e-6, 0.92, 0.85, 0.090, 0.088),
    "1.1B": Score(0.0095, 8.458e-5, 0.87, 0.75, 0.087, 0.0871),
}

# Frey et al. 2023, Fig. A.5: data exponents at capacity 64, with standard errors.
FREY_DATA_EXPONENTS = {
    "schnet": (0.17, 0.03),
    "painn": (0.26, 0.05),
    "allegro": (0.23, 0.03),
}
# The same paper: exponents in model size of ChemGPT, by tokens of the data set.
FREY_SIZE_EXPONENTS = {304_656_384: (0.17, 0.01), 51_200_000: (0.30, 0.01)}


class Finding(NamedTuple):
    """One point of the audit."""

    claim: str
    found: str
    numbers: dict[str, float]


def unimol2_loss(millions: np.ndarray | float, steps: np.ndarray | float) -> np.ndarray:
    """Eq. 11: the loss of models of some size after some steps.

    Args:
        millions: of parameters.
        steps: of 1,024 molecules.
    """
    return np.asarray(sum(unimol2_terms(millions, steps)))


def unimol2_terms(
    millions: np.ndarray | float, steps: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The terms of Eq. 11: of size, of steps, and of compute."""
    law = UNIMOL2
    m, s = np.asarray(millions, np.float64), np.asarray(steps, np.float64)
    return (
        law["A"] * m ** -law["a"],
        law["B"] * s ** -law["b"],
        law["G"] * (m * s) ** -law["c"],
    )


def measures(predicted: np.ndarray, measured: np.ndarray) -> Score:
    """The four measures of Table 3, as its equations define them.

    Args:
        predicted: (n,) losses of a law.
        measured: (n,) of a run at the same steps, the last one last.

    Returns:
        RMAE, MSE, R^2 = 1 - SSE / SST (Eq. 15), Pearson's r, and the last losses.
    """
    predicted, measured = np.asarray(predicted), np.asarray(measured)
    squares = (predicted - measured) ** 2
    around = (measured - measured.mean()) ** 2
    varies = np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return Score(
        rmae=float(np.abs(predicted / measured - 1).mean()),
        mse=float(squares.mean()),
        r_squared=float(1 - squares.sum() / around.sum()) if varies else math.nan,
        pearson=float(np.corrcoef(predicted, measured)[0, 1]) if varies else math.nan,
        predicted=float(predicted[-1]),
        measured=float(measured[-1]),
    )


def audit() -> list[Finding]:
    """What Table 3 and the terms of the published law can and cannot mean."""
    return [
        _columns(),
        _variance(),
        _mse(),
        _compute_term(),
        _asymptote(),
        _equal_compute(),
        _trajectories(),
    ]


def _columns() -> Finding:
    numbers = {}
    for name, row in TABLE_3.items():
        numbers[f"{name}: stated R^2"] = row.r_squared
        numbers[f"{name}: square of the stated Pearson r"] = row.pearson**2
        numbers[f"{name}: square of the stated R^2"] = row.r_squared**2
    return Finding(
        "Table 3 gives R^2 and Pearson's r",
        "R^2 of Eq. 15 is at most r^2, but both rows state more. Exchanged, the "
        "columns agree: the square of what is called R^2 is what is called Pearson's "
        "r.",
        numbers,
    )


def _variance() -> Finding:
    steps = np.arange(LAST_STEP - SCORED_STEPS, LAST_STEP + 1, 10_000)
    law = unimol2_loss(UNIMOL2_SIZES["570M"], steps)
    variance, mse = float(law.var()), TABLE_3["570M"].mse
    return Finding(
        "R^2 of the 570M model is 0.92",
        "Over the last 100,000 steps the law varies by far less than its stated error, "
        "so 1 - SSE / SST of Eq. 15 is negative, if the run varies as the law does.",
        {
            "variance of the law": variance,
            "range of the law": float(np.ptp(law)),
            "stated MSE": mse,
            "R^2 of Eq. 15": 1 - mse / variance,
        },
    )


def _mse() -> Finding:
    numbers = {}
    for name, row in TABLE_3.items():
        implied = math.sqrt(row.mse) / row.measured
        numbers[f"{name}: stated RMAE"] = row.rmae
        numbers[f"{name}: relative error of the stated MSE"] = implied
    numbers["1.1B: relative error of 8.458e-7"] = (
        math.sqrt(8.458e-7) / TABLE_3["1.1B"].measured
    )
    return Finding(
        "MSE of the 1.1B model is 8.458e-5",
        "It would be a relative error of a tenth, eleven times the stated RMAE. With "
        "an exponent of -7 the two agree.",
        numbers,
    )


def _compute_term() -> Finding:
    steps = np.array([FITTED_FROM, LAST_STEP])
    sizes = np.array([UNIMOL2_SIZES["42M"], UNIMOL2_SIZES["310M"]])
    terms = unimol2_terms(sizes[:, None], steps)
    share = float((terms[2] / sum(terms)).max())
    return Finding(
        "The law has a term of compute",
        "It is nothing in the whole range of the fit, so its two constants are not "
        "identified: the law has two terms.",
        {"largest value": float(terms[2].max()), "largest share of the loss": share},
    )


def _asymptote() -> Finding:
    by_size, by_steps, _ = unimol2_terms(
        np.array([UNIMOL2_SIZES["310M"], UNIMOL2_SIZES["1.1B"]]), LAST_STEP
    )
    doubled = float(by_steps - UNIMOL2["B"] * (2 * LAST_STEP) ** -UNIMOL2["b"])
    return Finding(
        "Loss falls with size up to 1.1B",
        "There is no irreducible loss; at 810,000 steps, models of any size stay above "
        "the term of steps, which 1.1B nearly reaches. Twice the steps are worth more "
        "than any size: taken literally, the law says train longer, not wider.",
        {
            "loss of an infinite model": float(by_steps),
            "310M above it": float(by_size[0]),
            "1.1B above it": float(by_size[1]),
            "gain of twice the steps": doubled,
        },
    )


def _equal_compute() -> Finding:
    budget = FORWARD_GFLOPS["1.1B"] * LAST_STEP
    losses = {
        name: float(unimol2_loss(UNIMOL2_SIZES[name], budget / flops))
        for name, flops in FORWARD_GFLOPS.items()
    }
    flops = FORWARD_GFLOPS["1.1B"] / FORWARD_GFLOPS["84M"]
    return Finding(
        "Compute is M S",
        "The pair track costs most and holds few parameters, so operations grow more "
        "slowly than M. At the compute of the 1.1B model, the law prefers a small "
        "model that is trained for longer, beyond the range of the fit.",
        {
            "operations of 1.1B over those of 84M": flops,
            "parameters of 1.1B over those of 84M": UNIMOL2_SIZES["1.1B"] / 84,
            **{f"{name} at the compute of 1.1B": x for name, x in losses.items()},
        },
    )


def _trajectories() -> Finding:
    return Finding(
        "S stands for data",
        "All losses of a size come from one run with a decaying learning rate, so the "
        "exponent of S mixes more data with annealing, and neighbouring losses are not "
        "independent. Runs annealed separately tell the two apart.",
        {"runs": 4.0, "losses per run": (LAST_STEP - FITTED_FROM) / 10_000 + 1},
    )
