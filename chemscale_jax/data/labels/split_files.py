"""Splits on disk: a table of rows and the part that each one is in."""

import csv
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from chemscale_jax.core.errors import UserError

COLUMNS = ("row", "where", "part")
# Of the rows of a file that is the test set as a whole.
GIVEN_TEST = "test file"


def write_split(
    path: str | os.PathLike,
    row: np.ndarray,
    where: Sequence[str] | np.ndarray,
    is_test: np.ndarray,
    parts: Mapping[str, np.ndarray],
) -> None:
    """Writes a split: each molecule with its row from 0, where it stands, its part.

    Args:
        path: file to write.
        row: (M,) of the molecules' rows.
        where: (M,) they stand.
        is_test: (M,) whether they are of a test file, whose rows are no rows of the
            other one.
        parts: molecules of each part: train, valid, test. Others are "unused".
    """
    word = np.full(len(row), "unused", object)
    for part, members in parts.items():
        word[members] = part
    word[is_test] = GIVEN_TEST
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.tmp")
    with draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(zip(row.tolist(), where, word, strict=True))
    draft.replace(file)


def read_split(path: str | os.PathLike) -> dict[int, str]:
    """Part of each row in a file of `write_split`, or one like it.

    Raises:
        UserError: the file cannot be read, or has other columns or words.
    """
    known: dict[int, str] = {}
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            for line in csv.DictReader(stream):
                part = line["part"].strip().lower()
                if part not in ("train", "valid", "test", "unused", GIVEN_TEST):
                    raise ValueError(f"{part!r} is none of train, valid, test, unused")
                if part not in ("unused", GIVEN_TEST):
                    known[int(line["row"])] = part
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read as a split ({error}): it must be a csv with the "
            "columns row (from 0) and part (train, valid, test)"
        ) from None
    return known
