"""The process of cells that train as lanes of one program.

    python -m chemscale_jax.studies.lane_process < ORDERS

Orders are lines of JSON. The first names the cells and the epochs after which each of
them waits (null: it does not wait; 0: it stands still and its files stay as they are):

    {"cells": [["--config=...", "--workdir=..."], ...], "pause_after": [2, 2, 0]}

Once no lane moves any more, its state is in run.json, the runs that are finished have
their reports, and the next line is read: ``{"pause_after": [0, null, 0]}``. Those that
may go on do, in the same program. Without another line the process ends, and any of the
runs goes on alone or with others.
"""

import json
import sys
import time

_START = time.monotonic()  # before the imports, which count as start-up

from collections.abc import Sequence  # noqa: E402
from typing import Any  # noqa: E402

from chemscale_jax import main as trainer  # noqa: E402
from chemscale_jax.core import partition, processes, selftest  # noqa: E402
from chemscale_jax.core.errors import UserError  # noqa: E402
from chemscale_jax.data import cache  # noqa: E402
from chemscale_jax.runs.assembly import make_lane, with_start  # noqa: E402
from chemscale_jax.runs.endings import end_runs  # noqa: E402
from chemscale_jax.runs.run import ending_fields  # noqa: E402
from chemscale_jax.studies.lane_groups import APART  # noqa: E402
from chemscale_jax.training import lane_programs, lanes, setup  # noqa: E402
from chemscale_jax.training.host import Outcome  # noqa: E402


def main() -> int:
    """Trains lanes as told on standard input; a user's mistake gives one line."""
    try:
        first = read_order()
        if first is None:
            raise UserError("no orders on standard input; see the text of this module")
        group = LaneGroup(first["cells"], first["pause_after"])
        try:
            group.check()
        except UserError as error:
            print(f"not lanes of one program: {error}", file=sys.stderr)
            return APART
        group.train()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def read_order() -> dict[str, Any] | None:
    """The next line of orders; None where no more come."""
    line = sys.stdin.readline()
    return json.loads(line) if line.strip() else None


class LaneGroup:
    """Runs that train together, and what is asked of each of them."""

    def __init__(
        self, cells: Sequence[Sequence[str]], pause_after: Sequence[int | None]
    ) -> None:
        """Puts the runs together; their folders are not claimed yet.

        Args:
            cells: arguments of the trainer.
            pause_after: of each cell, see the text of this module.
        """
        configs = [with_start(trainer.parse(["lane", *given])) for given in cells]
        processes.start(cache.cache_folder() / "xla", cpu_devices=len(configs))
        selftest.check_arithmetic()
        mesh = configs[0].mesh
        self._mesh = partition.make_mesh(mesh.data, mesh.fsdp, mesh.tensor)
        self._lanes = [
            make_lane(config, setup.open_workdir(config.to_dict(), lead=True))
            for config in configs
        ]
        self._pauses = list(pause_after)

    def check(self) -> None:
        """Raises unless the runs can share a program on these devices."""
        if not lane_programs.spreads_lanes(len(self._lanes), self._mesh):
            partition.check_rows(self._lanes[0].config.batch.rows, self._mesh)
        lanes.check(self._lanes)

    def train(self) -> None:
        """Trains until no more orders come."""
        for k in self._moving():
            setup.claim(self._lanes[k].workdir, self._lanes[k].config.to_dict())
        print(
            f"{len(self._lanes)} lanes of {self._lanes[0].config.name} on "
            f"{self._mesh.size} devices\n{self._lanes[0].stream.summary}",
            flush=True,
        )
        try:
            outcomes = lanes.train(
                self._lanes,
                self._mesh,
                on_first_step=self._first_step,
                pause_after=self._pauses,
                on_rest=self._rest,
            )
        except BaseException as error:
            reason = " ".join(str(error).split())
            for k in self._moving():
                if self._lanes[k].workdir.run()["state"] == "running":
                    self._update(k, state="failed", stop_reason=reason)
            raise
        self._note(outcomes)

    def _moving(self) -> list[int]:
        """Numbers of the lanes that were told to move."""
        return [k for k, epochs in enumerate(self._pauses) if epochs != 0]

    def _rest(self, outcomes: Sequence[Outcome]) -> Sequence[int | None]:
        """Notes where the lanes are, and reads what they do next."""
        self._note(outcomes)
        order = read_order()
        self._pauses = order["pause_after"] if order else [0] * len(self._lanes)
        for k in self._moving():
            self._update(k, state="running", stop_reason="")
        return self._pauses

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        """Writes run.json of lanes that moved, and reports of those that are done."""
        for k in self._moving():
            lane, outcome = self._lanes[k], outcomes[k]
            name, step = lane.workdir.path.name, outcome.progress.step
            print(f"{name} {outcome.state} at step {step}: {outcome.reason}")
            self._update(k, **ending_fields(outcome, _elapsed()))
        finished = [k for k in self._moving() if outcomes[k].state == "finished"]
        for table in end_runs([self._lanes[k] for k in finished], lead=True):
            print(table)
        sys.stdout.flush()

    def _first_step(self) -> None:
        seconds = _elapsed()
        for k in self._moving():
            self._update(k, first_step_s=seconds)

    def _update(self, lane: int, **fields: Any) -> None:
        setup.update_run(self._lanes[lane].workdir, **fields)


def _elapsed() -> float:
    return round(time.monotonic() - _START, 1)


if __name__ == "__main__":
    sys.exit(main())
