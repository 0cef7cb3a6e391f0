"""Hyperparameters from a config: unknown names and values out of range are refused."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from chemscale_jax.core.errors import UserError

DTYPES = ("float32", "bfloat16")

T = TypeVar("T")


def from_fields(kind: type[T], model: str, hyperparameters: Mapping[str, Any]) -> T:
    """The dataclass ``kind`` with the given fields.

    Raises:
        UserError: for a field that does not exist.
    """
    assert dataclasses.is_dataclass(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(hyperparameters) - known):
        raise UserError(f"{model} has no option {unknown}; known: {sorted(known)}")
    return kind(**hyperparameters)


def check_choices(config: Any, choices: Mapping[str, Sequence[Any]]) -> None:
    """Refuses a field whose value is none of its choices."""
    for field, allowed in choices.items():
        if (value := getattr(config, field)) not in allowed:
            raise UserError(
                f"config.model.{field} is {value!r}, expected {tuple(allowed)}"
            )


def check_least(config: Any, least: Mapping[str, float]) -> None:
    """Refuses a field whose value is below its least value."""
    for field, bound in least.items():
        if (value := getattr(config, field)) < bound:
            raise UserError(f"config.model.{field} is {value}, must be >= {bound}")
