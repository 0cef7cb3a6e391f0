"""Likelihoods of the molecules that validated a language model, one by one."""

import numpy as np

from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.likelihoods import Likelihoods
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data.text.token_rows import tokens_per_molecule
from chemscale_jax.data.text.token_stream import TokenStream
from chemscale_jax.inference import score
from chemscale_jax.inference.language_model import LanguageModel

SPLIT = "valid"


def write_likelihoods(
    model: LanguageModel, stream: TokenStream, config: Config, workdir: Workdir
) -> None:
    """Writes predictions/valid.npz, from which losses get their intervals.

    Each molecule is scored alone, in whatever rows the model was trained; molecules
    that are too long for the model are left out, as in the rows.

    Args:
        model: of the run, with its best weights.
        stream: of the run.
        config: the whole config; ``sample.scored`` is the number of molecules.
        workdir: of the run.
    """
    store = stream.store
    valid = stream.split.valid[: config.sample.scored]
    chosen = valid[tokens_per_molecule(store)[valid] <= model.options.positions]
    sequences = [
        np.concatenate([[Vocabulary.begin], store.symbols(int(i)), [Vocabulary.end]])
        for i in chosen
    ]
    scores = score.token_log_probs(model.options, model.params, sequences)
    Likelihoods(
        nats=-np.array([each.sum(dtype=np.float64) for each in scores]),
        tokens=np.array([len(each) for each in scores], np.int32),
        line=np.array(store.lines[chosen], np.int64),
    ).save(workdir.predictions / f"{SPLIT}.npz")
