"""A tiny Uni-Mol2 with made-up weights, in a folder as a run leaves it."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.partition import tree_paths
from chemscale_jax.models import unimol2
from tests.models.unimol2_rows import rough

MODEL = {
    "name": "unimol2",
    "size": "tiny",
    "variant": "clean",
    "width": 16,
    "depth": 2,
    "heads": 2,
    "pair_width": 12,
    "pair_hidden": 4,
}
FIELDS = {k: MODEL[k] for k in ("width", "depth", "heads", "pair_width", "pair_hidden")}
TARGETS = {
    "names": ["logS", "logD"],
    "units": ["log mol/L", ""],
    "kind": "regression",
    "classes": [],
    "scaling": {"method": "standard", "shift": [1.0, -2.0], "scale": [0.5, 3.0]},
    "positive_weight": [],
}


def make_workdir(folder, *, variant="clean", targets=None, seed=0, data=None):
    """A packed run: of pretraining, or with targets of finetuning."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {"clean": unimol2.clean, "faithful": unimol2.faithful}[variant](
        "tiny", **FIELDS
    )
    params = dict(rough(options, seed))
    artifacts = {}
    if targets is not None:
        outputs = len(targets["classes"]) or len(targets["names"])
        head = unimol2.init_head(options, jax.random.key(seed), outputs)
        # The heads of pretraining are left out.
        params = {k: v for k, v in params.items() if not k.endswith("_head")}
        params["head"] = jax.tree.map(lambda x: x + jnp.float32(0.05), head)
        artifacts["targets"] = targets
    config = {
        "task": "property_regression" if targets else "conformer_denoising",
        "name": "tiny",
        "workdir": str(folder),
        "model": {**MODEL, "variant": variant, "distance_scale": 0.5},
        "data": {
            "geometry": "conformers",
            "features": "keep",
            "conformers": 1,
            "conformer_seed": 0,
            "max_atoms": 256,
            **(data or {}),
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "artifacts.json").write_text(json.dumps(artifacts))
    tree = {"params": params, "constants": {}}
    arrays = zip(tree_paths(tree), jax.tree.leaves(tree), strict=True)
    np.savez(folder / "weights.npz", allow_pickle=False, **dict(arrays))
    return folder
