r"""ChemGPT (Frey et al. 2023): GPT-Neo on molecules as SELFIES.

Forms:
    embedded (default): molecules that the package makes by itself, once over them.
    tuned: a corpus of the user's or the paper's, AdamW with warm-up and cosine decay.
    faithful: the paper's arm: rows cut from one long text, batches of 8 rows, Adam at
        2e-5 with a warm-up of 100 steps, 10 epochs.
    finetune: molecules of one's own, from the weights of --config.init_from, those of
        the package (width 64) if not given.
    smoke: a tiny model on a few molecules, under a minute on a CPU.

Arguments: width (16, 32, 64, ..., 2048; 24 layers and 16 heads at every width),
notation (selfies, smiles; selfies-1 is that of the published weights; not given: that
of the weights to start from, else selfies), warmup (epoch:
faithful only, as in the published code, where the learning rate rises once an epoch).

    python -m chemscale_jax.main --config=configs/chemgpt.py:embedded,width=64
    python -m chemscale_jax.main --config=configs/chemgpt.py:tuned,width=256 \
        --config.data.path=pubchem-10m.txt
    python -m chemscale_jax.main --config=configs/chemgpt.py:finetune,width=64 \
        --config.data.path=mine.smi
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common

FORMS = ("embedded", "tuned", "faithful", "finetune", "smoke")
OPTIONS = {"width": 64, "notation": "", "warmup": "step"}
# Up to this width short rows are faster on a CPU, where scores cost passes over memory.
WIDEST_IN_SHORT_ROWS = 256


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    width = options["width"]
    config = common.base()
    config.name = f"chemgpt-{form}-{width}"
    config.form = form
    config.task = "causal_lm"
    config.data = common.corpus()
    config.data.notation = common.one_of(
        "notation", options["notation"], ("", "selfies", "selfies-1", "smiles")
    )
    config.batch = common.token_rows()
    config.model = {
        "name": "gpt_neo",
        "width": width,
        "depth": 24,
        "heads": 16,
        "dtype": "float32",
        "remat": "none",
    }
    config.sample = {
        "molecules": 1000,  # drawn at the end of a run; 0: none
        "scored": 5000,  # validation molecules that give losses intervals; 0: none
        "reference": 1000,  # validation molecules they are compared with
        "max_tokens": 256,  # of a molecule
    }
    config.train.use_plateau = False
    config.train.early_stop_epochs = 0
    if form == "faithful":
        faithful(config, options["warmup"])
        return config

    # Differs from the paper: decay, clipping, a higher learning rate for narrow models,
    # whole molecules in a row that do not see one another.
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.1
    config.optimizer.b2 = 0.95
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "cosine"
    config.optimizer.final_fraction = 0.1
    config.optimizer.lr = 3e-3 * min(1.0, (64 / width) ** 0.5)
    config.optimizer.warmup_steps = 200
    if width <= WIDEST_IN_SHORT_ROWS:
        config.batch.form = "bucketed"
    config.batch.rows = 16
    config.batch.tokens = 8192
    config.train.epochs = 1
    if form == "embedded":
        # Many small steps, since there are few molecules; and no more positions than a
        # row has (the paper's model has 2048), so that a packed model is small.
        config.batch.rows, config.batch.tokens = 8, 2048
        config.model.positions = 512
        config.optimizer.warmup_steps = 100
    if form == "tuned":
        config.data.source = "file"
        config.batch.rows = 64
        config.batch.tokens = 64 * 512
        config.optimizer.warmup_steps = 1000
    if form == "finetune":
        config.data.source = "file"
        config.init_from = "packaged"
        config.model.positions = 0  # as the weights to start from
        config.train.epochs = 10
        config.batch.rows, config.batch.tokens = 8, 2048
        config.optimizer.lr = 3e-4
        config.optimizer.warmup_steps = 20
    if form == "smoke":
        config.model.width, config.model.depth = 32, 2
        config.data.embedded_molecules = 400
        config.sample.molecules, config.sample.reference = 20, 20
        config.sample.max_tokens = 64
        config.batch.tokens = 2048
        config.optimizer.warmup_steps = 5
        config.train.epochs = 2
    return config


def faithful(config: ConfigDict, warmup: str) -> None:
    """Fills in what the paper and its code say."""
    config.data.source = "file"
    config.data.deduplicate = False
    config.batch.form = "cut"
    config.optimizer.lr = 2e-5
    config.optimizer.eps = 1e-6
    config.optimizer.warmup_steps = 100
    config.optimizer.warmup_unit = common.one_of("warmup", warmup, ("step", "epoch"))
    config.train.epochs = 10


def sweep() -> Iterator[dict[str, Any]]:
    """All widths of the paper."""
    for exponent in range(4, 12):
        yield {":width": 2**exponent}
