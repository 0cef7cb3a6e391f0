r"""Properties of molecules: Uni-Mol2 (Ji et al. 2024) finetuned on a table of labels.

Forms:
    csv (default): --config.data.path names molecules with labels, --config.data.targets
        the columns to learn. Everything else has a default.
    smoke: a tiny network on molecules of the package, whose octanol-water partition
        (logP, Crippen) and drug-likeness (QED) are computed and kept in the cache;
        under a minute on a CPU.

Arguments: init (packaged: from the network of the package, whose size is taken;
scratch: from nothing; for other weights set --config.init_from to a workdir, a
checkpoint.pt or a safetensors file), size (of scratch: tiny, 1M, 5M, 42M, 84M, 164M,
310M, 570M, 1.1B), variant (of scratch: clean; faithful: as the published code).

    python -m chemscale_jax.main --config=configs/finetune.py \
        --config.data.path=mols.csv --config.data.targets="('logS',)"
    python -m chemscale_jax.main --config=configs/finetune.py:smoke --workdir=DIR

The command chemscale finetune says the same with fewer words, and trains folds and
several seeds.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = ("csv", "smoke")
OPTIONS = {"size": "tiny", "init": "packaged", "variant": "clean"}
STARTS = ("packaged", "scratch")
# Rooms of rows on a processor: every one is a program to compile.
FEW_BUCKETS = (15, 23, 31, 47, 63, 127, 259)


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    config = properties(form, **options)
    config.name = f"finetune-{form}-{options['init']}"
    on_processor(config)
    if form == "smoke":
        smoke(config)
    return config


def properties(form: str, size: str, init: str, variant: str) -> ConfigDict:
    """A config of this task, trained as the published example does.

    Args:
        form: of the config that is made.
        size: of a network that starts from nothing.
        init: packaged or scratch.
        variant: of a network that starts from nothing, clean or faithful.
    """
    config = common.base()
    config.form = form
    config.task = "property_regression"
    config.data = common.labelled()
    config.batch = common.molecule_rows()
    config.batch.form = "equal"
    config.batch.rows = 32
    config.head = {
        "form": "tanh",  # tanh (published code), linear (its tools)
        "dropout": 0.0,  # before each of its layers
    }
    config.loss = {
        "regression": "smooth_l1",  # of scaled numbers: smooth_l1, l1, l2
        "balance": True,  # whether binary labels 1 weigh more where they are rare
    }
    config.result = {
        "level": 0.9,  # of intervals in the report
        "baseline": True,  # whether models of fingerprints are trained beside it
    }
    config.model = {
        "name": "unimol2",
        "size": size,
        "variant": common.one_of("variant", variant, ("clean", "faithful")),
        # By what sums are scaled: exact, own (atoms up to a multiple of 4).
        "length": "own" if variant == "faithful" else "exact",
        "dtype": "float32",  # of matrix products: float32, bfloat16
        # Of distances at the start, half of it; 0: near 0 as published.
        "distance_scale": 0.5 if size in ("tiny", "1M", "5M") else 0.0,
        "remat": "none",  # what the backward pass computes again: none, full, dots
        "dropout": 0.1,  # of what each part adds to atoms and pairs, but triangles
        "attention_dropout": 0.1,
        "pair_dropout": 0.25,  # of triangles
    }
    scratch = common.one_of("init", init, STARTS) == "scratch"
    config.init_from = "" if scratch else init
    # The heads of pretraining stay behind.
    config.init_fresh = ("^head/", "^token_head/", "^move_head/")
    config.optimizer.lr = 1e-4
    config.optimizer.b2 = 0.99
    config.optimizer.eps = 1e-6
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 6
    config.optimizer.warmup_unit = "percent"
    config.train.epochs = 40
    config.train.use_plateau = False
    config.train.early_stop_epochs = 20
    config.train.checkpoint_every_steps = 0
    return config


def on_processor(config: ConfigDict) -> None:
    """Fills in what a small network needs on a CPU; changed in place.

    Differs from the paper: a higher learning rate and no dropout, since the network is
    small.
    """
    config.batch.rows = 16
    config.batch.buckets = FEW_BUCKETS
    config.model.dropout = config.model.attention_dropout = 0.0
    config.model.pair_dropout = 0.0
    config.optimizer.lr = 1e-3


def smoke(config: ConfigDict) -> None:
    """Fills in what takes under a minute on a CPU; changed in place."""
    config.init_from = ""
    config.model.update({"width": 16, "depth": 2, "heads": 2, "pair_width": 8})
    config.data.source = "embedded"
    config.data.path = ""
    config.data.test_path = ""
    config.data.geometries = ""
    config.data.smiles_col = ""
    config.data.targets = ("logP", "QED")
    config.data.units = ("", "")
    config.data.max_rows = 60
    config.data.conformers = 2
    config.batch.rows = 8
    config.batch.buckets = (23,)
    config.train.epochs = 2


def paper_grid() -> Iterator[dict[str, Any]]:
    """The grid of Table 9 of Ji et al. 2024."""
    for lr in (4e-5, 6e-5, 1e-4, 2e-4, 3e-4, 4e-4):
        for rows in (32, 64, 128):
            for epochs in (40, 60, 80, 100, 200, 300):
                for dropout in (0.0, 0.1):
                    for percent in (0, 6, 10):
                        yield {
                            "optimizer.lr": lr,
                            "batch.rows": rows,
                            "train.epochs": epochs,
                            "head.dropout": dropout,
                            "optimizer.warmup_steps": percent,
                        }


def sweep() -> Iterator[dict[str, Any]]:
    """Both starts, three seeds each."""
    for init in STARTS:
        for seed in range(3):
            yield {":init": init, "seed": seed}
