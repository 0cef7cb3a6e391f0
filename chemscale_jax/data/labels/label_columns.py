"""Cells of a table as labels: which columns, of which kind, and as which numbers."""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import KINDS

MISSING = ("", "nan", "na", "n/a", "none", "null", "missing", "-", "?")
_YES = ("1", "1.0", "true", "yes", "active", "positive")
_NO = ("0", "0.0", "false", "no", "inactive", "negative")
_MOST_CLASSES = 100


class Labels(NamedTuple):
    """Labels of R rows.

    Attributes:
        names: of the T targets.
        kind: one of `KINDS`.
        classes: of a multiclass target, the text of each class; else none.
        values_RT: float64; NaN where there is no label.
        faults: of each row, why its labels cannot be used, or "".
    """

    names: tuple[str, ...]
    kind: str
    classes: tuple[str, ...]
    values_RT: np.ndarray
    faults: list[str]


def read_labels(
    table: Mapping[str, Sequence[str]],
    *,
    targets: Sequence[str] = (),
    kind: str = "auto",
    besides: Sequence[str] = (),
) -> Labels:
    """Reads the labels of a table.

    Args:
        table: cells of each column.
        targets: names of columns; none: all that hold numbers, but for those that
            count the rows, if there are others.
        kind: of all targets, or auto: binary where all labels are 0 and 1, multiclass
            for one target of words, else regression.
        besides: columns that are no targets unless they are named.

    Raises:
        UserError: a column is missing, no column has numbers, or the kind does not
            fit.
    """
    if kind not in ("auto", *KINDS):
        raise UserError(f"config.data.kind={kind!r}: use auto or one of {KINDS}")
    names = _chosen(table, tuple(targets), besides)
    cells = {name: [_known(text) for text in table[name]] for name in names}
    kind = _kind(cells) if kind == "auto" else kind
    if kind == "multiclass":
        return _classes(names, cells)
    read = _number if kind == "regression" else _yes_or_no
    rows = len(next(iter(cells.values())))
    values = np.full((rows, len(names)), np.nan)
    faults = [""] * rows
    for place, name in enumerate(names):
        for row, text in enumerate(cells[name]):
            if not text:
                continue
            number = read(text)
            if number is None:
                wanted = (
                    "no finite number" if kind == "regression" else "neither 0 nor 1"
                )
                faults[row] = faults[row] or f"{name} is {text[:40]!r}, {wanted}"
            else:
                values[row, place] = number
    return Labels(names, kind, (), values, _without_any(values, names, faults))


def _known(text: str) -> str:
    text = text.strip()
    return "" if text.lower() in MISSING else text


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _yes_or_no(text: str) -> float | None:
    if text.lower() in _YES:
        return 1.0
    return 0.0 if text.lower() in _NO else None


def _without_any(
    values: np.ndarray, names: Sequence[str], faults: list[str]
) -> list[str]:
    """Faults, with those rows added that have no label."""
    empty = f"there is no value of {' or '.join(names[:5])}"
    known = np.isfinite(values).sum(axis=1)
    return [
        fault or ("" if n else empty) for fault, n in zip(faults, known, strict=True)
    ]


def _chosen(
    table: Mapping[str, Sequence[str]], targets: tuple[str, ...], besides: Sequence[str]
) -> tuple[str, ...]:
    for name in targets:
        if name not in table:
            near = difflib.get_close_matches(name, list(table), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"there is no column {name!r} for a target: {hint}columns are "
                f"{', '.join(map(repr, table)) or 'none'}"
            )
    if len(set(targets)) < len(targets):
        raise UserError(f"targets {targets} name a column twice")
    if targets:
        return targets
    others = [name for name in table if name not in besides]
    found = tuple(name for name in others if _has_numbers(table[name]))
    found = tuple(name for name in found if not _counts(table[name])) or found
    if not found:
        raise UserError(
            "no column holds numbers throughout, so name the targets: columns are "
            f"{', '.join(map(repr, others)) or 'none'}"
        )
    return found


def _has_numbers(cells: Sequence[str]) -> bool:
    """Whether all cells are numbers or missing, and some are numbers."""
    numbers = [_number(text) for cell in cells if (text := _known(cell))]
    return bool(numbers) and None not in numbers


def _counts(cells: Sequence[str]) -> bool:
    """Whether cells that hold numbers count the rows."""
    values = np.array([_number(text) for text in cells], float)
    return len(values) > 2 and bool((np.diff(values) == 1).all())


def _kind(cells: Mapping[str, Sequence[str]]) -> str:
    known = [text for column in cells.values() for text in column if text]
    if all(_yes_or_no(text) is not None for text in known):
        return "binary"
    words = all(_number(text) is None for text in known)
    return "multiclass" if words and len(cells) == 1 else "regression"


def _classes(names: tuple[str, ...], cells: Mapping[str, Sequence[str]]) -> Labels:
    if len(names) != 1:
        raise UserError(
            f"config.data.kind='multiclass' is for one target, not {len(names)} "
            f"({', '.join(names[:5])}): name it in config.data.targets"
        )
    (name,) = names
    texts = [_class_text(text) for text in cells[name]]
    distinct = {text for text in texts if text}
    if not 2 <= len(distinct) <= _MOST_CLASSES:
        shown = ", ".join(map(repr, sorted(distinct)[:5]))
        raise UserError(
            f"target {name!r} has {len(distinct)} classes ({shown}): 2 to "
            f"{_MOST_CLASSES} can be learned; for numbers, use config.data.kind="
            "'regression'"
        )
    numeric = all(_number(text) is not None for text in distinct)
    classes = tuple(sorted(distinct, key=float if numeric else str))
    places = {text: float(place) for place, text in enumerate(classes)}
    values = np.array([[places.get(text, np.nan)] for text in texts])
    faults = _without_any(values, names, [""] * len(texts))
    return Labels(names, "multiclass", classes, values, faults)


def _class_text(text: str) -> str:
    """A class by one name, whether written 1 or 1.0."""
    number = _number(text) if text else None
    if number is None:
        return text
    return str(int(number)) if number == int(number) else repr(number)
