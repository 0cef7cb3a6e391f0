"""Which molecules to train on, so that common scaffolds do not drown the others.

A scaffold is drawn first, then one of its molecules, each with equal probability
(Section 3.2 of Ji et al. 2024, Uni-Mol2). With P_s the share of molecules that have
scaffold s, scaffolds are drawn

- "softmax": by softmax(P_s / tau), tau = 0.005, as in the paper. A scaffold of a
  thousandth of all molecules comes 1.22 times as often as one of a single molecule, so
  in a set of hundreds of millions this is nearly uniform. In a small set it is not: a
  scaffold of 5 % of all molecules comes 20,000 times as often, and takes most draws;
- "natural": by P_s, which makes all molecules equally likely;
- "tempered": by P_s^(1/T), normalised; T = 1 is natural, and a large T is uniform over
  scaffolds.

Draws are with replacement: draw i of an epoch is a function of seed, epoch and i.
"""

import numpy as np

from chemscale_jax.core.errors import UserError

KINDS = ("softmax", "natural", "tempered")
TAU = 0.005
# Keeps the random numbers of draws apart from those of splits and orders.
_STREAM = 2 << 32


class ScaffoldSampler:
    """Draws molecules; picklable.

    In memory are an int64 for each molecule, by scaffold, and a probability for each
    scaffold.
    """

    def __init__(
        self,
        scaffold: np.ndarray,
        kind: str = "softmax",
        *,
        seed: int = 0,
        tau: float = TAU,
        temperature: float = 2.0,
    ):
        """Counts the molecules of each scaffold.

        Args:
            scaffold: (molecules,) number of each one's scaffold, at least 0; of a
                subset of a store, such as the training set, only its own.
            kind: of `KINDS`.
            seed: of the draws.
            tau: of the softmax.
            temperature: T of "tempered".

        Raises:
            UserError: there is no molecule, or an argument makes no sense.
        """
        counts = np.bincount(scaffold) if len(scaffold) else np.zeros(0, np.int64)
        self._order = np.argsort(scaffold, kind="stable")
        self._counts = counts[counts > 0]
        self._starts = np.cumsum(self._counts) - self._counts
        weights = scaffold_probabilities(
            self._counts, kind, tau=tau, temperature=temperature
        )
        self._ends = np.cumsum(weights)
        self._seed = seed

    def draw(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Draws start, ..., stop - 1 of an epoch.

        Args:
            epoch: from 0.
            start: first draw.
            stop: behind the last one.

        Returns:
            (stop - start,) int64, places in the array of scaffolds.
        """
        # Four numbers of 64 bits belong to each draw, so any draw can be the first.
        generator = np.random.Philox(key=[self._seed, _STREAM + epoch], counter=start)
        raw = generator.random_raw(4 * (stop - start)).reshape(-1, 4)
        shares = (raw[:, :2] >> np.uint64(11)) * 2.0**-53
        drawn = np.searchsorted(self._ends, shares[:, 0] * self._ends[-1], "right")
        drawn = np.minimum(drawn, len(self._ends) - 1)
        member = (shares[:, 1] * self._counts[drawn]).astype(np.int64)
        return self._order[self._starts[drawn] + member]


def scaffold_probabilities(
    counts: np.ndarray,
    kind: str = "softmax",
    *,
    tau: float = TAU,
    temperature: float = 2.0,
) -> np.ndarray:
    """How likely each scaffold is to be drawn; float64, sums to 1.

    Args:
        counts: (scaffolds,) molecules of each one, at least 1.
        kind: of `KINDS`.
        tau: of the softmax.
        temperature: of "tempered".

    Raises:
        UserError: there is no scaffold, or an argument makes no sense.
    """
    if kind not in KINDS:
        raise UserError(
            f"there is no scaffold sampling {kind!r}: use {', '.join(KINDS)}"
        )
    if not tau > 0 or not temperature > 0:
        raise UserError(
            f"scaffold sampling with tau={tau} and temperature={temperature}: both "
            "must be greater than 0"
        )
    if not len(counts):
        raise UserError("there is no molecule to draw: use another subset")
    shares = counts / counts.sum()
    if kind == "softmax":
        weights = np.exp((shares - shares.max()) / tau)
    else:
        weights = shares ** (1.0 if kind == "natural" else 1.0 / temperature)
    return weights / weights.sum()
