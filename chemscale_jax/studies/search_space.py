"""Ranges of settings to search: ``optimizer.lr=log(1e-5, 1e-2)``.

A config file may give its own by ``search()``, which returns such ranges as text:

    def search():
        return {"optimizer.lr": "log(1e-5, 1e-2)", "batch.rows": "choice(4, 8, 16)"}

==================  ============================================
log(low, high)      a number, uniform in its logarithm
uniform(low, high)  a number
int(low, high)      a whole number, both ends included
choice(a, b, ...)   one of these words or numbers
==================  ============================================

A key with a colon, ``:width``, is an argument of the config.
"""

import ast
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.core.errors import UserError

_CALL = re.compile(r"(\w+)\((.*)\)")
# Enough to tell two runs apart, few enough for a name of a folder.
_DIGITS = 4
# Draws of a setting that is there already, after which nothing new is expected.
_TRIES = 1000


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of numbers."""

    kind: str  # log, uniform, int
    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> Any:
        """A number of the range."""
        if self.kind == "int":
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        if self.kind == "log":
            return rounded(math.exp(rng.uniform(math.log(self.low), self._log_high)))
        return rounded(rng.uniform(self.low, self.high))

    @property
    def _log_high(self) -> float:
        return math.log(self.high)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """One of the values."""
        return self.values[rng.integers(len(self.values))]


Space = Mapping[str, Range | Choice]


def parse_space(given: Mapping[str, str]) -> dict[str, Range | Choice]:
    """A space from text, as in the text of this module.

    Raises:
        UserError: a range cannot be read, or is empty.
    """
    return {key: _parse(key, text) for key, text in given.items()}


def parse_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """``["optimizer.lr=log(1e-5, 1e-2)"]`` as a dictionary."""
    given = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or key in given:
            raise UserError(
                f"--space={argument!r} cannot be used; give each field once, like "
                "--space='optimizer.lr=log(1e-5, 1e-2)'"
            )
        given[key] = text
    return given


def grid(space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of a space that has choices only."""
    values = []
    for key, found in space.items():
        if not isinstance(found, Choice):
            raise UserError(
                f"{key} is a range, of which there is no grid; write it as a choice, "
                "or use --search=random"
            )
        values.append(found.values)
    for chosen in itertools.product(*values):
        yield dict(zip(space, chosen, strict=True))


def draws(space: Space, trials: int, seed: int) -> list[dict[str, Any]]:
    """Different random settings; more trials begin with the same ones.

    Args:
        space: what to draw from.
        trials: how many.
        seed: of the draws.

    Raises:
        UserError: there are not so many different ones.
    """
    found: list[dict[str, Any]] = []
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        for _ in range(_TRIES):
            chosen = {key: one.draw(rng) for key, one in space.items()}
            if chosen not in found:
                found.append(chosen)
                break
        else:
            raise UserError(
                f"the space has only about {len(found)} different settings, and "
                f"{trials} are asked for; lower --trials or use --search=grid"
            )
    return found


def rounded(value: float) -> float:
    """A number of four digits."""
    return float(f"{value:.{_DIGITS}g}")


def _parse(key: str, text: str) -> Range | Choice:
    match = _CALL.fullmatch(text.strip())
    kind, inside = match.groups() if match else ("", "")
    parts = [part.strip() for part in inside.split(",") if part.strip()]
    if kind == "choice" and parts:
        return Choice(tuple(map(_value, parts)))
    numbers = [_value(part) for part in parts]
    if kind in ("log", "uniform", "int") and len(numbers) == 2:
        low, high = numbers
        if all(isinstance(x, int | float) for x in numbers):
            whole = kind != "int" or all(isinstance(x, int) for x in numbers)
            if low < high and whole and (low > 0 or kind != "log"):
                return Range(kind, low, high)
    raise UserError(
        f"the range of {key} is {text!r}; write log(low, high), uniform(low, high), "
        "int(low, high) or choice(a, b, ...), with low below high, and above 0 in log"
    )


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
