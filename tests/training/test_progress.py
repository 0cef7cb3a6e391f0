import json
import pathlib

from chemscale_jax.training.progress import EarlyStop, Plateau, Progress


def test_plateau_equals_a_thousand_torch_traces():
    # Recorded from torch 2.13 ReduceLROnPlateau: lr, factor, patience, floor, losses
    # and the learning rate after each.
    path = pathlib.Path(__file__).parent / "plateau_traces.json"
    traces = json.loads(path.read_text())
    assert len(traces) == 1000
    for lr, factor, patience, floor, losses, expected in traces:
        plateau = Plateau(factor=factor, patience=patience, floor=floor)
        found = []
        for loss in losses:
            plateau, lr = plateau.update(loss, lr)
            found.append(lr)
        assert found == expected


def test_early_stop_counts_epochs_without_any_improvement():
    rule = EarlyStop(patience=2)
    stops = []
    for loss in (1.0, 0.99999, 0.99999, 1.0):
        rule = rule.update(loss)
        stops.append(rule.stop)
    assert stops == [False, False, False, True]
    assert not EarlyStop(patience=0, stale_epochs=99).stop


def test_progress_survives_json():
    progress = Progress(Plateau(best=0.5, bad_epochs=3), EarlyStop(best=0.4), step=7)
    again = Progress.from_json(json.loads(json.dumps(progress.to_json())))
    assert again == progress
