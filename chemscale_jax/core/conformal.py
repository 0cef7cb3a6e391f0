"""How far off predictions may be: intervals and sets that hold with a known chance.

Conformal prediction (Vovk, Gammerman and Shafer 2005): molecules with labels that a
model was not trained on are scored by how wrong it is, and the interval of a new
molecule reaches as far as the score of rank ``ceil((n + 1) level)`` among n. If the new
molecule is exchangeable with those, its label is inside with a chance of at least
``level``, whatever the model (Lei et al. 2018, Theorem 2.2). Three things weaken this:

- the validation set also chose the checkpoint, so its errors are a little too small;
- a test set of other scaffolds is not exchangeable with it: what was covered there is
  measured, and stands in reports;
- with out-of-fold errors, the interval lies about the mean of the models of all folds.
  Each error is of one model alone, as a rule a worse one, so intervals are rather too
  wide; but only the jackknife+ (Barber et al. 2021) would have a proof.

NumPy only, since reports do without JAX.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import KINDS
from chemscale_jax.core.workdir import read_json, write_json

# Of intervals in tables and plots.
LEVELS = (0.5, 0.8, 0.9, 0.95)
# Scores that are kept of each target; of more, evenly spread ranks.
_MOST_SCORES = 2048
# Of the median spread over members.
_FLOOR = 0.25
# Of ranks: (n + 1) level is a whole number up to rounding.
_EPS = 1e-9


class Coverage(NamedTuple):
    """What intervals or sets of one target did on molecules with labels."""

    molecules: int
    share: float  # of labels that were inside; NaN without molecules
    # Mean width of the intervals, in the unit of the target; or mean number of classes.
    size: float


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of T targets, and the intervals and sets that follow.

    Scores are absolute errors (regression), divided by the spread over members plus a
    floor where there is one; or 1 - p of the true class (LAC, Sadinle, Lei and
    Wasserman 2019).
    """

    kind: str  # one of KINDS
    targets: tuple[str, ...]
    source: str  # whose errors: "valid" or "out-of-fold"
    counts: tuple[int, ...]  # molecules with a label, by target
    scores: tuple[np.ndarray, ...]  # ascending; all, or evenly spread ranks
    # Added to the spread over members, in the unit of the target; None: not used.
    floors: tuple[float, ...] | None = None

    def quantile(self, level: float, target: int = 0) -> float:
        """The score of rank ceil((n + 1) level); infinite where n is smaller.

        Raises:
            UserError: the level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise UserError(
                f"the level of an interval is {level:g}: give 0 < level < 1"
            )
        n, scores = self.counts[target], self.scores[target]
        rank = max(math.ceil((n + 1) * level - _EPS), 1)
        if rank > n:
            return math.inf
        # Of thinned scores, the next one that was kept.
        return float(scores[np.searchsorted(_ranks(n), rank)])

    def half_width(
        self, level: float, target: int | str = 0, std: np.ndarray | None = None
    ) -> np.ndarray:
        """Half the width of intervals of a target, in its unit.

        Args:
            level: the chance that a label is inside.
            target: number or name.
            std: (M,) standard deviations over members; needed if `floors` are there,
                else it does not matter.

        Returns:
            (M,), or () where the width is the same for all; infinite where there are
            too few molecules for the level, see `lacking`.
        """
        place = self.targets.index(target) if isinstance(target, str) else target
        found = np.float64(self.quantile(level, place))
        if self.kind != "regression":
            raise UserError("classes have sets, not intervals: call class_sets")
        if self.floors is None:
            return np.asarray(found)
        if std is None:
            raise UserError(
                "these intervals follow the spread over members: give it with std"
            )
        return found * (np.asarray(std, np.float64) + self.floors[place])

    def half_widths(
        self, level: float, molecules: int, std: np.ndarray | None = None
    ) -> np.ndarray:
        """`half_width` of all targets: (M, T); std (M, T)."""
        columns = [
            self.half_width(level, t, None if std is None else std[:, t])
            for t in range(len(self.targets))
        ]
        return np.stack([np.broadcast_to(c, molecules) for c in columns], axis=1)

    def class_sets(self, level: float, pred: np.ndarray) -> np.ndarray:
        """Which classes a label may be of.

        Args:
            level: the chance that the class of a label is among them.
            pred: (M, P) probabilities: of 1 for each target, or of the C classes.

        Returns:
            (M, T, C) bool; C is 2 for binary targets. A set may be empty, where no
            class is likely enough, and holds all classes where there are too few
            molecules for the level.
        """
        if self.kind == "regression":
            raise UserError("numbers have intervals, not sets: call half_width")
        chance = class_chances(pred, self.kind)
        limits = [self.quantile(level, t) for t in range(len(self.targets))]
        return 1 - chance <= np.array(limits)[:, None]

    def coverage(
        self,
        level: float,
        true: np.ndarray,
        pred: np.ndarray,
        std: np.ndarray | None = None,
    ) -> list[Coverage]:
        """How many labels are inside, for each target.

        Args:
            level: of the intervals or sets.
            true: (M, T), NaN where there is no label.
            pred: (M, P).
            std: (M, T) over members, where intervals follow it.
        """
        if self.kind == "regression":
            half = self.half_widths(level, len(true), std)
            inside, size = np.abs(true - pred) <= half, 2 * half
        else:
            sets = self.class_sets(level, pred)
            label = np.nan_to_num(true).astype(np.int64)
            inside = np.take_along_axis(sets, label[:, :, None], 2)[:, :, 0]
            size = sets.sum(2)
        found = []
        for t in range(true.shape[1]):
            rows = np.isfinite(true[:, t])
            n = int(rows.sum())
            means = [
                float(x[rows, t].mean()) if n else math.nan for x in (inside, size)
            ]
            found.append(Coverage(n, *means))
        return found

    def lacking(self, level: float) -> str:
        """Which targets have too few molecules for a level, as a sentence, or ""."""
        needed = math.ceil(level / (1 - level) - _EPS)
        few = [
            f"{name} has {n}"
            for name, n in zip(self.targets, self.counts, strict=True)
            if n < needed
        ]
        if not few:
            return ""
        return (
            f"Intervals of {level:.0%} need {needed} molecules with labels that were "
            f"not trained on, {', '.join(few)}: their intervals are infinite."
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "kind": self.kind,
            "targets": list(self.targets),
            "source": self.source,
            "counts": list(self.counts),
            "scores": [scores.tolist() for scores in self.scores],
            "floors": None if self.floors is None else list(self.floors),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """A calibration as it was written.

        Raises:
            UserError: something is missing or does not fit.
        """
        try:
            floors = content["floors"]
            found = cls(
                kind=content["kind"],
                targets=tuple(content["targets"]),
                source=content["source"],
                counts=tuple(int(n) for n in content["counts"]),
                scores=tuple(np.array(s, np.float64) for s in content["scores"]),
                floors=None if floors is None else tuple(float(x) for x in floors),
            )
            kept = [min(n, _MOST_SCORES) for n in found.counts]
            if found.kind not in KINDS or kept != [len(s) for s in found.scores]:
                raise ValueError(f"{found.kind}, {len(kept)} targets")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"this is no calibration of intervals ({error}); make the end of the "
                "run again by giving its command again"
            ) from None
        return found

    def save(self, path: pathlib.Path) -> None:
        """Writes the file, in one piece."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: pathlib.Path) -> Self:
        """Reads what `save` wrote."""
        return cls.from_json(read_json(path))


def calibrate(
    kind: str,
    targets: Sequence[str],
    true: np.ndarray,
    pred: np.ndarray,
    *,
    source: str,
    std: np.ndarray | None = None,
) -> Calibration:
    """The calibration by molecules that no model of the prediction was trained on.

    Args:
        kind: one of KINDS.
        targets: T names.
        true: (M, T), NaN where there is no label.
        pred: (M, P): of a held-back set, or of each molecule by the models of the fold
            that did not train on it.
        source: "valid" or "out-of-fold".
        std: (M, T) standard deviation over members, of regression; intervals are then
            in proportion to it plus a floor, a quarter of its median over these
            molecules, which keeps them apart from zero where members agree by chance.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {KINDS}")
    if true.shape[1] != len(targets):
        raise ValueError(f"{true.shape[1]} columns of labels, {len(targets)} targets")
    if std is not None and kind != "regression":
        raise ValueError("std is for regression")
    labelled = np.isfinite(true)
    floors = None
    if kind == "regression":
        scores = np.abs(pred - true)
        if std is not None:
            floors = tuple(
                _floor(std[labelled[:, t], t], scores[labelled[:, t], t])
                for t in range(len(targets))
            )
            scores = scores / (std + np.array(floors))
    else:
        label = np.nan_to_num(true).astype(np.int64)
        chance = class_chances(pred, kind)
        scores = 1 - np.take_along_axis(chance, label[:, :, None], 2)[:, :, 0]
    counts, kept = [], []
    for t in range(len(targets)):
        column = scores[labelled[:, t], t]
        # What could not be predicted is as far off as can be.
        column = np.sort(np.where(np.isfinite(column), column, np.inf))
        counts.append(len(column))
        kept.append(column[_ranks(len(column)) - 1])
    return Calibration(kind, tuple(targets), source, tuple(counts), tuple(kept), floors)


def class_chances(pred: np.ndarray, kind: str) -> np.ndarray:
    """(M, P) probabilities as (M, T, C), C being 2 for binary targets."""
    if kind == "binary":
        return np.stack([1 - pred, pred], axis=2)
    return pred[:, None, :]


def _floor(std: np.ndarray, errors: np.ndarray) -> float:
    """A part of the median spread; the mean error where members do not differ."""
    if not len(std):
        return 1.0
    return _FLOOR * float(np.median(std)) or float(np.mean(errors)) or 1.0


def _ranks(n: int) -> np.ndarray:
    """The ranks, from 1 to n, of the scores that are kept; the last is n."""
    kept = min(n, _MOST_SCORES)
    return np.ceil(np.arange(1, kept + 1) * (n / max(kept, 1)) - _EPS).astype(np.int64)
