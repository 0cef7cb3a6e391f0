"""Folders with the files that runs leave, for readers of logs."""

import json
import math


def leave_run(path, train, valid, **options):
    """Writes config, state and log of a run of ``train.epochs`` epochs of 10 steps.

    Args:
        path: the run's folder.
        train: mean training loss of each completed epoch.
        valid: validation loss of each.
        **options: ``lr``, ``rows``, ``epochs``, ``warmup``, ``unit``, ``schedule``,
            ``state``, ``reason``, ``skipped`` (steps by the end of each epoch),
            ``seconds`` (the clock at the end of each), ``max_steps``, ``model``.
    """
    given = {
        "lr": 0.1,
        "rows": 8,
        "epochs": len(train),
        "warmup": 0,
        "unit": "step",
        "schedule": "constant",
        "state": "finished",
        "reason": "",
        "skipped": [0] * len(train),
        "seconds": [float(e + 1) for e in range(len(train))],
        "max_steps": 0,
        "model": "painn",
    } | options
    path.mkdir(parents=True)
    config = {
        "name": path.name,
        "task": "force_field",
        "seed": 0,
        "optimizer": {
            "lr": given["lr"],
            "schedule": given["schedule"],
            "warmup_steps": given["warmup"],
            "warmup_unit": given["unit"],
            "decay_steps": 0,
        },
        "train": {"epochs": given["epochs"], "max_steps": given["max_steps"]},
        "batch": {"rows": given["rows"], "molecules": 1, "exact_molecules": 0},
        "model": {"name": given["model"], "buckets": [16, 32]},
    }
    steps = min(10 * given["epochs"], given["max_steps"] or math.inf)
    run = {"schema": 1, "state": given["state"], "stop_reason": given["reason"]}
    planned = {"steps": int(steps), "steps_per_epoch": 10}
    records = []
    for e, (t, v) in enumerate(zip(train, valid, strict=True)):
        for split, name, value in (
            ("epoch", "train_loss", t),
            ("epoch", "skipped_steps", given["skipped"][e]),
            ("valid", "loss", v),
        ):
            records.append(
                {
                    "step": 10 * (e + 1),
                    "epoch": e,
                    "split": split,
                    "name": name,
                    "value": value if math.isfinite(value) else None,
                    "count": 1,
                    "unit": "",
                    "time": {"unix": 0.0, "run_s": given["seconds"][e]},
                }
            )
    (path / "config.json").write_text(json.dumps(config))
    (path / "run.json").write_text(json.dumps(run))
    (path / "artifacts.json").write_text(json.dumps({"planned": planned}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
