"""Puts a sweep together from what it was told, and runs it."""

import ast
import dataclasses
import pathlib
import shlex
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError
from chemscale_jax.studies import policies, search_space
from chemscale_jax.studies.cell_source import CellSource, FixedCells, OptunaCells
from chemscale_jax.studies.cell_status import forecast
from chemscale_jax.studies.cells import Cell, check_overrides, make_cell, make_cells
from chemscale_jax.studies.journal import Journal, keep_plan
from chemscale_jax.studies.lane_groups import lane_groups
from chemscale_jax.studies.live_table import LiveTable
from chemscale_jax.studies.local_processes import places_of
from chemscale_jax.studies.optuna_trials import OptunaTrials, check_installed
from chemscale_jax.studies.policies import Policy, make_policy, unseen
from chemscale_jax.studies.sweep import Programs, Sweep, check_cells
from chemscale_jax.studies.sweep_report import write_sweep

SEARCHES = ("grid", "random", "optuna")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What a sweep is told; a folder is of one sweep, which is told once."""

    config: str  # FILE or FILE:ARGUMENTS
    workdir: pathlib.Path
    overrides: Sequence[str] = ()  # --config.KEY=VALUE, for every cell
    search: str = ""  # an entry of SEARCHES; empty: grid, if there is one
    space: Sequence[str] = ()  # KEY=RANGE; empty: search() of the config file
    trials: int = 16  # of random and optuna
    generation: int = 4  # trials that Optuna chooses before it sees their scores
    seed: int = 0  # of the choices
    storage: str = ""  # of Optuna; empty: a file in the workdir
    study: str = ""  # name in the storage; empty: that of the config file
    policy: str = policies.DEFAULT  # an entry of policies.POLICIES
    settings: Sequence[str] = ()  # --policy.KEY=VALUE

    def make_policy(self) -> Policy:
        """The policy with its settings."""
        found: dict[str, Any] = {}
        for given in self.settings:
            key, equals, text = given.removeprefix("--policy.").partition("=")
            if not equals:
                raise UserError(f"cannot read argument {given!r}; --policy.KEY=VALUE")
            try:
                found[key] = ast.literal_eval(text)
            except (SyntaxError, ValueError):
                found[key] = text
        return make_policy(self.policy, **found)

    def plan(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """What must not change from one command to the next.

        Args:
            cells: as `make_cells` gives them.
        """
        policy: Any = self.make_policy()
        plan = {
            "config": self.config,
            "overrides": list(self.overrides),
            "search": self.chosen_search,
            "policy": dataclasses.asdict(policy),
        }
        if self.chosen_search != "grid":
            plan |= {"trials": self.trials, "seed": self.seed}
        if self.chosen_search == "optuna":
            plan |= {"generation": self.generation, "storage": self.storage}
            plan |= {"study": self.study_name}
        else:
            plan["cells"] = [cell.name for cell in cells]
        if self.space or self.chosen_search != "grid":
            plan["space"] = self.space_text()
        return plan

    @property
    def chosen_search(self) -> str:
        """The search, where none was named: the grid if there is one."""
        if self.search and self.search not in SEARCHES:
            raise UserError(
                f"--search is {self.search!r}, expected one of {', '.join(SEARCHES)}"
            )
        has_grid = not self.space and hasattr(self._module(), "sweep")
        return self.search or ("grid" if has_grid else "random")

    @property
    def study_name(self) -> str:
        """Of the Optuna study."""
        return self.study or pathlib.Path(self.config.partition(":")[0]).stem

    def space_text(self) -> dict[str, str]:
        """The space to search, as it is written.

        Raises:
            UserError: none is given, and the config file has none.
        """
        if self.space:
            return search_space.parse_arguments(self.space)
        search = getattr(self._module(), "search", None)
        if search is None:
            raise UserError(
                f"{self.config} has neither sweep() nor search(); give ranges like "
                "--space='optimizer.lr=log(1e-4, 1e-2)'"
            )
        return dict(search())

    def make_cells(self) -> list[Cell]:
        """The cells of a grid or a random search; of Optuna, some that it could choose.

        Raises:
            UserError: see ``cells.make_cells``.
        """
        check_overrides(self.overrides)
        if self.trials < 1 or self.generation < 1:
            raise UserError("--trials and --generation are at least 1")
        source = "the space"
        if self.chosen_search != "grid":
            space = search_space.parse_space(self.space_text())
            choices = search_space.draws(space, self.trials, self.seed)
        elif self.space:
            space = search_space.parse_space(self.space_text())
            choices = list(search_space.grid(space))
        elif hasattr(self._module(), "sweep"):
            choices, source = list(self._module().sweep()), f"sweep() of {self.config}"
        else:
            raise UserError(
                f"{self.config} has no sweep(); give --space with choices, or use "
                "--search=random"
            )
        args = self.config, self.workdir, self.overrides, choices, source
        return make_cells(*args)

    def make_source(self) -> CellSource:
        """Where the cells come from; opens the Optuna study, if it is one."""
        if self.chosen_search != "optuna":
            return FixedCells(self.make_cells())
        space = search_space.parse_space(self.space_text())
        storage = self.storage or f"sqlite:///{self.workdir / 'optuna.db'}"
        trials = OptunaTrials(space, storage, self.study_name, self.workdir, self.seed)

        def make(settings: Mapping[str, Any]) -> Cell:
            return make_cell(self.config, self.workdir, self.overrides, settings)

        return OptunaCells(trials, make, self.trials, self.generation)

    def _module(self) -> Any:
        return config_files.load_module(
            config_files.find(self.config.partition(":")[0])
        )


def check(told: Told) -> tuple[list[Cell], Policy]:
    """Finds mistakes before anything is written.

    Returns:
        The cells, of Optuna some that it could choose; and the policy.
    """
    policy = told.make_policy()
    cells = told.make_cells()
    check_cells(cells, policy)
    if told.chosen_search == "optuna":
        check_installed()
    return cells, policy


def dry_run(told: Told, jobs: int, devices: str, lanes: int, programs: Programs) -> str:
    """What a sweep would do: its commands, its lanes and its cost."""
    cells, policy = check(told)
    places = places_of(jobs, devices)
    lines = [shlex.join([*programs.trainer, *cell.arguments]) for cell in cells]
    groups = [len(g) for g in lane_groups(cells, len(places), lanes)]
    together = [str(size) for size in groups if size > 1]
    runs = {c.name: unseen(c.config["train"]["epochs"]) for c in cells}
    spent = sum(forecast(policy, runs).values())
    planned = sum(run.epochs for run in runs.values())
    if told.chosen_search == "optuna":
        lines.append("Optuna chooses settings as it goes; those above are examples.")
    lines.append(
        f"{len(cells)} cells; lanes of one program: "
        f"{' and '.join(together) if together else 'none'}; batches of other shapes "
        "may yet keep them apart"
    )
    lines.append(
        f"policy {policy.name}: {spent} of {planned} epochs ({spent / planned:.0%}) if "
        "no run stops early or diverges"
    )
    return "\n".join(lines)


def run_sweep(
    told: Told, jobs: int, devices: str, lanes: int, programs: Programs
) -> tuple[signal.Signals | None, dict[str, int], str]:
    """Runs a sweep, or goes on with it.

    Args:
        told: what it is told.
        jobs: processes at a time; 0: one, or one per device.
        devices: GPUs, separated by commas; empty: what JAX finds.
        lanes: most cells of one process.
        programs: that train.

    Returns:
        The signal that stopped it, if any; exit codes of failed cells; the report,
        empty where it was stopped.

    Raises:
        UserError: something it was told cannot be used.
    """
    cells, policy = check(told)
    places = places_of(jobs, devices)
    if lanes < 1:
        raise UserError(f"--lanes is {lanes}, expected at least 1")
    plan = told.plan(cells)
    keep_plan(told.workdir, plan)
    source = told.make_source()
    journal = Journal(told.workdir)
    sweep = Sweep(told.workdir, source, policy, journal, places, lanes, programs)
    try:
        received = sweep.run(LiveTable(policy, len(places)))
    finally:
        journal.close()
    if received:
        return received, sweep.broken, ""
    glance = sweep.glance()
    text = write_sweep(told.workdir, plan, policy, glance, journal.seconds)
    return None, sweep.broken, text
