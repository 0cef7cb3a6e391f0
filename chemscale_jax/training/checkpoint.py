"""Orbax checkpoints: saved without waiting, restored onto any mesh."""

import json
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import tree_paths
from chemscale_jax.core.types import Params
from chemscale_jax.core.workdir import Workdir, read_json, write_json
from chemscale_jax.training.progress import Progress
from chemscale_jax.training.step import TrainState

LATEST_KEPT = 2

# {"params": trained, "constants": not trained}
Variables = Mapping[str, Params]


class Checkpoints:
    """The checkpoints of one run: the latest two and the best are kept."""

    def __init__(self, workdir: Workdir, artifacts: Mapping[str, Any]) -> None:
        """Opens the folder; leaves what a kill cut short aside, with a message."""
        self._workdir = workdir
        self._artifacts = dict(artifacts)
        self.ignored = _half_written(workdir)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(LATEST_KEPT),
                    policies.BestN(
                        get_metric_fn=_loss,
                        reverse=True,  # the smallest is the best
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            # Without it, metrics are forgotten when the process ends.
            best_fn=_loss,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(
            workdir.checkpoints.absolute(), options=options
        )

    @property
    def latest(self) -> int | None:
        """The step of the last complete checkpoint."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, progress: Progress, valid_loss: float | None
    ) -> None:
        """Starts to save; returns once the arrays are copied.

        Args:
            state: the device state.
            progress: the host state that goes with it.
            valid_loss: validation loss of this very state, or None between
                validations; ranks the checkpoint among the best.
        """
        if progress.step in self._manager.all_steps():
            if valid_loss is None:
                return
            # Saved when asked to stop, before its validation; now it has a rank.
            self._manager.delete(progress.step)
        self._manager.save(
            progress.step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_storable(state)),
                progress=ocp.args.JsonSave(progress.to_json()),
                artifacts=ocp.args.JsonSave(self._artifacts),
            ),
            metrics=None if valid_loss is None else {"loss": valid_loss},
        )

    def restore(
        self, shapes: TrainState, shardings: TrainState, step: int
    ) -> tuple[TrainState, Progress]:
        """The state and progress saved at ``step``, placed by ``shardings``."""
        target = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            _storable(shapes),
            _storable(shardings),
        )
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target),
                progress=ocp.args.JsonRestore(),
            ),
        )
        state = TrainState(**restored["state"])
        return (
            state._replace(tse=type(shapes.tse)(**restored["state"]["tse"])),
            Progress.from_json(restored["progress"]),
        )

    def wait(self) -> None:
        """Returns once everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases the folder."""
        self._manager.close()


def _loss(metrics: Mapping[str, float]) -> float:
    return metrics["loss"]


def _storable(state: TrainState) -> dict[str, Any]:
    """The state as nested dictionaries, whose keys name the arrays on disk."""
    return {**state._asdict(), "tse": state.tse._asdict()}


def _half_written(workdir: Workdir) -> list[str]:
    """Names of checkpoint folders that were not finished."""
    if not workdir.checkpoints.exists():
        return []
    return sorted(
        folder.name
        for folder in workdir.checkpoints.iterdir()
        if folder.is_dir() and not folder.name.isdigit()
    )


def best_step(workdir: Workdir) -> int:
    """The step of the best complete checkpoint, the latest if none was validated."""
    with _reader(workdir) as manager:
        steps = manager.all_steps()
        if not steps:
            lanes = (workdir.path / "lanes").is_dir()
            advice = "give one of its runs, like lanes/0" if lanes else "train first"
            raise UserError(f"{workdir.path} has no complete checkpoint; {advice}")
        losses = {step: _loss_at(workdir, step) for step in steps}
    ranked = [(loss, step) for step, loss in losses.items() if loss is not None]
    return min(ranked)[1] if ranked else max(steps)


def _loss_at(workdir: Workdir, step: int) -> float | None:
    saved = workdir.checkpoints / str(step) / "metrics" / "metrics"
    return json.loads(saved.read_text())["loss"] if saved.exists() else None


def _reader(workdir: Workdir) -> ocp.CheckpointManager:
    """Reads on this process alone, whatever the others do."""
    index = jax.process_index()
    return ocp.CheckpointManager(
        workdir.checkpoints.absolute(),
        item_handlers={"state": ocp.PyTreeCheckpointHandler()},
        options=ocp.CheckpointManagerOptions(
            read_only=True,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=index,
                active_processes={index},
                barrier_sync_key_prefix=f"reader_{index}",
            ),
        ),
    )


def load_variables(workdir: Workdir, step: int | None = None) -> dict[str, Params]:
    """Parameters and constants of a checkpoint, the best by default, as NumPy arrays.

    The averaged weights, where the run kept them.
    """
    if step is None and workdir.weights_npz.exists():
        return load_params_file(str(workdir.weights_npz))
    step = best_step(workdir) if step is None else step
    with _reader(workdir) as manager:
        saved = manager.item_metadata(step)["state"]
        params = "ema_params" if saved["ema_params"] else "params"
        # Two thirds of the state are moments, which nobody reads here.
        wanted = {params: saved[params], "constants": saved["constants"]}
        # Arrays of the host, since the run may have had other devices.
        arrays = jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), wanted)
        found = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    wanted, restore_args=arrays, partial_restore=True
                )
            ),
        )["state"]
    return {"params": found[params], "constants": found["constants"]}


def pack(workdir: Workdir, folder: Workdir) -> None:
    """Writes what predictions need of a run: its facts, and its best weights as .npz.

    Everything that reads the folder of a run to use it reads this one, which is small,
    has no checkpoints and plots, and names files without their folders.

    Raises:
        UserError: the run has no complete checkpoint, or the folder holds a run.
    """
    variables = load_variables(workdir)
    if folder.config_json.exists():
        raise UserError(f"{folder.path} holds a run already; choose another --out")
    folder.path.mkdir(parents=True, exist_ok=True)
    artifacts = read_json(workdir.artifacts_json)
    # Where the data lay concerns nobody else, nor how they are recognised there.
    artifacts.pop("data_identity", None)
    places = [workdir.config()["workdir"], str(workdir.path)]
    places.append(artifacts.get("source", {}).get("path") or "")
    write_json(folder.artifacts_json, artifacts)
    copied = (
        workdir.config_json,
        workdir.run_json,
        workdir.check_json,
        workdir.calibration_json,
        workdir.card,
    )
    for path in copied:
        if path.exists():
            shutil.copy(path, folder.path / path.name)
    for path in (*folder.path.glob("*.json"), *folder.path.glob("*.md")):
        text = path.read_text()
        for place in filter(None, places):
            text = text.replace(place, pathlib.Path(place).name)
        lines = text.splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith("![")))
    arrays = dict(zip(tree_paths(variables), jax.tree.leaves(variables), strict=True))
    np.savez_compressed(folder.weights_npz, allow_pickle=False, **arrays)


def load_params_file(path: str) -> dict[str, Params]:
    """Parameters from an ``.npz`` whose keys are slash-separated paths.

    The format in which ``interop`` hands over other people's checkpoints; keys start
    with ``params/`` or ``constants/``.
    """
    tree: dict[str, Any] = {"params": {}, "constants": {}}
    try:
        file = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"config.init_from={path} is neither a workdir nor an .npz of "
            f"parameters ({error})"
        ) from None
    with file:
        for name in file.files:
            *folders, leaf = name.split("/")
            if not folders or folders[0] not in tree:
                raise UserError(
                    f"{path} has key {name!r}; keys must start with params/ or "
                    "constants/"
                )
            node = tree
            for folder in folders:
                node = node.setdefault(folder, {})
            node[leaf] = file[name]
    return tree


def starter(
    source: str,
    fresh: tuple[str, ...],
    workdir: Workdir,
    read: Callable[[str], Variables],
) -> Callable[[Variables], Variables] | None:
    """What replaces initial parameters and constants, by ``config.init_from``.

    None where nothing does: no source is named, or the workdir has a checkpoint to
    resume from.

    Args:
        source: what the config says.
        fresh: regular expressions of paths that keep their initial value.
        workdir: of the run.
        read: makes parameters and constants of the source.
    """
    if not source or any(workdir.checkpoints.glob("[0-9]*")):
        return None
    given = read(source)

    def start(variables: Variables) -> Variables:
        placed, stayed = {}, []
        for part, initial in variables.items():
            placed[part], kept = transplant(initial, given[part], fresh, source)
            stayed += kept
        count = len(jax.tree.leaves(placed))
        print(
            f"started from {source}: {count - len(stayed)} of {count} arrays "
            f"taken, fresh: {', '.join(stayed) or 'none'}"
        )
        return placed

    return start


def transplant(
    params: Params, given: Params, fresh: tuple[str, ...], source: str
) -> tuple[Params, list[str]]:
    """Puts given values in place of initial ones, strictly.

    Args:
        params: the initial parameters.
        given: the parameters to start from.
        fresh: regular expressions of paths that keep their initial value.
        source: where the given ones are from, for messages.

    Returns:
        The parameters, and the paths that stayed fresh.

    Raises:
        UserError: listing every key that is missing, left over or of another shape.
    """
    found = dict(zip(tree_paths(given), jax.tree.leaves(given), strict=True))
    leaves, treedef = jax.tree.flatten(params)
    placed, stayed, wrong = [], [], []
    for path, leaf in zip(tree_paths(params), leaves, strict=True):
        value = found.pop(path, None)
        if any(re.search(pattern, path) for pattern in fresh):
            stayed.append(path)
            placed.append(leaf)
        elif value is None:
            wrong.append(f"{path}: missing")
        elif value.shape != leaf.shape:
            wrong.append(f"{path}: shape {value.shape}, needs {leaf.shape}")
        else:
            placed.append(jax.device_put(np.asarray(value, leaf.dtype), leaf.sharding))
    wrong += [
        f"{path}: left over"
        for path in found
        if not any(re.search(pattern, path) for pattern in fresh)
    ]
    if wrong:
        raise UserError(
            f"config.init_from={source} does not fit the model: {'; '.join(wrong)}; "
            "list what should start afresh in config.init_fresh"
        )
    return jax.tree.unflatten(treedef, placed), stayed


def save_artifacts(workdir: Workdir, artifacts: Mapping[str, Any]) -> None:
    """Writes artifacts.json."""
    write_json(workdir.artifacts_json, artifacts)
