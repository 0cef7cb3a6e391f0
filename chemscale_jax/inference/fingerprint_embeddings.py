"""Morgan fingerprints in the place of embeddings: what any of them has to beat."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from chemscale_jax.chem import count_fingerprints
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Params
from chemscale_jax.data.inputs.molecule_input import InputRow, MoleculeInput
from chemscale_jax.inference.embed_settings import EmbedSettings
from chemscale_jax.inference.embedding_parts import (
    conformed_parts,
    marked,
    row_fields,
    value_fields,
)
from chemscale_jax.inference.molecule_batches import Batching
from chemscale_jax.inference.result_parts import Part, Reading, Rows

_PART_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class FingerprintEmbedder:
    """Counts of circular substructures as an `embedder.Embedder`.

    Morgan fingerprints of radius 2, folded to 2048 places (Rogers and Hahn 2010).
    """

    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """See `embedder.Embedder`."""
        return "morgan"

    @property
    def weights(self) -> Params:
        """None."""
        return {}

    def settled(self, settings: EmbedSettings) -> EmbedSettings:
        """See `embedder.Embedder`."""
        self.layers(settings)
        if settings.level != "molecule" or settings.pool not in ("auto", "sum"):
            raise UserError(
                "fingerprints are counts of all substructures of a molecule: leave "
                "level and pool out"
            )
        return dataclasses.replace(settings, pool="sum", conformers=1, geometry="flat")

    def layers(self, settings: EmbedSettings) -> list[int]:
        """See `embedder.Embedder`."""
        if settings.layer not in (-1, 0):
            raise UserError(
                f"layer is {settings.layer!r}: fingerprints have no layers; leave it "
                "out"
            )
        return [0]

    def stamp(self, batching: Batching) -> dict[str, Any]:
        """See `embedder.Embedder`."""
        return {
            "radius": count_fingerprints.RADIUS,
            "places": count_fingerprints.BITS,
        }

    def read_rows(
        self, source: MoleculeInput, settings: EmbedSettings, reading: Reading
    ) -> Rows:
        """See `embedder.Embedder`."""
        return conformed_parts(source, settings, reading, _PART_ROWS)

    def make_work(
        self, settings: EmbedSettings, batching: Batching, columns: Sequence[str] = ()
    ) -> Callable[[Sequence[InputRow]], Part]:
        """See `embedder.Embedder`."""

        def work(rows: Sequence[InputRow]) -> Part:
            rows = [marked(row, _fault(row)) for row in rows]
            good = [row.record.status != "failed" for row in rows]
            smiles = [r.record.smiles for r, ok in zip(rows, good, strict=True) if ok]
            counts = iter(
                count_fingerprints.count_fingerprints(
                    smiles, processes=1, progress=False
                )
            )
            found = [next(counts) if ok else None for ok in good]
            part = row_fields(rows, columns)
            part["conformers"] = np.zeros(len(rows), np.int32)
            shape = (count_fingerprints.BITS,)
            return part | value_fields(rows, found, "molecule", shape)

        return work


def _fault(row: InputRow) -> str:
    """Why a row has no fingerprint, or ""."""
    if row.record.status == "failed":
        return row.record.reason
    return "" if row.record.smiles else "its bonds are unknown, so it has no SMILES"
