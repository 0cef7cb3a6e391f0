"""Made-up learning curves of whole runs, some with a planted winner."""

import numpy as np

from chemscale_jax.analysis.tpe.run_curves import RunCurve

STEPS = 10  # of an epoch
EPOCHS = 20  # of the runs of `family`


def made(name, train, valid=None, *, planned=None, diverged=False, **changes):
    """A run that ended, by the losses of its epochs.

    Args:
        name: of the run.
        train: mean training loss of each epoch.
        valid: validation losses; by default the same.
        planned: epochs; by default as many as there are.
        diverged: whether its loss stopped being finite after these epochs.
        **changes: other fields.
    """
    train = np.asarray(train, float)
    epochs = planned or len(train)
    step = STEPS * np.arange(1, len(train) + 1)
    settings = {"optimizer.lr": 0.1, "optimizer.decay_steps": 0, "model.name": "painn"}
    fields = {
        "name": name,
        "settings": settings | changes.pop("settings", {}),
        "epochs_planned": epochs,
        "steps_planned": STEPS * epochs,
        "epoch_step": step,
        "epoch_seconds": step / 10,
        "train_loss": train,
        "valid_step": step,
        "valid_loss": train if valid is None else np.asarray(valid, float),
        "warmup_steps": 0,
        "schedule": "constant",
        "batch": 8,
        "state": "failed" if diverged else "finished",
        "stop_reason": "loss nan is not finite"
        if diverged
        else f"{epochs} epochs done",
        "diverged": diverged,
        "seconds": float(len(train)),
    }
    return RunCurve(**{**fields, **changes})


def family(winner, seed, runs=12):
    """A task on which one policy is the best choice.

    Final losses are 1.0, 1.1, 1.2, ... in an order that training and validation losses
    show from some epoch on. Until then they show the reverse, of all runs or of the
    best few among themselves.

    Args:
        winner: full (nothing tells before the last epoch), tpe (training losses tell
            from a fifth of the epochs), halving (validation losses tell from a third,
            and which four are the best from the beginning), tpe_halving (training
            losses do), asha (as halving, but which six are the best).
        seed: of the order.
        runs: number of runs.
    """
    rank = np.random.default_rng(seed).permutation(runs)
    share = np.arange(1, EPOCHS + 1) / EPOCHS
    best = 6 if winner == "asha" else 4
    few = np.where(rank < best, best - 1 - rank, rank)
    curves = []
    for i in range(runs):
        true, false = 1 + 0.1 * rank[i], 1 + 0.1 * (runs - 1 - rank[i])
        early = 1 + 0.1 * few[i]
        train = valid = np.full(EPOCHS, false)
        if winner == "tpe":
            train = np.where(share > 0.19, true, false)
        if winner == "tpe_halving":
            train = np.where(share > 0.29, true, early)
        if winner in ("halving", "asha"):
            valid = np.where(share > 0.29, true, early)
        falls = 1 + 0.05 / share
        valid = 3 + valid * falls  # the lowest is the last
        valid[-1] = true
        curves.append(made(f"run{i:02d}", train * falls, valid))
    return curves
