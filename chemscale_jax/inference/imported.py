"""A workdir made of an imported force field, like that of a finished run."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from chemscale_jax.chem.elements import atomic_number, symbol_of
from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.interop.families import Imported
from chemscale_jax.tasks import force_field
from chemscale_jax.training import checkpoint, setup, step
from chemscale_jax.training.optimizer import make_optimizer
from chemscale_jax.training.progress import EarlyStop, Plateau, Progress


def write_workdir(
    path: str | pathlib.Path,
    imported: Imported,
    *,
    weights: str | pathlib.Path,
    family: str,
    elements: Sequence[str] = (),
) -> Workdir:
    """Writes config, artifacts, run facts and one checkpoint of a force field.

    Everything that reads the folder of a trained force field reads this one. Its
    reference energies are zero: the network's energies are totals.

    Args:
        path: of the folder; must not hold a run.
        imported: the force field.
        weights: the file it came from.
        family: what it was read as.
        elements: symbols of what it was trained on; empty: what the network lists, or
            H, C, N and O where it lists nothing.

    Raises:
        UserError: the folder holds a run or cannot be written, or an element is
            unknown.
    """
    config = _config(imported, str(path), pathlib.Path(weights).stem)
    model = force_field.make_model(config, {})
    variables = imported.variables
    listed = imported.hyperparameters.get("elements") or ()
    symbols = _symbols(elements, [int(number) for number in listed])
    artifacts = {
        "units": {"energy": "eV", "force": "eV/angstrom", "length": "angstrom"},
        "elements": symbols,
        "reference_energies_ev": dict.fromkeys(symbols, 0.0),
        "source": {
            "name": pathlib.Path(weights).name,
            "sha256": hashlib.sha256(pathlib.Path(weights).read_bytes()).hexdigest(),
            "method": f"unknown; imported as {family}",
        },
        "split": {},
        "cutoff_ang": model.cutoff_ang,
        "long_range_ang": model.pair_cutoff_ang,
        "statistics": {},
    }
    workdir = setup.open_workdir(config.to_dict(), lead=True)
    if workdir.config_json.exists():
        raise UserError(f"workdir {path} holds a run already; choose another")
    setup.claim(workdir, config.to_dict())
    checkpoint.save_artifacts(workdir, artifacts)
    workdir.metrics_jsonl.touch()
    _save(workdir, config, variables, artifacts)
    setup.update_run(
        workdir,
        state="finished",
        stop_reason=f"imported from {pathlib.Path(weights).name} as {family}",
        steps=0,
    )
    return workdir


def _config(imported: Imported, path: str, name: str) -> Config:
    """The config of a run that would have trained this model."""
    common = config_files.load_module(config_files.find("common.py"))
    config = common.base()
    config.name = f"imported-{name}"
    config.form = "imported"
    config.task = "force_field"
    config.workdir = path
    config.model = {"name": imported.model, **imported.hyperparameters}
    config.loss = common.force_loss()
    config.data = common.graphs()
    config.batch = common.packs()
    # Models that ask for a second pair list say how long; infinite is long enough.
    config.data.long_range_ang = float("inf")
    reach = force_field.make_model(config, {}).pair_cutoff_ang
    config.data.long_range_ang = float(reach or 0.0)
    return config


def _symbols(given: Sequence[str], listed: Sequence[int]) -> list[str]:
    if not given:
        return [symbol_of(n) for n in listed] or ["H", "C", "N", "O"]
    try:
        return [symbol_of(atomic_number(symbol)) for symbol in given]
    except ValueError as error:
        raise UserError(str(error)) from None


def _save(
    workdir: Workdir, config: Config, variables: dict[str, Any], artifacts: dict
) -> None:
    """One checkpoint with a fresh optimiser, from which training can go on."""
    task = force_field.make_task(config, (), artifacts)
    placed = jax.tree.map(jnp.asarray, variables)
    state = step.init_state(
        dataclasses.replace(task, init=lambda _: placed),
        make_optimizer(config.optimizer, 1, ()),
        config.seed,
    )
    rules = config.train
    progress = Progress(
        plateau=Plateau(**rules.plateau.to_dict()),
        early_stop=EarlyStop(patience=rules.early_stop_epochs),
    )
    checkpoints = checkpoint.Checkpoints(workdir, artifacts)
    checkpoints.save(state, progress, None)
    checkpoints.wait()
    checkpoints.close()
