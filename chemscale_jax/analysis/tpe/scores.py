"""Training performance estimation: what early training losses say of the final loss.

The scores rank unfinished runs, lower is better:

- ``tse`` is Eq. 7 of Frey et al. 2023, ``sum_{t=1..T} mean_i loss(theta_{t,i})`` over
  the first T epochs;
- ``tse_last`` is the mean training loss of epoch T alone (TSE-E with E = 1 of Ru et
  al. 2021);
- ``tse_ema`` is ``sum_t decay^(T - t) mean_t``, with the decay of the jitted
  accumulator;
- ``valid`` is the validation loss after epoch T.

The first three are what the accumulator of the training step holds, in float64 here.
Differs from LitMatter's code: there ``tse`` sums epochs 1..T, but ``tse_last`` is epoch
T + 1, and ``tse_ema`` sums T + 1 epochs; here all three see the same T epochs.
"""

import math
from collections.abc import Callable

import numpy as np

from chemscale_jax.analysis.tpe.run_curves import RunCurve, epochs_at
from chemscale_jax.core.errors import UserError

# Weight of the past per epoch; that of training/tse.py, as a test makes sure.
EMA_DECAY = 0.999


def tse(train_loss: np.ndarray) -> np.ndarray:
    """(T,) Eq. 7 after each epoch.

    Args:
        train_loss: (T,) mean of each epoch.
    """
    return np.cumsum(train_loss)


def tse_last(train_loss: np.ndarray) -> np.ndarray:
    """(T,) the last epoch's mean after each epoch."""
    return np.asarray(train_loss, float)


def tse_ema(train_loss: np.ndarray, decay: float = EMA_DECAY) -> np.ndarray:
    """(T,) the exponential form after each epoch."""
    total, found = 0.0, []
    for mean in train_loss:
        total = decay * total + float(mean)
        found.append(total)
    return np.array(found)


# Scores of training losses after each epoch; "valid" is made of other losses.
_TRAINING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tse": tse,
    "tse_last": tse_last,
    "tse_ema": tse_ema,
}
SCORES = (*_TRAINING, "valid")


def scores(curve: RunCurve, name: str) -> np.ndarray:
    """A score after each epoch, lower is better.

    Args:
        curve: any run.
        name: an entry of `SCORES`.

    Returns:
        (T,); infinite from the first epoch whose loss is not finite. Of a diverged run
        (epochs_planned,), infinite for epochs it did not complete. Of a run that a rule
        stopped early (epochs_planned,), as if it had stood still from then on.
    """
    if name not in SCORES:
        raise UserError(f"the score is {name!r}, expected one of {', '.join(SCORES)}")
    losses = _valid_losses(curve) if name == "valid" else curve.train_loss
    missing = curve.epochs_planned - len(losses)
    if curve.diverged:
        losses = np.concatenate([losses, np.full(missing, math.inf)])
    elif curve.state == "finished" and len(losses):
        losses = np.concatenate([losses, np.full(missing, losses[-1])])
    losses = np.where(np.isfinite(losses), losses, math.inf)
    return _TRAINING.get(name, tse_last)(losses)


def score(curve: RunCurve, name: str) -> float:
    """The score now; infinite where the run has not completed an epoch."""
    found = scores(curve, name)
    return float(found[-1]) if len(found) else math.inf


def score_at(curve: RunCurve, fraction: float, name: str) -> float:
    """The score after a fraction of the epochs, from what was known then.

    Infinite where the run has not come so far, unless a rule had ended it before.
    """
    epochs = epochs_at(fraction, curve.epochs_planned)
    found = scores(curve, name)
    return float(found[epochs - 1]) if len(found) >= epochs else math.inf


def _valid_losses(curve: RunCurve) -> np.ndarray:
    """(T,) the validation loss at the end of each epoch."""
    at = dict(zip(curve.valid_step.tolist(), curve.valid_loss, strict=True))
    return np.array([at.get(step, math.nan) for step in curve.epoch_step.tolist()])
