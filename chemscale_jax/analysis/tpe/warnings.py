"""When early losses of runs are not what they are taken for."""

from collections.abc import Iterator, Sequence

from chemscale_jax.analysis.tpe.run_curves import RunCurve, epochs_at

# Below this many finished runs, Eq. 8 goes through its points whatever they are.
FEW = 10
# Fields that change what a training loss is a mean of, or of what data.
_LOSS_FIELDS = ("loss.", "data.", "task", "model.dropout", "batch.form")


def warnings(
    curves: Sequence[RunCurve], fraction: float, score: str, fitted: int
) -> Iterator[str]:
    """Sentences on what makes the ranking or its fit doubtful.

    Args:
        curves: all runs that are ranked.
        fraction: of their epochs that is looked at.
        score: an entry of `tpe.SCORES`.
        fitted: how many runs the line goes through.
    """
    yield from _warmup(curves, fraction)
    yield from _schedules(curves)
    if fitted < FEW:
        yield (
            f"only {fitted} finished runs: below {FEW}, R^2 in sample says little, and "
            "rank correlations vary widely"
        )
    yield from _batches(curves, fraction)
    if score != "valid":
        yield from _losses(curves)
    lost = [c.name for c in curves if c.state == "failed" and not c.diverged]
    if lost:
        yield f"failed for another reason than their loss: {', '.join(lost)}"


def _warmup(curves: Sequence[RunCurve], fraction: float) -> Iterator[str]:
    inside, mostly = [], []
    for curve in curves:
        end = window_steps(curve, fraction)
        if not curve.warmup_steps or not end:
            continue
        if end <= curve.warmup_steps:
            inside.append(curve)
        elif end < 2 * curve.warmup_steps:
            mostly.append(curve)
    for found, how in ((inside, "lies inside"), (mostly, "is mostly")):
        if found:
            example = found[0]
            yield (
                f"of {len(found)} of {len(curves)} runs the early window "
                f"({window_steps(example, fraction):,} steps) {how} the warm-up "
                f"({example.warmup_steps:,} steps), which hides what their learning "
                "rates do; look at a larger fraction or shorten the warm-up"
            )


def _schedules(curves: Sequence[RunCurve]) -> Iterator[str]:
    names = sorted({curve.schedule for curve in curves})
    if len(names) > 1:
        yield (
            f"schedules differ ({', '.join(names)}): an annealed run gains late what a "
            "constant one gains early, so early losses do not compare them"
        )
    annealed = [curve for curve in curves if curve.schedule != "constant"]
    parts = {round(_decay_share(curve), 3) for curve in annealed}
    if len(parts) > 1:
        yield (
            f"the annealing ends after {min(parts):.0%} to {max(parts):.0%} of the "
            "training, so at one fraction of it learning rates are at different parts "
            "of their schedules"
        )
    lengths = sorted({curve.epochs_planned for curve in curves})
    if len(lengths) > 1:
        yield (
            f"runs are planned for {lengths[0]} to {lengths[-1]} epochs: the same "
            "fraction is another number of epochs, so scores that sum over epochs "
            "(tse, tse_ema) are not comparable"
        )


def _batches(curves: Sequence[RunCurve], fraction: float) -> Iterator[str]:
    sizes = sorted({curve.batch for curve in curves})
    steps = [n for n in (window_steps(curve, fraction) for curve in curves) if n]
    if len(sizes) > 1 and steps:
        yield (
            f"batch sizes differ ({', '.join(map(str, sizes))}): in the same epochs, "
            f"runs make {min(steps):,} to {max(steps):,} updates, so large batches are "
            "seen earlier in their training than small ones; ranks within one batch "
            "size are free of that"
        )


def _losses(curves: Sequence[RunCurve]) -> Iterator[str]:
    fields = {
        field
        for curve in curves
        for field in curve.settings
        if field.startswith(_LOSS_FIELDS)
        and field != "data.split_seed"
        and len({repr(other.settings.get(field)) for other in curves}) > 1
    }
    if fields:
        yield (
            f"runs differ in {', '.join(sorted(fields))}, which changes what a "
            "training loss means; compare them by --score=valid, on one validation set"
        )


def window_steps(curve: RunCurve, fraction: float) -> int:
    """Steps of the early window; 0 where no epoch of it is completed."""
    epochs = min(epochs_at(fraction, curve.epochs_planned), curve.epochs)
    return int(curve.epoch_step[epochs - 1]) if epochs else 0


def _decay_share(curve: RunCurve) -> float:
    """After which part of its training a run's learning rate is at its end."""
    length = curve.settings.get("optimizer.decay_steps") or curve.steps_planned
    return length / curve.steps_planned
