"""Properties of many molecules, kept in a file so that none is computed twice."""

import csv
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from rdkit import Chem

from chemscale_jax.chem.descriptors import PROPERTIES, describe
from chemscale_jax.chem.smiles import quiet_rdkit
from chemscale_jax.chem.worker_map import ordered_map
from chemscale_jax.core.errors import UserError

_HEADER = ["smiles", *PROPERTIES]
# Molecules between two savings.
_SAVED = 1000


def described(
    smiles: Sequence[str],
    kept: pathlib.Path | None = None,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> np.ndarray:
    """`descriptors.PROPERTIES` of molecules.

    Args:
        smiles: of each molecule; where RDKit cannot read one, properties are NaN.
        kept: csv of what is known already, to which the others are added as they are
            computed.
        processes: default all that may be used.
        progress: whether there is a bar for many.

    Returns:
        (M, 4) float64: logP, SA, QED and MW in g/mol.

    Raises:
        UserError: the file is not such a csv.
    """
    known = _read(kept) if kept is not None and kept.exists() else {}
    lacking = [text for text in dict.fromkeys(smiles) if text not in known]
    found = ordered_map(
        _described, lacking, processes=processes, label="properties", progress=progress
    )
    waiting = []
    for text, numbers in zip(lacking, found, strict=True):
        known[text] = numbers
        waiting.append([text, *(repr(number) for number in numbers)])
        if len(waiting) == _SAVED:
            _append(kept, waiting)
            waiting = []
    _append(kept, waiting)
    return np.array([known[text] for text in smiles]).reshape(-1, len(PROPERTIES))


def _described(chunk: Sequence[str]) -> list[tuple[float, ...]]:
    with quiet_rdkit():
        mols = [Chem.MolFromSmiles(text) for text in chunk]
    # A molecule without atoms has none of the properties.
    return [describe(Chem.Mol() if mol is None else mol) for mol in mols]


def _read(path: pathlib.Path) -> dict[str, tuple[float, ...]]:
    """What is known; a last line torn by a kill is cut off."""
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        os.truncate(path, whole)
    rows = list(csv.reader(text[:whole].decode().splitlines()))
    try:
        if rows and rows[0] == _HEADER:
            return {row[0]: tuple(map(float, row[1:])) for row in rows[1:]}
    except ValueError:
        pass
    raise UserError(
        f"{path} is not a table of {', '.join(_HEADER)}: delete it, or choose another "
        "folder"
    )


def _append(path: pathlib.Path | None, rows: list[list[str]]) -> None:
    if path is None or not rows:
        return
    begun = path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(rows if begun else [_HEADER, *rows])
