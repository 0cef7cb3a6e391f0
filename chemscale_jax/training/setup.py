"""Opens the folder of a run, and refuses one that belongs to another run."""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import jax

import chemscale_jax
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import SCHEMA_VERSION, Workdir, read_json, write_json

# Fields that may differ between a run and its continuation: where it runs and what
# it prints, not what it computes.
_FREE = (
    *("workdir", "log.", "mesh.", "train.rows_at_once", "optimizer.offload"),
    *("batch.workers", "batch.prefetch"),
)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def open_workdir(config: Mapping[str, Any], lead: bool) -> Workdir:
    """Makes the folder of a run, or opens it to go on; writes nothing yet.

    Args:
        config: the resolved config; ``workdir`` may be empty, then the folder is
            ``runs/<name>-<hash>`` and the same config finds it again.
        lead: whether this process writes.

    Raises:
        UserError: if it cannot be written, or holds a run of another config.
    """
    name = config["workdir"] or f"runs/{config['name']}-{config_hash(config)}"
    workdir = Workdir(pathlib.Path(name))
    if workdir.config_json.exists():
        changed = differences(read_json(workdir.config_json), config)
        if changed:
            raise UserError(
                f"workdir {name} holds a run of another config ({'; '.join(changed)}); "
                "choose another --workdir, or give the config of that run"
            )
    if lead:
        try:
            workdir.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=workdir.path).close()
        except OSError as error:
            raise UserError(
                f"workdir {name} cannot be written ({error.strerror}); choose another "
                "--workdir"
            ) from None
    return workdir


def claim(workdir: Workdir, config: Mapping[str, Any]) -> None:
    """Makes a folder that of this run, once data and model are known to be usable."""
    write_json(workdir.config_json, config)
    update_run(workdir, **describe_run(), state="running", stop_reason="")


def inherit_statistics(
    artifacts: Mapping[str, Any], init_from: str, workdir: Workdir
) -> dict[str, Any]:
    """Artifacts of a stream, for weights that come from another run.

    Hyperparameters that a model takes from ``artifacts["statistics"]`` belong to its
    weights, so they stay those of the run the weights came from. All other facts, the
    reference energies among them, are those of the new data.

    Args:
        artifacts: of the stream.
        init_from: ``config.init_from``; nothing is inherited from an ``.npz``.
        workdir: of the new run; one that is resumed has inherited already.

    Raises:
        UserError: the new data have elements that the first run did not have.
    """
    own = dict(artifacts)
    if "statistics" not in own:
        return own
    if not os.path.isdir(init_from):
        resumed = bool(init_from) and workdir.artifacts_json.exists()
        source = workdir if resumed else None
    else:
        source = Workdir(pathlib.Path(init_from))
    statistics = source.artifacts().get("statistics") if source else None
    if statistics is None:
        return own
    fresh = set(own["statistics"].get("elements", ()))
    unseen = sorted(fresh - set(statistics.get("elements", fresh)))
    if unseen:
        raise UserError(
            f"config.init_from={init_from} was not trained on the elements with atomic "
            f"numbers {unseen}, which the data have; leave out their molecules, or "
            "train anew on data with all elements"
        )
    return {**own, "statistics": statistics}


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight characters that stand for what a config computes."""
    kept = {k: v for k, v in _flat(config).items() if not k.startswith(_FREE)}
    text = json.dumps(kept, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """``field: saved -> given`` for each field that matters and differs."""
    # Through JSON, so that tuples and lists compare equal.
    left, right = (_flat(json.loads(json.dumps(side))) for side in (saved, given))
    return [
        f"{key}: {left.get(key, 'absent')} -> {right.get(key, 'absent')}"
        for key in sorted({*left, *right})
        if not key.startswith(_FREE) and left.get(key) != right.get(key)
    ]


def describe_run() -> dict[str, Any]:
    """What run.json says of software and hardware."""
    return {
        "schema": SCHEMA_VERSION,
        "chemscale_jax": chemscale_jax.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
    }


def update_run(workdir: Workdir, **fields: Any) -> None:
    """Merges fields into run.json."""
    current = read_json(workdir.run_json) if workdir.run_json.exists() else {}
    write_json(workdir.run_json, {**current, **fields})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _commit() -> str:
    """The commit of the source tree, with a mark if it was changed; or "unknown"."""
    root = pathlib.Path(chemscale_jax.__file__).parent.parent
    if not (root / ".git").exists():
        return "unknown"
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-changed" if status.stdout.strip() else "")
