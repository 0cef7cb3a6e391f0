r"""Uni-Mol2 (Ji et al. 2024): masked elements and noised conformers are restored.

Forms:
    embedded (default): conformers of molecules that the package makes by itself.
    packaged: the same with more molecules and for longer; made the model that comes
        with the package.
    paper: a store of conformers, made with chemscale conformers; scaffold-balanced
        draws, batches of 1024, AdamW at 1e-4 with a warm-up of 100,000 of 818,359
        steps and linear decay.
    smoke: a tiny network on a few molecules, under a minute on a CPU.

Arguments: size (tiny, 1M, 5M, 42M, 84M, 164M, 310M, 570M, 1.1B; embedded starts at
tiny, paper at 84M), variant (clean; faithful: as the published code computes it).

    python -m chemscale_jax.main --config=configs/unimol2_pretrain.py:embedded,size=tiny
    python -m chemscale_jax.main --config=configs/unimol2_pretrain.py:paper,size=84M \
        --config.data.path=STORE
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = ("embedded", "packaged", "paper", "smoke")
OPTIONS = {"size": "", "variant": "clean"}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    size = options["size"] or ("84M" if form == "paper" else "tiny")
    config = common.base()
    config.name = f"unimol2-pretrain-{form}-{size}"
    config.form = form
    config.task = "conformer_denoising"
    config.data = common.molecules()
    config.batch = common.molecule_rows()
    config.noise = {
        "mask_fraction": 0.15,  # of the atoms of a molecule, whose element is masked
        "noise_ang": 0.2,  # angstrom, deviation of what is added to each coordinate
        "align": True,  # turn the noised molecule onto the clean one
        "drop_features": 0.5,  # of the molecules, whose features are withheld
        "flat_share": 0.5,  # of those with features, shown as drawings
    }
    config.loss = {
        "token": 1.0,  # weight of the masked elements, nats; 0: left out
        "coord": 1.0,  # of the coordinates, angstrom
        "dist": 1.0,  # of the distances, angstrom
    }
    config.model = {
        "name": "unimol2",
        "size": size,
        "variant": common.one_of("variant", options["variant"], ("clean", "faithful")),
        "dtype": "float32",  # of matrix products: float32, bfloat16
        # Of distances at the start, half of it; 0: near 0 as published, where all of
        # them fall into the first few Gaussians of the kernel.
        "distance_scale": 0.0,
        "remat": "none",  # what the backward pass computes again: none, full, dots
        "dropout": 0.1,  # of what each part adds to atoms and pairs, but triangles
        "attention_dropout": 0.1,
        "pair_dropout": 0.25,  # of triangles
    }
    config.train.use_plateau = False
    config.train.early_stop_epochs = 0
    config.optimizer.name = "adamw"
    config.optimizer.b2 = 0.99
    config.optimizer.weight_decay = 1e-4
    config.optimizer.undecayed = ("/bias$", "norm/scale$")
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "linear"
    if form == "paper":
        paper(config)
        return config

    # Differs from the paper: a higher learning rate with a short warm-up and no
    # dropout, since the network is small and its molecules are few; distances that
    # start in angstrom.
    config.model.distance_scale = 0.5
    config.optimizer.lr = 2e-3
    config.optimizer.warmup_steps = 100
    config.model.dropout = config.model.attention_dropout = 0.0
    config.model.pair_dropout = 0.0
    config.batch.rows = 8
    config.batch.buckets = (15, 19, 23, 27, 31)
    config.train.epochs = 6
    if form == "packaged":
        config.data.embedded_molecules = 10_000
        config.optimizer.warmup_steps = 500
        config.train.epochs = 12
    if form == "smoke":
        config.model.update({"width": 16, "depth": 2, "heads": 2, "pair_width": 8})
        config.data.embedded_molecules = 48
        config.batch.form = "equal"
        config.batch.buckets = (31,)
        config.optimizer.warmup_steps = 5
        config.train.epochs = 2
    return config


def paper(config: ConfigDict) -> None:
    """Fills in what the paper and its code say; they leave eps open."""
    config.data.source = "store"
    config.data.split = "random"
    config.data.sampling = "softmax"
    config.data.epoch_molecules = 10_240_000  # it was validated every 10,000 steps
    config.batch.form = "equal"
    config.batch.rows = 1024
    config.batch.workers = 8
    config.model.dtype = "bfloat16"
    config.model.remat = "dots"
    config.optimizer.lr = 1e-4
    config.optimizer.eps = 1e-6
    config.optimizer.warmup_steps = 100_000
    config.train.epochs = 82
    config.train.max_steps = 818_359
    config.train.checkpoint_every_steps = 1000


def sweep() -> Iterator[dict[str, Any]]:
    """Sizes, for their losses against each other."""
    for size in ("tiny", "1M", "5M"):
        yield {":size": size}
