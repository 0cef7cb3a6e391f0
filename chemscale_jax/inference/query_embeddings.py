"""Embeds molecules as others were embedded before, so that they can be compared."""

from collections.abc import Mapping
from typing import Any

from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference.embed import embed
from chemscale_jax.inference.embedder import reopened


def embed_like(
    about: Mapping[str, Any],
    molecules: Any,
    *,
    workdir: str = "",
    smiles_col: str = "",
    progress: bool = False,
) -> EmbeddingTable:
    """Embeddings of molecules by the model and settings of other embeddings.

    Args:
        about: what made the others, see `embedder.facts`.
        molecules: see `open_input`.
        workdir: where the model is now, if it was moved.
        smiles_col: of the SMILES in a file.
        progress: whether there is a bar.

    Raises:
        UserError: the model is not there or has other weights, or the molecules cannot
            be opened.
    """
    source = open_input(molecules, smiles_col=smiles_col)
    embedder, settings = reopened({**about, "workdir": workdir} if workdir else about)
    return embed(embedder, source, settings, progress=progress).table()
