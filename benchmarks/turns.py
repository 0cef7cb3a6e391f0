"""Processes that take training steps in turns, so that all meet the same machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable


class Worker:
    """A process that takes steps when told to."""

    def __init__(self, command: list[str], threads: int):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.threads = threads
        self.process = subprocess.Popen(
            [*command, f"--threads={threads}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        self.facts = self.answer()

    def answer(self) -> dict:
        """The next line of the worker that is JSON."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"worker {self.process.args} ended early")

    def step(self, count: int) -> list[float]:
        """Seconds of each of ``count`` steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self.answer()["seconds"]

    def close(self) -> None:
        """Ends the worker."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(step: Callable[[], float], facts: dict) -> None:
    """The worker's side: after two steps to warm up, takes as many as it reads.

    Args:
        step: takes one step and returns the loss once all of it is done.
        facts: for the report, next to the loss of the second step.
    """
    for _ in range(2):
        loss = step()
    print(json.dumps({**facts, "loss": loss}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds}), flush=True)
