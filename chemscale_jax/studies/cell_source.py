"""Where the cells of a sweep come from: all at once, or a generation at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from chemscale_jax.studies.cells import Cell
from chemscale_jax.studies.optuna_trials import OptunaTrials


class CellSource(Protocol):
    """The cells that are known so far."""

    @property
    def cells(self) -> Sequence[Cell]:
        """In the order in which they came to be known."""
        ...

    @property
    def complete(self) -> bool:
        """Whether no more will come, so that the policy may decide between them."""
        ...

    @property
    def wants_scores(self) -> bool:
        """Whether `advance` has to be called once the cells have their first scores."""
        ...

    def advance(self, scores: Mapping[str, float]) -> None:
        """Takes in the first scores of all cells, and makes more where they are due.

        Args:
            scores: {cell: score at the first decision, lower is better}.
        """
        ...


class FixedCells:
    """Cells of a grid or of a random search."""

    complete, wants_scores = True, False

    def __init__(self, cells: Sequence[Cell]) -> None:
        """Knows all cells from the start."""
        self.cells = list(cells)

    def advance(self, scores: Mapping[str, float]) -> None:
        """Nothing more comes."""


class OptunaCells:
    """Cells of an Optuna study, a generation at a time."""

    def __init__(
        self,
        trials: OptunaTrials,
        make: Callable[[Mapping[str, Any]], Cell],
        number: int,
        generation: int,
    ) -> None:
        """Goes on with the trials that the study has of this sweep.

        Args:
            trials: of this sweep in the study.
            make: settings -> cell.
            number: of trials in all.
            generation: trials that are asked for before any of them is told.
        """
        self._trials, self._make = trials, make
        self._number, self._generation = number, generation
        self._cells: dict[str, Cell] = {}
        self._name_of: dict[int, str] = {}
        self._told = 0
        self._know()
        # A kill may have come within a generation.
        begun = max(math.ceil(len(self._name_of) / generation), 1)
        self._ask_up_to(begun * generation)

    @property
    def cells(self) -> list[Cell]:
        """Fewer than trials, where a sampler asks for the same settings again."""
        return list(self._cells.values())

    @property
    def complete(self) -> bool:
        """Whether all trials were asked for."""
        return len(self._name_of) >= self._number

    @property
    def wants_scores(self) -> bool:
        """Whether there are trials that were not told yet."""
        return self._told < len(self._name_of)

    def advance(self, scores: Mapping[str, float]) -> None:
        """Tells the study the scores and asks for the next generation."""
        for number, name in self._name_of.items():
            self._trials.tell(number, scores[name])
        self._told = len(self._name_of)
        self._ask_up_to(self._told + self._generation)

    def _ask_up_to(self, number: int) -> None:
        for _ in range(min(number, self._number) - len(self._name_of)):
            self._trials.ask()
        self._know()

    def _know(self) -> None:
        for number, settings in self._trials.own().items():
            if number not in self._name_of:
                cell = self._make(settings)
                self._cells.setdefault(cell.name, cell)
                self._name_of[number] = cell.name
