"""Molecules that are only compared by their structure: rows without embeddings."""

from typing import Any

import numpy as np

from chemscale_jax.core.embedding_table import EmbeddingTable
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.open_input import open_input


def query_rows(molecules: Any, smiles_col: str = "") -> EmbeddingTable:
    """Canonical SMILES of all rows of an input, with values of no width.

    Args:
        molecules: see `open_input`.
        smiles_col: of the SMILES in a file.

    Raises:
        UserError: the input cannot be opened or has no row.
    """
    rows = list(open_input(molecules, smiles_col=smiles_col).rows())
    if not rows:
        raise UserError("the input has no row, so there is nothing to do")
    records = [row.record for row in rows]
    return EmbeddingTable(
        index=np.array([row.index for row in rows], np.int64),
        where=np.array([row.where for row in rows], np.str_),
        smiles=np.array([record.smiles for record in records], np.str_),
        status=np.array([record.status for record in records], np.str_),
        reason=np.array([record.reason for record in records], np.str_),
        values=np.zeros((len(rows), 0), np.float32),
    )
