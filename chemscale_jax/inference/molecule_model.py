"""A trained Uni-Mol2, opened from the folder or file that it lies in."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

import chemscale_jax
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Params
from chemscale_jax.core.workdir import Workdir, read_json
from chemscale_jax.interop import unimol2 as published
from chemscale_jax.models.unimol2_options import Unimol2Options
from chemscale_jax.training.checkpoint import load_variables

PACKAGED = pathlib.Path(chemscale_jax.__file__).parent / "data/embedded/molecule_model"
PRETRAINING, FINETUNING = "conformer_denoising", "property_regression"
TASKS = (PRETRAINING, FINETUNING)
# Written beside the members of several folds or seeds.
MEMBERS_JSON = "finetune.json"
Place = str | pathlib.Path


class MoleculeModel(NamedTuple):
    """A network, its weights, and what has to be known to use them.

    Attributes:
        options: of the network. Where they say ``length="batch"``, with which results
            depend on the company of a molecule, they are opened with "own".
        params: of the network, without the head for properties.
        head: for properties, see `chemscale_jax.models.unimol2.pooled`; None where the
            network has none.
        artifacts: facts of the run; {} for published weights. A finetuned network has
            "targets": their names, units, kind, classes and scaling.
        config: of the run; {} for published weights.
        source: where it lies.
    """

    options: Unimol2Options
    params: Params
    head: Params | None
    artifacts: Mapping[str, Any]
    config: Mapping[str, Any]
    source: str

    @property
    def drop_features(self) -> bool:
        """Whether it was finetuned on molecules whose features were withheld."""
        return self.config.get("data", {}).get("features") == "drop"


def default_molecule_model() -> pathlib.Path:
    """The folder of the network that comes with the package.

    Raises:
        UserError: this installation has none.
    """
    if not (PACKAGED / "config.json").exists():
        raise UserError(
            f"the package has no molecule model at {PACKAGED}; name one with "
            "--workdir, such as the folder of a run of configs/unimol2_pretrain.py"
        )
    return PACKAGED


def open_molecule_model(
    path: Place | None = None, step: int | None = None, **changes: Any
) -> MoleculeModel:
    """A network of a run, pretrained or finetuned, or of published weights.

    Args:
        path: the workdir of a run; a ``checkpoint.pt``, a safetensors file or a folder
            of either; ``hub:owner/name``; the packaged network by default.
        step: of a checkpoint other than the best; only for a workdir.
        changes: fields of the options to set otherwise, such as ``dtype``.

    Raises:
        UserError: there is no such place, or it holds something else.
    """
    place = default_molecule_model() if path is None else path
    if not str(place).startswith("hub:"):
        folder = pathlib.Path(place).expanduser()
        if not folder.exists():
            raise UserError(
                f"{folder} does not exist; give the workdir of a run of Uni-Mol2, or "
                "a file of published weights"
            )
        if (folder / MEMBERS_JSON).exists() or (folder / "lanes").is_dir():
            raise UserError(
                f"{folder} holds several runs; give one of them, such as "
                f"{member_folders(folder)[0]}"
            )
        if Workdir(folder).artifacts_json.exists():
            return _open_run(Workdir(folder), step, changes)
        place = folder
    if step is not None:
        raise UserError(f"{place} has no checkpoints by step; leave step out")
    return _open_published(place, changes)


def open_molecule_models(
    source: Place | Sequence[Place] | None = None, **changes: Any
) -> list[MoleculeModel]:
    """The network of one place, or all members of several folds or seeds.

    Args:
        source: see `open_molecule_model`; a folder with ``finetune.json`` or ``lanes``
            is as many networks; or several of these.
        changes: see `open_molecule_model`.

    Raises:
        UserError: a place holds no network, or members predict different things.
    """
    if source is not None and not isinstance(source, str | pathlib.Path):
        models = [
            one for place in source for one in open_molecule_models(place, **changes)
        ]
        if not models:
            raise UserError("an ensemble needs at least one workdir, found none")
        _check_alike(models)
        return models
    if source is None or str(source).startswith("hub:"):
        return [open_molecule_model(source, **changes)]
    folder = pathlib.Path(source).expanduser()
    if not (folder / MEMBERS_JSON).exists() and not (folder / "lanes").is_dir():
        return [open_molecule_model(folder, **changes)]
    models = [open_molecule_model(one, **changes) for one in member_folders(folder)]
    _check_alike(models)
    return models


def member_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The workdirs that ``finetune.json`` names, or those in ``lanes``.

    Raises:
        UserError: there is none.
    """
    listed = folder / MEMBERS_JSON
    if listed.exists():
        found = [folder / member for member in read_json(listed).get("members", [])]
    else:
        found = [lane for lane in folder.glob("lanes/*") if lane.is_dir()]
        found.sort(key=lambda lane: (len(lane.name), lane.name))
    if not found:
        raise UserError(f"{folder} has no member that is finished; train first")
    return found


def split_head(params: Mapping[str, Any]) -> tuple[Params, Params | None]:
    """Parameters of the network, and of the head for properties if there is one."""
    return {k: v for k, v in params.items() if k != "head"}, params.get("head")


def _open_run(
    workdir: Workdir, step: int | None, changes: Mapping[str, Any]
) -> MoleculeModel:
    config = workdir.config()
    if config.get("task") not in TASKS:
        raise UserError(
            f"workdir {workdir.path} holds a run of task {config.get('task')!r}, "
            f"expected one of {TASKS}"
        )
    # Comes with RDKit, for which other models need not wait.
    from chemscale_jax.tasks.conformer_denoising import make_options

    options = make_options(ConfigDict({"model": dict(config["model"])}))
    params, head = split_head(load_variables(workdir, step)["params"])
    return MoleculeModel(
        options=_independent(options, changes),
        params=jax.device_put(params),
        head=None if head is None else jax.device_put(head),
        artifacts=workdir.artifacts(),
        config=config,
        source=str(workdir.path),
    )


def _open_published(place: Place, changes: Mapping[str, Any]) -> MoleculeModel:
    found = published.load(place, **changes)
    return MoleculeModel(
        options=_independent(found.options, {}),
        params=jax.device_put(found.variables["params"]),
        # Nothing says what published heads predict, nor in which unit.
        head=None,
        artifacts={},
        config={},
        source=str(place),
    )


def _independent(options: Unimol2Options, changes: Mapping[str, Any]) -> Unimol2Options:
    """Options with which no molecule changes another, without training's savings."""
    options = dataclasses.replace(options, remat="none", **changes)
    if options.length == "batch":
        options = dataclasses.replace(options, length="own")
    return options


def _check_alike(models: Sequence[MoleculeModel]) -> None:
    """Refuses members that predict different things."""
    first = _predicts(models[0])
    for model in models[1:]:
        if (found := _predicts(model)) != first:
            raise UserError(
                f"{models[0].source} predicts {first}, but {model.source} {found}; "
                "give members of one kind"
            )


def _predicts(model: MoleculeModel) -> dict[str, Any]:
    targets = model.artifacts.get("targets", {})
    return {name: targets.get(name) for name in ("names", "units", "kind", "classes")}
