"""Files of predicted properties: csv or parquet, with a JSON that explains them."""

import os
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import write_json
from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.inference import predict_properties, result_parts, result_table
from chemscale_jax.inference.embed_settings import refuse_empty
from chemscale_jax.inference.embedder import identity
from chemscale_jax.inference.molecule_batches import BY_DEVICE, Batching
from chemscale_jax.inference.molecule_embeddings import MoleculeEmbedder
from chemscale_jax.inference.predict_properties import (
    AS_TRAINED,
    PredictedProperties,
    PredictSettings,
    PropertyModel,
)

LEVEL = 0.9


def write_predictions(
    model: PropertyModel,
    source: MoleculeInput,
    out: str | os.PathLike,
    settings: PredictSettings = AS_TRAINED,
    *,
    level: float = LEVEL,
    batching: Batching = BY_DEVICE,
    workers: int | None = None,
    cache: str | os.PathLike | None = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Writes a table of the rows and what is predicted, or goes on with one.

    Columns are those of the input and those of `table_columns`. What is done lies in
    ``OUT.parts`` until the file is written.

    Args:
        model: the networks.
        source: from `open_input`.
        out: .csv or .parquet.
        settings: how molecules are shown.
        level: the chance that a label is inside its interval.
        batching: see `predict_properties.predict`.
        workers: see `predict_properties.predict`.
        cache: see `predict_properties.predict`.
        progress: whether there is a bar.

    Returns:
        What is also written to ``OUT.json``: see `facts`.

    Raises:
        UserError: the file cannot be written, was begun with something else, or there
            is no row.
    """
    path = pathlib.Path(out).expanduser()
    result_table.check_writable(path)
    if not 0 < level < 1:
        raise UserError(f"level is {level:g}: give the level of intervals, 0 to 1")
    work = predict_properties.make_work(model, batching, source.columns)
    rows = predict_properties.read_rows(
        model, source, settings, workers, cache, progress
    )
    folder = result_table.parts_folder(path)
    stamp = {
        "input": dict(source.identity),
        "members": [
            identity(MoleculeEmbedder(member), batching) for member in model.members
        ],
        "settings": repr(settings),
    }
    statuses: Counter[str] = Counter()

    def tables() -> Iterator[Mapping[str, Any]]:
        for part in result_parts.kept_parts(rows, work, folder, stamp):
            statuses.update(part["status"].tolist())
            found = predict_properties.gathered(part, model)
            yield result_table.with_input(part, table_columns(model, found, level))
        if not statuses:
            refuse_empty()

    result_table.write_table(path, tables())
    about = facts(model, source.name, level, statuses)
    write_json(path.with_name(f"{path.name}.json"), about)
    shutil.rmtree(folder)
    return about


def facts(
    model: PropertyModel, name: str, level: float, statuses: Mapping[str, int]
) -> dict[str, Any]:
    """What has to be known to read a table of predictions; JSON-able."""
    calibration, data, targets = model.calibration, model.data, model.targets
    notes = []
    if calibration is None:
        notes.append(
            "There are no intervals: this model has no calibration.json, which a run "
            "writes when it has finished."
        )
    elif lacking := calibration.lacking(level):
        notes.append(lacking)
    if data.get("geometries"):
        place = pathlib.Path(data["geometries"]).name
        notes.append(
            f"The model was trained on geometries of {place}: predictions for other "
            "kinds of geometries are less good."
        )
    return {
        "model": model.source,
        "members": len(model.members),
        "input": name,
        "rows": dict(statuses),
        "kind": targets["kind"],
        "targets": list(targets["names"]),
        "units": list(targets["units"]),
        "classes": list(targets["classes"]),
        "level": level,
        "intervals_from": "" if calibration is None else calibration.source,
        "notes": notes,
    }


def table_columns(
    model: PropertyModel, found: PredictedProperties, level: float
) -> dict[str, Any]:
    """Columns of a table of predictions.

    Of every target NAME with a unit: ``pred_NAME [unit]``, and where they are known
    ``low90_NAME [unit]`` and ``high90_NAME [unit]`` for a level of 0.9,
    ``member_std_NAME [unit]`` and ``conformer_std_NAME [unit]``. Of classes:
    ``prob_NAME`` (of 1) or ``prob_NAME=CLASS``, the likeliest as ``class_NAME``, and
    ``set90_NAME``, the classes that a label may be of, such as "0|1".

    Args:
        model: the networks.
        found: predictions.
        level: of intervals.
    """
    columns: dict[str, Any] = {
        "row": found.index,
        "canonical_smiles": found.smiles,
        "status": found.status,
        "reason": found.reason,
        "conformers": found.conformers,
    }
    if model.targets["kind"] == "regression":
        return columns | _numbers(model, found, level)
    return columns | _classes(model, found, level)


def _numbers(
    model: PropertyModel, found: PredictedProperties, level: float
) -> dict[str, Any]:
    columns = {}
    percent = f"{100 * level:g}"
    half = None
    if model.calibration is not None:
        half = model.calibration.half_widths(level, len(found), found.member_std)
    targets = model.targets
    for t, label in enumerate(labels(targets["names"], targets["units"])):
        pred = columns[f"pred_{label}"] = found.pred[:, t]
        if half is not None:
            columns[f"low{percent}_{label}"] = pred - half[:, t]
            columns[f"high{percent}_{label}"] = pred + half[:, t]
        columns |= _deviations(found, label, t)
    return columns


def _classes(
    model: PropertyModel, found: PredictedProperties, level: float
) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    targets, failed = model.targets, np.isnan(found.pred).any(1)
    sets = None
    if model.calibration is not None:
        # Rows that failed have no set.
        sets = model.calibration.class_sets(level, np.nan_to_num(found.pred))
    many = targets["kind"] == "multiclass"
    classes = list(targets["classes"]) if many else ["0", "1"]
    for t, name in enumerate(targets["names"]):
        if many:
            for c, label in enumerate(classes):
                columns[f"prob_{name}={label}"] = found.pred[:, c]
                columns |= _deviations(found, f"{name}={label}", c)
            likeliest = np.nan_to_num(found.pred).argmax(1)
        else:
            columns[f"prob_{name}"] = found.pred[:, t]
            columns |= _deviations(found, name, t)
            likeliest = (np.nan_to_num(found.pred[:, t]) >= 0.5).astype(int)
        chosen = np.array(classes, np.str_)[likeliest]
        columns[f"class_{name}"] = np.where(failed, "", chosen)
        if sets is not None:
            texts = [
                "|".join(c for c, inside in zip(classes, row, strict=True) if inside)
                for row in sets[:, t]
            ]
            shown = np.where(failed, "", np.array(texts, np.str_))
            columns[f"set{100 * level:g}_{name}"] = shown
    return columns


def _deviations(found: PredictedProperties, label: str, output: int) -> dict[str, Any]:
    columns = {f"conformer_std_{label}": found.conformer_std[:, output]}
    if found.member_std is not None:
        columns[f"member_std_{label}"] = found.member_std[:, output]
    return columns


def labels(names: list[str], units: list[str]) -> list[str]:
    """Names with their units, such as ``logS [log mol/L]``."""
    return [
        f"{name} [{unit}]" if unit else name
        for name, unit in zip(names, units, strict=True)
    ]
