"""``embed`` in one call, in Python what ``chemscale embed`` is on the command line."""

import os
import pathlib
from typing import Any

from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference import embed as in_memory
from chemscale_jax.inference import embed_files
from chemscale_jax.inference.embed import Embeddings
from chemscale_jax.inference.embed_settings import EmbedSettings
from chemscale_jax.inference.embedder import open_embedder
from chemscale_jax.inference.molecule_batches import BY_DEVICE, Batching


def embed(
    data: Any,
    workdir: str | pathlib.Path | None = None,
    *,
    step: int | None = None,
    untrained: int | None = None,
    out: str | os.PathLike | None = None,
    smiles_col: str = "",
    batching: Batching = BY_DEVICE,
    workers: int | None = None,
    progress: bool = False,
    **settings: Any,
) -> Embeddings | None:
    """Embeddings of molecules from any trained model.

    Args:
        data: a path, SMILES, a list of them, a DataFrame or a dictionary; see
            `open_input`.
        workdir: of a run of Uni-Mol2, a language model or a force field, or one of
            "unimol2" (default), "chemgpt", "force_field" and "morgan"; see
            `open_embedder`.
        step: of a checkpoint other than the best.
        untrained: a seed: fresh parameters in place of the trained ones.
        out: .npz, .csv, .parquet or .zarr to write to, part by part; what was begun
            goes on. None: in memory.
        smiles_col: name of the column of SMILES.
        batching: how molecules share batches.
        workers: processes that read molecules and make conformers.
        progress: whether there is a bar.
        settings: fields of `EmbedSettings`: layer, level, pool, conformers, seed,
            geometry, features.

    Returns:
        The embeddings, one row for each row of the data; None where they are written.

    Raises:
        UserError: something given cannot be used; rows that cannot be read have a
            status instead.
    """
    source = data
    if not isinstance(data, MoleculeInput):
        source = open_input(data, smiles_col=smiles_col)
    model = open_embedder(workdir, step, untrained=untrained)
    chosen = EmbedSettings(**settings)
    if out is None:
        return in_memory.embed(
            model,
            source,
            chosen,
            batching=batching,
            workers=workers,
            progress=progress,
        )
    embed_files.write_embeddings(
        model,
        source,
        out,
        chosen,
        batching=batching,
        workers=workers,
        progress=progress,
    )
    return None
