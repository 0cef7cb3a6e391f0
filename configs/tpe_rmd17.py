r"""Learning rate times batch size on revised MD-17: the runs that TPE is judged by.

Frey et al. 2023 train SchNet, PaiNN and SpookyNet on 1,000 frames of each of ten
molecules, for forces only, at constant learning rates, and predict the loss after 50
epochs from the first ten (Eq. 7 and 8, Table 1).

Forms:
    small (default): 600 frames of six molecules, 200 to validate, width 16, 20 epochs:
        ten to forty seconds of training for each of the 20 runs on a core of a CPU.
    full: the paper's: 10,000 frames of ten molecules, as many to validate, the
        networks of its code, 50 epochs; hours on a GPU.
    smoke: a tiny model on a few frames of the package, under a minute on a CPU.

Arguments: model (schnet, painn, spookynet, allegro).

    chemscale sweep --config=configs/tpe_rmd17.py:small,model=painn --policy=full \
        --config.data.path=rmd17 --workdir=runs/tpe-painn --jobs=2
    chemscale tpe --runs=runs/tpe-painn --fraction=0.2

The folder is the unpacked archive of https://doi.org/10.6084/m9.figshare.12672038, or
one with rmd17_MOLECULE_train_01.npz and rmd17_MOLECULE_test_01.npz. With the policy
full every run is trained to its end, so that predictions can be judged. Runs of one
batch size share their shapes, so they train as lanes of one program.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import (
    allegro_ani1x,
    common,
    painn_ani1x,
    schnet_ani1x,
    spookynet_ani1x,
)

FORMS = ("small", "full", "smoke")
FULL = {
    "schnet": schnet_ani1x,
    "painn": painn_ani1x,
    "spookynet": spookynet_ani1x,
    "allegro": allegro_ani1x,
}
CUTOFF_ANG = 5.0
# Hyperparameters of the forms small and smoke.
SMALL = {
    "schnet": ({"width": 16, "depth": 3}, {"width": 8, "depth": 1}),
    "painn": ({"width": 16, "depth": 3}, {"width": 8, "depth": 1}),
    "spookynet": ({"width": 16, "depth": 2}, {"width": 8, "depth": 1}),
    "allegro": (
        {"width": 16, "depth": 1, "l_max": 1},
        {"width": 8, "depth": 1, "l_max": 1},
    ),
}
SIX = "ethanol,malonaldehyde,toluene,salicylic,naphthalene,aspirin"
TEN = f"{SIX},azobenzene,benzene,paracetamol,uracil"
# The paper's grid, and a learning rate above it.
LEARNING_RATES = (1e-2, 1e-3, 1e-4, 1e-5)
BATCH_SIZES = (4, 8, 16, 32, 64)


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, {"model": "painn"})
    name = common.one_of("model", options["model"], FULL)
    if form == "full":
        config = FULL[name].get_config("full")
        config.data.molecule, config.data.split_index = TEN, 0
        config.data.train_size = config.data.valid_size = 10_000
        config.batch.rows = 4
        config.train.epochs = 50
    else:
        config = common.base()
        common.trajectory_form(config, "smoke")
        hyperparameters = SMALL[name][form == "smoke"]
        common.set_network(config, name, CUTOFF_ANG, hyperparameters)
        config.batch.rows = 1
        config.train.epochs = 20
    config.form = form
    config.name = f"tpe-rmd17-{name}-{form}"
    config.batch.exact_molecules = BATCH_SIZES[0]
    if form == "smoke":
        config.train.epochs = 5
    else:
        config.data.source = "rmd17"
    if form == "small":
        config.data.molecule, config.data.split_index = SIX, 1
        config.data.max_frames, config.data.valid_size = 800, 200
    # As in the study: forces only, one learning rate throughout.
    config.loss.alpha_energy = 0.0
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = 0.0
    config.optimizer.ema_decay = 0.0
    config.train.use_plateau = form == "full"  # which 50 epochs hardly let it act
    config.check = "none"
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Every batch size with every learning rate."""
    for molecules in BATCH_SIZES:
        for lr in LEARNING_RATES:
            yield {"batch.exact_molecules": molecules, "optimizer.lr": lr}
