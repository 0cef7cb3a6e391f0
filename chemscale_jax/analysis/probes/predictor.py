"""A linear probe of all labelled molecules, kept to predict others with intervals."""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.analysis.probes import folds as probe_folds
from chemscale_jax.analysis.probes import probes
from chemscale_jax.analysis.probes.cells import ProbeSettings
from chemscale_jax.analysis.probes.linear_probes import LinearProbe
from chemscale_jax.analysis.probes.probes import Fitting, Labels
from chemscale_jax.analysis.probes.rows import ProbeRows
from chemscale_jax.core import conformal
from chemscale_jax.core.conformal import Calibration
from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.saved_arrays import SavedArrays

LEVEL = 0.9
# Entries of `EmbeddingTable.about` that embeddings of one probe must share.
_ABOUT = ("task", "model", "layer", "level", "pool", "source", "weights", "untrained")


@dataclasses.dataclass(frozen=True)
class ProbePredictor(SavedArrays):
    """Weights of a linear probe, and how far off it may be."""

    weights: np.ndarray  # (D, P) float64
    offset: np.ndarray  # (P,) float64
    targets: np.ndarray  # (T,) str
    units: np.ndarray  # (T,) str
    classes: np.ndarray  # (C,) str, of multiclass; else none
    calibration: np.ndarray  # () str, JSON
    about: np.ndarray  # () str, JSON: what made the embeddings

    @property
    def kind(self) -> str:
        """One of `core.property_predictions.KINDS`."""
        return self.intervals.kind

    @property
    def intervals(self) -> Calibration:
        """Of predictions."""
        return Calibration.from_json(json.loads(self.calibration.item()))

    def predict(self, values: np.ndarray) -> np.ndarray:
        """(M, P) values or chances for embeddings (M, D); NaN for rows that have none.

        Raises:
            UserError: the embeddings have another width.
        """
        if values.shape[1] != len(self.weights):
            raise UserError(
                f"the embeddings have {values.shape[1]} numbers for each molecule, and "
                f"the probe {len(self.weights)}: embed with the same model and layer"
            )
        found = np.full((len(values), len(self.offset)), np.nan)
        usable = np.isfinite(values).all(1)
        probe = LinearProbe(self.kind, self.weights, self.offset)
        found[usable] = probe(values[usable])
        return found


def fit_predictor(
    rows: ProbeRows, representation: str, settings: ProbeSettings
) -> ProbePredictor:
    """A linear probe of all molecules; settings and intervals are by inner folds."""
    blocks = probe_folds.blocks_of(rows.smiles.tolist(), settings.split)
    inner = probe_folds.inner_folds(blocks, settings.folds, settings.seeds[0], 0)
    labels = Labels(rows.true, rows.kind, len(rows.classes))
    x = rows.values[representation]
    probe = probes.fit_probe(probes.LINEAR, x, labels, inner, Fitting())
    assert probe.linear is not None
    made = conformal.calibrate(
        rows.kind, rows.targets, rows.true, probe.out_of_fold, source="out-of-fold"
    )
    return ProbePredictor(
        weights=probe.linear.weights,
        offset=probe.linear.offset,
        targets=np.array(rows.targets, np.str_),
        units=np.array(rows.units, np.str_),
        classes=np.array(rows.classes, np.str_),
        calibration=np.array(json.dumps(made.to_json())),
        about=np.array(json.dumps(dict(rows.about[representation]))),
    )


def write_predictions(
    predictor: ProbePredictor, table: EmbeddingTable, path: pathlib.Path
) -> int:
    """Writes a csv with a line for each row of the embeddings; returns how many.

    Intervals ``low90_NAME`` to ``high90_NAME`` are conformal, by molecules that inner
    models were not trained on.

    Raises:
        UserError: the embeddings are of another model, or the file cannot be written.
    """
    _check(json.loads(predictor.about.item()), table.about)
    pred = predictor.predict(np.asarray(table.values))
    columns = dict(_columns(predictor, pred))
    head = ("row", "where", "canonical_smiles", "status", "reason")
    known = (table.index, table.where, table.smiles, table.status, table.reason)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow((*head, *columns))
            for cells in zip(*known, *columns.values(), strict=True):
                writer.writerow(cells)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): choose another --out"
        ) from None
    return len(table)


def _columns(
    predictor: ProbePredictor, pred: np.ndarray
) -> Sequence[tuple[str, list[str]]]:
    if predictor.kind == "multiclass":
        names = [f"chance_{name}" for name in predictor.classes]
        return [(name, _texts(pred[:, c])) for c, name in enumerate(names)]
    found = []
    made = predictor.intervals
    for t, (target, unit) in enumerate(
        zip(predictor.targets, predictor.units, strict=True)
    ):
        if predictor.kind == "binary":
            found.append((f"chance_{target}", _texts(pred[:, t])))
            continue
        title = f"{target} [{unit}]" if unit else str(target)
        half = made.half_width(LEVEL, t)
        found.append((f"pred_{title}", _texts(pred[:, t])))
        found.append((f"low90_{title}", _texts(pred[:, t] - half)))
        found.append((f"high90_{title}", _texts(pred[:, t] + half)))
    return found


def _texts(values: np.ndarray) -> list[str]:
    return [f"{x:.6g}" if np.isfinite(x) else "" for x in values.tolist()]


def _check(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    differ = [
        f"{name} {found[name]!r} instead of {wanted[name]!r}"
        for name in _ABOUT
        if name in wanted and name in found and wanted[name] != found[name]
    ]
    if differ:
        raise UserError(
            f"the embeddings are not of the model of the probe ({'; '.join(differ)}): "
            "embed with the same model, layer and pooling"
        )
