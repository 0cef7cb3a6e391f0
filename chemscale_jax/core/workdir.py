"""The folder of a run: its files, their schema, and how to read them without JAX.

Every other room reads a run through this module. A workdir holds

==================  ==============================================================
config.json         the resolved configuration, and the config file and form it
                    came from
run.json            schema version, package versions, commit, devices, state
                    ("running", "paused", "interrupted", "finished", "failed"),
                    stop reason
metrics.jsonl       one record per line: step, epoch, split, name, value, count,
                    unit; the clock lives in a field of its own, ``time``
artifacts.json      facts that predictions need: reference energies, units, splits
checkpoints/<step>  Orbax checkpoints; a copy of artifacts.json is in each
predictions/        <split>.npz, written at the end of a run: see core/predictions.py,
                    core/likelihoods.py and core/property_predictions.py
samples/            of a language model: molecules it made and what they are like
check.json          what the model check measured, at the end of a run
calibration.json    of predicted properties: how far off they may be, see
                    core/conformal.py; beside it baseline.json and split.csv
finetune.json       of folds and seeds: which runs in folds/ belong together
lanes/<k>           of an ensemble: the runs it is made of
weights.npz         of a packed run, in place of checkpoints
plots/, card.md     written at the end of a run
==================  ==============================================================
"""

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from chemscale_jax.core.errors import UserError

SCHEMA_VERSION = 1
# More than a record of metrics.jsonl takes.
_RECORD_BYTES = 8192
METRIC_FIELDS = ("step", "epoch", "split", "name", "value", "count", "unit")


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Paths of a run's files, and their contents."""

    path: pathlib.Path

    @property
    def config_json(self) -> pathlib.Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def run_json(self) -> pathlib.Path:
        """Versions, devices, state and stop reason."""
        return self.path / "run.json"

    @property
    def metrics_jsonl(self) -> pathlib.Path:
        """The log, one record per line."""
        return self.path / "metrics.jsonl"

    @property
    def artifacts_json(self) -> pathlib.Path:
        """Host-side facts that predictions need."""
        return self.path / "artifacts.json"

    @property
    def checkpoints(self) -> pathlib.Path:
        """The folder of checkpoints, one subfolder per saved step."""
        return self.path / "checkpoints"

    @property
    def predictions(self) -> pathlib.Path:
        """The folder of predictions, one file per split."""
        return self.path / "predictions"

    @property
    def samples(self) -> pathlib.Path:
        """The folder of generated molecules."""
        return self.path / "samples"

    @property
    def plots(self) -> pathlib.Path:
        """The folder of plots."""
        return self.path / "plots"

    @property
    def check_json(self) -> pathlib.Path:
        """What the model check measured."""
        return self.path / "check.json"

    @property
    def calibration_json(self) -> pathlib.Path:
        """How far off predicted properties may be."""
        return self.path / "calibration.json"

    @property
    def baseline_json(self) -> pathlib.Path:
        """What simpler models of the same properties are."""
        return self.path / "baseline.json"

    @property
    def weights_npz(self) -> pathlib.Path:
        """The weights, in place of checkpoints, where the run was packed."""
        return self.path / "weights.npz"

    @property
    def card(self) -> pathlib.Path:
        """The model card in Markdown."""
        return self.path / "card.md"

    def config(self) -> dict[str, Any]:
        """The resolved configuration as nested dictionaries."""
        return read_json(self.config_json)

    def run(self) -> dict[str, Any]:
        """The contents of run.json, whose schema this version can read."""
        run = read_json(self.run_json)
        if run.get("schema") != SCHEMA_VERSION:
            raise UserError(
                f"{self.run_json} has schema {run.get('schema')}, this version reads "
                f"{SCHEMA_VERSION}; use the chemscale_jax version named in the file"
            )
        return run

    def artifacts(self) -> dict[str, Any]:
        """The contents of artifacts.json."""
        return read_json(self.artifacts_json)

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The records of metrics.jsonl; a last line torn by a kill is left out."""
        if not self.metrics_jsonl.exists():
            raise UserError(f"{self.path} has no metrics.jsonl; is it a workdir?")
        lines = self.metrics_jsonl.read_text().split("\n")
        complete, torn = lines[:-1], lines[-1]
        del torn
        for number, line in enumerate(complete, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                raise UserError(
                    f"{self.metrics_jsonl}, line {number} is not JSON; "
                    "delete the line or restore the file"
                ) from None

    def last_record(self) -> dict[str, Any] | None:
        """The last whole record of metrics.jsonl, found without reading the others."""
        if not self.metrics_jsonl.exists():
            return None
        with self.metrics_jsonl.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _RECORD_BYTES, 0))
            lines = file.read().split(b"\n")
        # The first may lack its beginning, the last its end.
        for line in reversed(lines[:-1]):
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                return None
        return None

    def series(self, split: str, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, in order."""
        records = [
            record
            for record in self.metrics()
            if record["split"] == split and record["name"] == name
        ]
        return [r["step"] for r in records], [r["value"] for r in records]


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The contents of a JSON file, or an error that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; give the workdir of a run that has started"
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno} is not JSON; restore the file or start anew"
        ) from None


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file in one piece: a kill leaves the old or the new one."""
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.chmod(name, 0o644)
    os.replace(name, path)
