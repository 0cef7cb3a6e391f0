"""Fits probes fold by fold, and goes on where it was stopped.

A cell is one model of one representation on one fold of one seed. Cells are done in a
fixed order, and each is kept as soon as it is done.
"""

import hashlib
import io
import pathlib
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import sklearn
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import chemscale_jax
from chemscale_jax.analysis.probes import folds as probe_folds
from chemscale_jax.analysis.probes import probes
from chemscale_jax.analysis.probes.probes import Fitting, Labels
from chemscale_jax.analysis.probes.rows import ProbeRows
from chemscale_jax.analysis.properties.simple_models import BOOSTING, FOREST, TREES
from chemscale_jax.chem.count_fingerprints import count_fingerprints
from chemscale_jax.core import conformal
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.worker_processes import usable_processes
from chemscale_jax.data.journaled_files import JournaledFiles

# The representation that others have to beat, and what it is learned with.
BASELINE = "Morgan counts"
BASELINE_MODELS = (probes.LINEAR, FOREST, BOOSTING)
# Of intervals whose coverage is measured.
LEVELS = (0.8, 0.9)
_SIZE = struct.Struct("<Q")


class ProbeSettings(NamedTuple):
    """How probes are tested."""

    split: str = "scaffold"  # one of `probe_folds.SPLITS`
    folds: int = 5
    seeds: tuple[int, ...] = (0,)
    inner_folds: int = 4
    models: tuple[str, ...] = (probes.LINEAR, BOOSTING)  # of embeddings
    baseline: tuple[str, ...] = BASELINE_MODELS  # of fingerprints; none: left out
    trees: int = TREES


class Cell(NamedTuple):
    """A model of a representation on one fold of one seed; M' molecules are tested."""

    representation: str
    model: str  # one of `probes.MODELS`
    seed: int
    fold: int
    pred: np.ndarray  # (M', P)
    # By inner folds of the training set, see `probes.loss`.
    inner_loss: np.ndarray  # (T,)
    # Of intervals by inner folds, on the fold: molecules, share inside, mean size.
    coverage: np.ndarray  # (L, T, 3)
    chosen: np.ndarray  # (T,) str, settings
    seconds: float


def fold_numbers(rows: ProbeRows, settings: ProbeSettings) -> np.ndarray:
    """(S, M) int: the fold in which each molecule is tested, for each seed."""
    blocks = probe_folds.blocks_of(rows.smiles.tolist(), settings.split)
    return np.stack(
        [probe_folds.outer_folds(blocks, settings.folds, s) for s in settings.seeds]
    )


def run_cells(
    rows: ProbeRows,
    settings: ProbeSettings,
    folder: pathlib.Path,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> list[Cell]:
    """Fits all cells, those that are not in the folder yet.

    Args:
        rows: molecules with labels and embeddings.
        settings: how they are tested.
        folder: of what is kept.
        processes: threads of forests and of linear algebra; default all.
        progress: whether there is a bar.

    Raises:
        UserError: the folder was begun with other rows or settings, another process is
            writing it, or it cannot be written.
    """
    blocks = probe_folds.blocks_of(rows.smiles.tolist(), settings.split)
    folds = fold_numbers(rows, settings)
    features: dict[str, np.ndarray] = dict(rows.values)
    if settings.baseline:
        if BASELINE in features:
            raise UserError(
                f"{BASELINE!r} is what fingerprints are called: name the embeddings "
                "otherwise, as in NAME=FILE"
            )
        features[BASELINE] = count_fingerprints(rows.smiles.tolist(), progress=False)
    plan = list(_plan(features, settings))
    threads = processes or usable_processes()
    stamp = _stamp(rows, settings)
    with (
        threadpool_limits(threads),
        JournaledFiles(folder, ("cells",), stamp) as files,
    ):
        done = files.state.get("cells", 0)
        with tqdm(
            plan[done:],
            initial=done,
            total=len(plan),
            unit="cell",
            desc="probes",
            disable=not progress,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 30.0,
        ) as bar:
            for representation, model, place, fold in bar:
                bar.set_postfix_str(f"{representation}, {model}", refresh=False)
                cell = _fit(
                    rows,
                    features[representation],
                    model,
                    blocks,
                    folds[place] == fold,
                    (settings, place, fold, threads),
                )
                own = Cell(representation, model, settings.seeds[place], fold, *cell)
                done += 1
                files.append({"cells": _packed(own)}, {"cells": done})
        return list(_read(files.path("cells")))


def _plan(
    features: Mapping[str, Any], settings: ProbeSettings
) -> Iterator[tuple[str, str, int, int]]:
    """Representation, model, place of the seed, fold; whole seeds one by one."""
    for place in range(len(settings.seeds)):
        for fold in range(settings.folds):
            for name in features:
                own = settings.baseline if name == BASELINE else settings.models
                for model in own:
                    yield name, model, place, fold


def _fit(
    rows: ProbeRows,
    x: np.ndarray,
    model: str,
    blocks: np.ndarray,
    test: np.ndarray,
    how: tuple[ProbeSettings, int, int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    began = time.monotonic()
    settings, place, fold, processes = how
    seed, train = settings.seeds[place], ~test
    inner = probe_folds.inner_folds(blocks[train], settings.inner_folds, seed, fold)
    labels = Labels(rows.true[train], rows.kind, len(rows.classes))
    fitting = Fitting(seed=seed, trees=settings.trees, processes=processes)
    probe = probes.fit_probe(model, x[train], labels, inner, fitting)
    pred = probe.predict(x[test])
    made = conformal.calibrate(
        rows.kind, rows.targets, labels.true, probe.out_of_fold, source="out-of-fold"
    )
    covered = [made.coverage(level, rows.true[test], pred) for level in LEVELS]
    losses = [
        probes.loss(
            labels.true[:, t],
            probe.out_of_fold if rows.kind == "multiclass" else probe.out_of_fold[:, t],
            rows.kind,
        )
        for t in range(len(rows.targets))
    ]
    return (
        pred,
        np.array(losses),
        np.array(covered, np.float64),
        np.array(probe.settings, np.str_),
        time.monotonic() - began,
    )


def _stamp(rows: ProbeRows, settings: ProbeSettings) -> dict[str, Any]:
    """What cells depend on."""
    digests = {}
    for name, values in rows.values.items():
        content = np.ascontiguousarray(values).tobytes()
        digests[name] = hashlib.sha256(content).hexdigest()
    labels = hashlib.sha256(np.ascontiguousarray(rows.true).tobytes())
    labels.update("\n".join(rows.smiles.tolist()).encode())
    labels.update(rows.row.tobytes())
    return {
        "embeddings": digests,
        "molecules and labels": labels.hexdigest(),
        "targets": list(rows.targets),
        "kind": rows.kind,
        **settings._asdict(),
        "versions": [chemscale_jax.__version__, sklearn.__version__],
    }


def _packed(cell: Cell) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **cell._asdict())
    return _SIZE.pack(buffer.tell()) + buffer.getvalue()


def _read(path: pathlib.Path) -> Iterator[Cell]:
    with path.open("rb") as file:
        while head := file.read(_SIZE.size):
            with np.load(io.BytesIO(file.read(*_SIZE.unpack(head)))) as arrays:
                found = {name: arrays[name] for name in Cell._fields}
            plain = {n: x.item() if x.ndim == 0 else x for n, x in found.items()}
            yield Cell(**plain)
