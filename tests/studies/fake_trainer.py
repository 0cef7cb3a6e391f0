"""A trainer without JAX: it writes the files of a run, with losses from its settings.

    python fake_trainer.py --config=... --workdir=DIR [--pause_after_epochs=N]
    python fake_trainer.py lanes < ORDERS

lr=0.003 has the lowest loss; lr=9 diverges in epoch 2, lr=7 fails for another reason.
Environment: FAKE_CONFIG is a file with the config but for learning rate and epochs,
FAKE_STEP_S seconds are taken by a step, FAKE_LANES_EXIT is a status lanes fail with.
"""

import json
import math
import os
import pathlib
import signal
import sys
import time

STEPS = 3  # of an epoch


class StoppedError(Exception):
    """SIGTERM came."""


class Run:
    """A run in a folder; its checkpoint is a file that says how long the log was."""

    def __init__(self, arguments):
        given = dict(a.removeprefix("--").split("=", 1) for a in arguments)
        self.folder = pathlib.Path(given["workdir"])
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lr = float(given.get("config.optimizer.lr", 0.01))
        self.epochs = int(given.get("config.train.epochs", 9))
        self.pause = int(given.get("pause_after_epochs", 0)) or None
        config = json.loads(pathlib.Path(os.environ["FAKE_CONFIG"]).read_text())
        config["optimizer"]["lr"] = self.lr
        config["train"]["epochs"] = self.epochs
        self.config = config
        planned = {"steps": STEPS * self.epochs, "steps_per_epoch": STEPS}
        (self.folder / "artifacts.json").write_text(json.dumps({"planned": planned}))
        saved = self.folder / "saved.json"
        at = json.loads(saved.read_text()) if saved.exists() else {}
        self.step, self.bytes = at.get("step", 0), at.get("bytes", 0)
        self.log = (self.folder / "metrics.jsonl").open("ab")
        self.log.truncate(self.bytes)
        self.failed = ""

    def claim(self):
        (self.folder / "config.json").write_text(json.dumps(self.config))
        with (self.folder / "starts.txt").open("a") as file:
            file.write(f"{self.step}\n")
        self.note("running")

    def note(self, state, reason=""):
        path = self.folder / "run.json"
        new = path.with_name("run.json.new")
        new.write_text(json.dumps({"schema": 1, "state": state, "stop_reason": reason}))
        os.replace(new, path)

    @property
    def epoch(self):
        return self.step // STEPS

    @property
    def moves(self):
        waits = self.pause is not None and self.epoch >= self.pause
        return not self.failed and self.epoch < self.epochs and not waits

    def loss(self, step):
        return abs(math.log(self.lr / 0.003)) + 3.0 * math.exp(-step / 9)

    def record(self, split, name, value):
        line = {
            "step": self.step,
            "epoch": (self.step - 1) // STEPS,
            "split": split,
            "name": name,
            "value": value,
            "time": {"run_s": 0.1 * self.step},
        }
        self.log.write(json.dumps(line).encode() + b"\n")
        self.log.flush()

    def advance(self):
        """One step; the last of an epoch is validated and saved."""
        time.sleep(float(os.environ.get("FAKE_STEP_S", 0)))
        if self.lr == 7:
            sys.exit("out of memory")
        self.step += 1
        # How often each step was taken, whatever became of it.
        with (self.folder / "steps.txt").open("a") as file:
            file.write(f"{self.step}\n")
        if self.lr == 9 and self.step == STEPS + 1:
            self.failed = "loss nan is not finite at step 4"
            return
        self.record("train", "loss", self.loss(self.step))
        if self.step % STEPS == 0:
            self.record("epoch", "train_loss", self.loss(self.step - 1))
            self.record("epoch", "skipped_steps", 0.0)
            self.record("valid", "loss", self.loss(self.step))
        saved = {"step": self.step, "bytes": self.log.tell()}
        new = self.folder / "saved.json.new"
        new.write_text(json.dumps(saved))
        os.replace(new, self.folder / "saved.json")

    def end(self):
        """Says in run.json where the run is."""
        if self.failed:
            self.note("failed", self.failed)
        elif self.epoch >= self.epochs:
            self.note("finished", "all epochs done")
            (self.folder / "card.md").write_text("card")
        else:
            self.note("paused")


def stop(*_):
    raise StoppedError


def alone(arguments):
    run = Run(arguments)
    run.claim()
    while run.moves:
        run.advance()
    run.end()
    return 2 if run.failed else 0


def lanes():
    order = json.loads(sys.stdin.readline())
    if os.environ.get("FAKE_LANES_EXIT"):
        return int(os.environ["FAKE_LANES_EXIT"])
    runs = [Run(arguments) for arguments in order["cells"]]
    with (runs[0].folder.parent / "lanes.log").open("a") as file:
        file.write(f"{len(runs)}\n")
    first = True
    while True:
        moving = []
        for run, pause in zip(runs, order["pause_after"], strict=True):
            run.pause = pause
            if pause != 0:
                moving.append(run)
                run.claim() if first else run.note("running")
        first = False
        while any(run.moves for run in moving):
            for run in moving:
                if run.moves:
                    run.advance()
        for run in moving:
            run.end()
        line = sys.stdin.readline()
        if not line.strip():
            return 0
        order = json.loads(line)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    try:
        sys.exit(lanes() if sys.argv[1:] == ["lanes"] else alone(sys.argv[1:]))
    except StoppedError:
        sys.exit(0)
