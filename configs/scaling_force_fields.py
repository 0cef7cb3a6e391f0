r"""Neural scaling of force fields: model size x frames (Frey et al., Fig. 5, A.3-A.5).

Forms:
    full (default): ANI-1x with the paper's protocol: force-only L1, plateau and early
        stop, widths 16, 64, 256 with depths 2, 3, 4 on 10^2 to 10^5 frames.
    medium: GFN2-xTB frames, 10^2 to 10^5, widths 16, 32, 64 with depths 2 and 4, so
        that equal capacities d w occur at two depths.
    small: GFN2-xTB frames, 10^2 to 10^3.5, widths 8, 16, 32 with depth 2.
    smoke: two tiny models on a few frames of the package.

Medium and small are trained for a stated number of updates, the same for all cells of
a data size, with a learning rate that is annealed to zero; frames are made beforehand.
Every cell is trained from three seeds (full: one, as in the paper) as lanes of one
program, on nested subsets, and validated on frames of molecules that were seen and of
others that were not.

Arguments: models (of the study: schnet+painn+allegro, or some of them). A cell has
model, width, depth and frames (0: all), which the study fills in.

    chemscale generate --out=gfn2_1e4.h5 --frames=10000 --max-atoms=11 \
        --thermal-share=0.05
    chemscale study --config=configs/scaling_force_fields.py:small \
        --workdir=runs/scaling --jobs=2

    chemscale generate --out=gfn2_1e5.h5 --frames=120000 --thermal-share=0.05 \
        --workers=8
    chemscale plan --config=configs/scaling_force_fields.py:medium --device=h100
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = ("full", "medium", "small", "smoke")
OPTIONS = {"model": "painn", "width": 0, "depth": 0, "frames": 0, "models": ""}
CUTOFF_ANG = 5.0
# The paper leaves most of these open. Learning rates of the annealed forms are those of
# configs/rmd17.py, which were chosen on one molecule; no cell has one of its own.
MODELS = {
    "schnet": ({"n_rbf": 32, "cutoff_fn": "cosine"}, 5e-3),
    "painn": ({}, 3e-3),
    "allegro": ({"form": "2025", "width_map": "C", "l_max": 2}, 1e-2),
}
# (width, depth) of each form.
CAPACITIES = {
    "full": [(w, d) for w in (16, 64, 256) for d in (2, 3, 4)],
    "medium": [(w, d) for w in (16, 32, 64) for d in (2, 4)],
    "small": [(8, 2), (16, 2), (32, 2)],
    "smoke": [(4, 1), (8, 1)],
}
SIZES = {
    "full": (100, 1_000, 10_000, 100_000),
    "medium": (100, 1_000, 10_000, 100_000),
    "small": (100, 316, 1_000, 3_162),
    "smoke": (24, 72),
}
# Updates of a cell, by its frames.
UPDATES = {
    "medium": {100: 20_000, 1_000: 20_000, 10_000: 50_000, 100_000: 100_000},
    "small": dict.fromkeys(SIZES["small"], 1_500),
    "smoke": dict.fromkeys(SIZES["smoke"], 9),
}
# Frames that an epoch goes over, so that all cells are validated equally often.
EPOCH_FRAMES = {"medium": 10_000, "small": 3_200, "smoke": 72}
# Files of frames, made beforehand, see above; --config.data.path names another.
PATHS = {"medium": "gfn2_1e5.h5", "small": "gfn2_1e4.h5", "smoke": ""}
# The paper's widest Allegro did not fit its GPUs.
WIDEST_ALLEGRO = 512


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    name = common.one_of("model", options["model"], MODELS)
    width, depth = CAPACITIES[form][0]
    width, depth = options["width"] or width, options["depth"] or depth
    frames = options["frames"]
    config = common.base()
    config.name = f"scaling-{form}-{name}-{width}-{depth}-{frames or 'all'}"
    common.ani1x_form(config, "full")
    config.form = form
    config.data.train_size = frames
    hyperparameters, lr = MODELS[name]
    common.set_network(
        config,
        name,
        CUTOFF_ANG,
        {"width": width, "depth": depth, **hyperparameters, "dtype": "float32"},
    )
    config.check = "none"
    # The paper's batch size is not stated; 32 is within its grid.
    config.batch.exact_molecules = 32
    config.batch.rows = 4
    if form == "full":
        config.optimizer.lr = 1e-3
        return config

    # Differs from the paper: a stated number of updates with an annealed learning rate,
    # since plateau and early stop end cells at different stages; clipping.
    config.data.source = "embedded"
    config.data.path = PATHS[form]
    config.data.split = "molecules"
    config.optimizer.lr = lr
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.clip_norm = 10.0
    config.train.use_plateau = False
    config.train.early_stop_epochs = 0
    config.train.checkpoint_every_steps = 0
    config.train.ensemble = 3
    config.data.passes = max(1, EPOCH_FRAMES[form] // frames) if frames else 1
    config.train.max_steps = UPDATES[form].get(frames, max(UPDATES[form].values()))
    if form == "medium":
        config.data.valid_size = 2_000
        config.optimizer.warmup_steps = 500
        config.train.checkpoint_every_steps = 2_000
    if form == "small":
        if name == "allegro":
            config.model.l_max = 1  # with 2 a step takes three times as long to compile
        config.data.valid_size = 400
        # Room for any eight frames of at most 11 atoms, so that all cells of a model
        # share one compiled program.
        config.batch.nodes, config.batch.edges = 8 * 11 + 2, 8 * 11 * 10
        config.batch.prefetch = 0  # a batch is made sooner than it is handed over
    if form == "smoke":
        config.data.max_frames = 160
        config.data.valid_size = 16
        config.optimizer.warmup_steps = 2
        config.batch.exact_molecules = 8
        config.batch.rows = 1
        config.train.ensemble = 2
    return config


def study(arg: str = "") -> Iterator[dict[str, Any]]:
    """Every model and capacity on every amount of data."""
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    default = "schnet+painn" if form == "smoke" else "+".join(MODELS)
    for name in (options["models"] or default).split("+"):
        common.one_of("models", name, MODELS)
        for frames in SIZES[form]:
            for width, depth in CAPACITIES[form]:
                if name == "allegro" and width * depth > WIDEST_ALLEGRO:
                    continue
                yield {
                    ":model": name,
                    ":width": width,
                    ":depth": depth,
                    ":frames": frames,
                }


def sweep() -> Iterator[dict[str, Any]]:
    """The cells of the study in its first form."""
    yield from study()
