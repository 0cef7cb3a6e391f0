"""Molecules of a finished language model, beside those that validated it."""

import numpy as np

from chemscale_jax.analysis.generation import generated_files, generated_metrics
from chemscale_jax.analysis.reports.language_report import SAMPLES_TABLE
from chemscale_jax.chem import prompts
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data.text.token_stream import TokenStream
from chemscale_jax.inference import sample
from chemscale_jax.inference.language_model import LanguageModel


def write_samples(
    model: LanguageModel, stream: TokenStream, config: Config, workdir: Workdir
) -> None:
    """Draws molecules and writes samples/: molecules, metrics, plot and table.

    Args:
        model: of the run, with its best weights.
        stream: of the run; its training set decides what is novel.
        config: the whole config; ``sample`` has the number of molecules, the number of
            validation molecules they are compared with, and the most tokens of each.
        workdir: of the run.
    """
    settings = sample.Settings(
        samples=config.sample.molecules,
        max_new=config.sample.max_tokens,
        seed=config.seed,
    )
    molecules = sample.sample(model, [sample.NO_PROMPT], settings)
    metrics = generated_metrics.evaluate_molecules(
        [molecule.smiles or None for molecule in molecules],
        reference_molecules(stream, config.sample.reference),
        np.array(stream.store.keys[stream.split.train, 0]),
        seed=config.seed,
        progress=False,
    )
    generated_files.write_evaluation(metrics, workdir.samples)
    sample.write_molecules(workdir.samples / "generated.csv", molecules)
    table = generated_metrics.metrics_table(metrics)
    (workdir.samples / SAMPLES_TABLE).write_text(table + "\n", encoding="utf-8")


def reference_molecules(stream: TokenStream, most: int) -> list[str]:
    """SMILES of the first validation molecules."""
    vocabulary = stream.store.vocabulary
    return [
        prompts.decode(
            vocabulary.decode(stream.store.symbols(int(index))), vocabulary.notation
        )
        for index in stream.split.valid[:most]
    ]
