r"""Force fields on revised MD-17: the official split, 950 frames to train on.

Forms:
    train (default): 950 of the 1,000 training frames of the split; the other 50 choose
        the checkpoint; no run looks at the 1,000 test frames before its end.
    smoke: a tiny model on a few frames of the package, under a minute on a CPU.

Arguments: model (painn, schnet, allegro, spookynet), molecule (ethanol, aspirin, ...),
split (1 to 5).

    python -m chemscale_jax.main --config=configs/rmd17.py:molecule=ethanol \
        --config.data.path=rmd17
    python launch/local.py --config=configs/rmd17.py --config.data.path=rmd17 \
        --workdir=runs/rmd17 --jobs=2

The folder is the unpacked archive of https://doi.org/10.6084/m9.figshare.12672038.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = ("train", "smoke")
OPTIONS = {"model": "painn", "molecule": "ethanol", "split": 1}
CUTOFF_ANG = 5.0
# The form "train": hyperparameters, passes over the training set, learning rate; and
# the tiny form. A pass over ethanol takes about a second on 2 cores.
MODELS = {
    "schnet": ({"width": 64, "depth": 3}, 800, 5e-3, {"width": 8, "depth": 2}),
    "painn": ({"width": 64, "depth": 3}, 400, 3e-3, {"width": 8, "depth": 2}),
    "allegro": (
        {"width": 64, "depth": 2, "l_max": 2},
        600,
        1e-2,
        {"width": 8, "depth": 1, "l_max": 1},
    ),
    "spookynet": ({"width": 32, "depth": 3}, 500, 1e-2, {"width": 8, "depth": 1}),
}
# A step takes longer with more pairs of atoms, so that larger molecules get fewer.
SHARES = {"ethanol": 1.0, "malonaldehyde": 1.0}
SHARE_OF_LARGER = 0.3


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    name = common.one_of("model", options["model"], MODELS)
    hyperparameters, passes, lr, tiny = MODELS[name]
    config = common.base()
    config.name = f"rmd17-{options['molecule']}-{name}-{form}"
    common.trajectory_form(config, form)
    common.set_network(
        config, name, CUTOFF_ANG, tiny if form == "smoke" else hyperparameters
    )
    if form == "smoke":
        return config
    config.optimizer.lr = lr
    share = SHARES.get(options["molecule"], SHARE_OF_LARGER)
    config.train.epochs = round(passes * share / config.data.passes)
    config.data.source = "rmd17"
    config.data.molecule = options["molecule"]
    config.data.split_index = options["split"]
    config.data.valid_size = 50
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Every model on several molecules."""
    for molecule in ("ethanol", "malonaldehyde", "toluene"):
        for model in MODELS:
            yield {":molecule": molecule, ":model": model}
