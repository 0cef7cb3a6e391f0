"""What choosing one of n configurations costs, in trainings of one to its end.

Everything is counted: runs that calibrate Eq. 8, and the rest of the winner's training.
Frey et al. 2023 count neither when they speak of savings of 80 to 90 %.
"""

from collections.abc import Sequence

from chemscale_jax.analysis.tpe.run_curves import RunCurve, epochs_at


def tpe_cost(n: int, fraction: float, calibration: int = 0) -> float:
    """Of n early runs, some of which go on to calibrate Eq. 8, and the winner's rest.

    Args:
        n: configurations.
        fraction: of its training that each gets.
        calibration: runs that are trained to their end to fit the line; the winner is
            taken to be another, unless all are.
    """
    to_the_end = min(calibration + 1, n)
    return n * fraction + to_the_end * (1 - fraction)


def halving_cost(n: int, first: float, eta: float) -> float:
    """Of successive halving from rungs of ``first`` of the training upwards.

    Runs resume where they paused; ``n / eta^k`` of them (at least one) enter rung k.
    """
    cost, rung, reached = 0.0, 0, 0.0
    while reached < 1 - 1e-9:
        target = min(first * eta**rung, 1.0)
        cost += max(int(n / eta**rung + 1e-9), 1) * (target - reached)
        rung, reached = rung + 1, target
    return cost


def measured_cost(
    curves: Sequence[RunCurve], fraction: float, calibration: Sequence[str], winner: str
) -> tuple[float, float]:
    """The epochs that the runs took or will take, and those of training all of them.

    Args:
        curves: all runs of the sweep.
        fraction: of its epochs that each got at first.
        calibration: names of runs that were trained on to fit the line.
        winner: the name of the run that goes on.

    Returns:
        Both in epochs. What stopped early, by divergence or by a rule, counts with the
        epochs it has; what is not finished counts with those it is planned for.
    """
    spent = whole = 0.0
    for curve in curves:
        length = curve.epochs if curve.ended else curve.epochs_planned
        early = min(epochs_at(fraction, curve.epochs_planned), length)
        goes_on = curve.name in calibration or curve.name == winner
        spent += length if goes_on else early
        whole += length
    return spent, whole
