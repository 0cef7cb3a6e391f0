"""How good probes are: metrics of each fold, their means, paired differences.

A metric is taken on the test molecules of each fold, since chances of different models
cannot be ranked together, and averaged over folds by their numbers of labels, then over
seeds. Intervals are of the Bayesian bootstrap over molecules (Rubin 1981): weights of
molecules are drawn from the exponential distribution, and are the same in all folds,
seeds and models. So differences are paired, and a molecule that was tested under three
seeds counts as one.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis import bootstrap
from chemscale_jax.analysis.probes import probes
from chemscale_jax.analysis.probes.cells import LEVELS, Cell, ProbeSettings
from chemscale_jax.analysis.probes.rows import ProbeRows
from chemscale_jax.analysis.properties.fingerprint_baseline import trivial
from chemscale_jax.analysis.properties.metrics import Figure, Metric

REPLICATES = 400
# The model of each fold and target that inner folds found best.
CHOSEN = "chosen"
TRIVIAL = "trivial"
NETWORK = "network"


class Arm(NamedTuple):
    """What one model of one representation says of each molecule, in S seeds."""

    representation: str
    model: str
    pred: np.ndarray  # (S, M, P), each molecule by the model that did not train on it
    inner_loss: np.ndarray | None = None  # (S, F, T)
    coverage: np.ndarray | None = None  # (S, F, L, T, 3), see `Cell`
    chosen: np.ndarray | None = None  # (S, F, T) str

    @property
    def name(self) -> str:
        """Of the representation, and of the model if it is not chosen."""
        if self.model in (CHOSEN, TRIVIAL):
            return self.representation
        return f"{self.representation}, {self.model}"


@dataclasses.dataclass(frozen=True, eq=False)
class ProbeResults:
    """All predictions of a comparison.

    Attributes:
        rows: molecules with labels.
        settings: how they were tested.
        folds: (S, M) int, see `probe_cells.fold_numbers`.
        arms: every model of every representation.
        measured: (M,) bool, molecules that every arm has a prediction for.
    """

    rows: ProbeRows
    settings: ProbeSettings
    folds: np.ndarray
    arms: tuple[Arm, ...]
    measured: np.ndarray

    @property
    def best(self) -> tuple[Arm, ...]:
        """One arm of each representation, the trivial one last."""
        return tuple(a for a in self.arms if a.model in (CHOSEN, NETWORK, TRIVIAL))

    def tested(self, target: int) -> list[list[np.ndarray]]:
        """Numbers of the labelled molecules of each seed and fold."""
        labelled = np.isfinite(self.rows.true[:, target]) & self.measured
        return [
            [
                np.flatnonzero(labelled & (own == fold))
                for fold in range(self.settings.folds)
            ]
            for own in self.folds
        ]

    def weights(self, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
        """(R, M) weights of molecules, one row for each draw of the bootstrap."""
        rng = np.random.default_rng(seed)
        return rng.exponential(size=(replicates, len(self.rows)))


def gathered(
    rows: ProbeRows,
    settings: ProbeSettings,
    folds: np.ndarray,
    cells: Sequence[Cell],
    networks: Mapping[str, np.ndarray] | None = None,
) -> ProbeResults:
    """Results of all cells, with the chosen and the trivial models.

    Args:
        rows: molecules with labels.
        settings: how they were tested.
        folds: (S, M) int.
        cells: of all seeds, folds, representations and models.
        networks: {name: (S, M, P)} of finetuned networks; NaN where there is none.
    """
    arms: list[Arm] = []
    for name in dict.fromkeys(cell.representation for cell in cells):
        own = [cell for cell in cells if cell.representation == name]
        models = list(dict.fromkeys(cell.model for cell in own))
        made = [
            _arm(rows, settings, folds, [c for c in own if c.model == model])
            for model in models
        ]
        arms += [*made, _chosen(rows, folds, made)]
    for name, pred in (networks or {}).items():
        arms.append(Arm(name, NETWORK, pred))
    arms.append(Arm(TRIVIAL, TRIVIAL, _trivial(rows, settings, folds)))
    measured = np.ones(len(rows), bool)
    for arm in arms:
        measured &= np.isfinite(arm.pred).all((0, 2))
    return ProbeResults(rows, settings, folds, tuple(arms), measured)


def figure(
    results: ProbeResults,
    arm: Arm,
    metric: Metric,
    target: int,
    weights: np.ndarray | None = None,
) -> Figure:
    """A metric of one target: mean over folds and seeds, with an interval.

    Args:
        results: whose molecules are measured.
        arm: one of its arms.
        metric: of `METRICS` of its kind.
        target: its number.
        weights: of `ProbeResults.weights`; None: no interval.
    """
    values = np.zeros(1 if weights is None else len(weights) + 1)
    molecules, total = 0, 0
    for place, of_seed in enumerate(results.tested(target)):
        for some in of_seed:
            value = fold_value(results, arm, metric, target, place, some, weights)
            if np.isfinite(value[0]):
                values += len(some) * value
                total += len(some)
        molecules = sum(map(len, of_seed))
    if not total:
        values[:] = np.nan
    values /= max(total, 1)
    interval = None if weights is None else bootstrap.percentile_interval(values[1:])
    return Figure(float(values[0]), interval, molecules, values[1:])


def fold_value(
    results: ProbeResults,
    arm: Arm,
    metric: Metric,
    target: int,
    place: int,
    some: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """The metric on some molecules, and then its draws; NaN where it is not defined.

    Args:
        results: see `figure`.
        arm: see `figure`.
        metric: see `figure`.
        target: see `figure`.
        place: of the seed.
        some: numbers of molecules, perhaps none.
        weights: see `figure`.
    """
    draws = 0 if weights is None else len(weights)
    if not len(some):
        return np.full(draws + 1, np.nan)
    pred = arm.pred[place, some]
    if results.rows.kind != "multiclass":
        pred = pred[:, target]
    once = np.ones((1, len(some)))
    own = once if weights is None else np.concatenate([once, weights[:, some]])
    return metric.statistic(results.rows.true[some, target], pred, own)


def mean_over_targets(figures: Sequence[Figure]) -> Figure:
    """The mean of a metric over targets, with the interval of the mean."""
    draws = np.mean([f.draws for f in figures], axis=0)
    value = float(np.mean([f.value for f in figures]))
    interval = bootstrap.percentile_interval(draws)
    return Figure(value, interval, sum(f.molecules for f in figures), draws)


def coverage_of(arm: Arm, level: float, target: int) -> tuple[int, float, float]:
    """Labels, the share of them inside intervals, and the mean size of these.

    Over all folds and seeds; each label counts once for each seed.
    """
    assert arm.coverage is not None
    n, share, size = arm.coverage[:, :, LEVELS.index(level), target].reshape(-1, 3).T
    some = n > 0
    if not some.any():
        return 0, np.nan, np.nan
    total = n[some].sum()
    return (
        int(total),
        float((n * share)[some].sum() / total),
        float((n * size)[some].sum() / total),
    )


def _arm(
    rows: ProbeRows, settings: ProbeSettings, folds: np.ndarray, cells: Sequence[Cell]
) -> Arm:
    S, F, T = len(settings.seeds), settings.folds, len(rows.targets)
    pred = np.full((S, len(rows), cells[0].pred.shape[1]), np.nan)
    losses = np.full((S, F, T), np.nan)
    coverage = np.full((S, F, len(LEVELS), T, 3), np.nan)
    chosen = np.full((S, F, T), "", object)
    for cell in cells:
        place = settings.seeds.index(cell.seed)
        pred[place, folds[place] == cell.fold] = cell.pred
        losses[place, cell.fold] = cell.inner_loss
        coverage[place, cell.fold] = cell.coverage
        chosen[place, cell.fold] = cell.chosen
    model = probes.name_of(cells[0].model, rows.kind)
    name = cells[0].representation
    return Arm(name, model, pred, losses, coverage, chosen.astype(np.str_))


def _chosen(rows: ProbeRows, folds: np.ndarray, arms: Sequence[Arm]) -> Arm:
    """The better model by inner folds, for each target of each fold and seed."""
    losses = np.stack([_losses(arm) for arm in arms])
    best = np.where(np.isfinite(losses), losses, np.inf).argmin(0)  # (S, F, T)
    pred = np.full_like(arms[0].pred, np.nan)
    coverages = [arm.coverage for arm in arms if arm.coverage is not None]
    coverage = np.full_like(coverages[0], np.nan)
    names = np.array([arm.model for arm in arms])
    for place, fold, t in np.ndindex(*best.shape):
        winner = best[place, fold, t]
        some = np.flatnonzero(folds[place] == fold)
        columns = slice(None) if rows.kind == "multiclass" else slice(t, t + 1)
        pred[place, some, columns] = arms[winner].pred[place, some, columns]
        coverage[place, fold, :, t] = coverages[winner][place, fold, :, t]
    return Arm(
        arms[0].representation, CHOSEN, pred, losses.min(0), coverage, names[best]
    )


def _losses(arm: Arm) -> np.ndarray:
    assert arm.inner_loss is not None
    return arm.inner_loss


def _trivial(rows: ProbeRows, settings: ProbeSettings, folds: np.ndarray) -> np.ndarray:
    classes = len(rows.classes)
    P = classes if rows.kind == "multiclass" else len(rows.targets)
    pred = np.zeros((len(folds), len(rows), P))
    for place, own in enumerate(folds):
        for fold in range(settings.folds):
            test = own == fold
            pred[place, test] = trivial(rows.true[~test], rows.kind, classes)
    return pred
