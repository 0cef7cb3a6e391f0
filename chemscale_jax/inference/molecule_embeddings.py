"""Embeddings of molecules, atoms and pairs of atoms, from any layer of Uni-Mol2.

Where there are several conformers, values are means over them, and standard deviations
say how far they differ.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.batches import MoleculeRows
from chemscale_jax.core.types import Array, Params
from chemscale_jax.data.inputs.molecule_input import InputRow, MoleculeInput
from chemscale_jax.inference import molecule_batches as batches
from chemscale_jax.inference.embed_settings import (
    EmbedSettings,
    numbered_layers,
    pooled,
)
from chemscale_jax.inference.embedding_parts import (
    conformed_parts,
    place_fields,
    row_fields,
    value_fields,
)
from chemscale_jax.inference.molecule_batches import Batching, batch_shape
from chemscale_jax.inference.molecule_model import (
    PRETRAINING,
    MoleculeModel,
    open_molecule_model,
    split_head,
)
from chemscale_jax.inference.result_parts import Part, Reading, Rows
from chemscale_jax.models import unimol2, unimol2_init
from chemscale_jax.models.unimol2_options import Unimol2Options
from chemscale_jax.models.unimol2_states import read_layers

# Rows of a part, which is held in memory, by level.
_PART_ROWS = {"molecule": 2048, "atom": 512, "pair": 64}


@dataclasses.dataclass(frozen=True)
class MoleculeEmbedder:
    """Uni-Mol2 as an `embedder.Embedder`."""

    model: MoleculeModel
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """See `embedder.Embedder`."""
        return "unimol2"

    @property
    def weights(self) -> Params:
        """All parameters."""
        return {"params": self.model.params, "head": self.model.head}

    def settled(self, settings: EmbedSettings) -> EmbedSettings:
        """See `embedder.Embedder`."""
        self.layers(settings)
        pools, levels = ("cls", "mean", "sum"), ("molecule", "atom", "pair")
        return pooled(settings, "Uni-Mol2", pools, levels)

    def layers(self, settings: EmbedSettings) -> list[int]:
        """See `embedder.Embedder`."""
        return numbered_layers(settings.layer, self.model.options.depth)

    def stamp(self, batching: Batching) -> dict[str, Any]:
        """See `embedder.Embedder`."""
        return {
            "options": repr(self.model.options),
            "rows of 23 atoms": batch_shape(23, batching).rows,
        }

    def read_rows(
        self, source: MoleculeInput, settings: EmbedSettings, reading: Reading
    ) -> Rows:
        """See `embedder.Embedder`."""
        size = _PART_ROWS[settings.level]
        if settings.level == "molecule" and settings.layer != "all":
            size = batches.part_rows(size)
        return conformed_parts(source, settings, reading, size)

    def make_work(
        self, settings: EmbedSettings, batching: Batching, columns: Sequence[str] = ()
    ) -> Callable[[Sequence[InputRow]], Part]:
        """See `embedder.Embedder`."""
        model, level = self.model, settings.level
        reading = settings.layer, level, settings.pool
        program = functools.partial(read_network, model.options, reading, model.params)
        drop = settings.features == "drop"
        if settings.features == "auto":
            drop = model.drop_features
        batching = batching._replace(drop_features=drop)
        many, options = settings.layer == "all", model.options
        width = options.pair_width if level == "pair" else options.width
        shape = (options.depth + 1, width) if many else (width,)

        def work(rows: Sequence[InputRow]) -> Part:
            records = [row.record for row in rows]
            averages = batches.Averages()
            for shown in batches.show(program, records, batching):
                N = len(records[shown.place].species_N)
                values = _real(shown.arrays["values"], N, level, many)
                averages.add(shown.place, values)
            counts = [averages.count(place) for place in range(len(rows))]
            part = row_fields(rows, columns)
            part["conformers"] = np.array(counts, np.int32)
            for name, of in (("values", averages.mean), ("std", averages.std)):
                found = [of(i) if count else None for i, count in enumerate(counts)]
                part |= value_fields(rows, found, level, shape, name)
            part |= place_fields(rows, [count > 0 for count in counts], level)
            if level == "atom":
                xyz = [record.positions_KN3[:1].reshape(-1, 3) for record in records]
                part["positions"] = np.concatenate(xyz)
            return part

        return work


@functools.partial(jax.jit, static_argnums=(0, 1))
def read_network(
    options: Unimol2Options,
    reading: tuple[int | str, str, str],
    params: Params,
    rows: MoleculeRows,
) -> dict[str, Array]:
    """The network up to the layer that is asked for; for `molecule_batches.show`.

    Args:
        options: of the network.
        reading: layer, level and pool of `EmbedSettings`.
        params: of the network.
        rows: molecules.

    Returns:
        "values": (B, ..., D) float32, or (B, L, ..., D) for all layers.
    """
    layer, level, pool = reading
    read = functools.partial(_read, level, pool, rows)
    if layer == "all":
        values = jnp.moveaxis(read_layers(options, params, rows, read), 0, 1)
    else:
        (number,) = numbered_layers(layer, options.depth)
        values = read(unimol2.encode(options, params, rows, layer=number))
    return {"values": values.astype(jnp.float32)}


def _read(level: str, pool: str, rows: MoleculeRows, tracks: unimol2.Encoded) -> Array:
    """Of the virtual atom, the atoms' mean or sum, all atoms, or all pairs."""
    if level == "pair":
        return tracks.pair_BTTQ[:, 1:, 1:]
    if level == "atom":
        return tracks.x_BTD[:, 1:]
    if pool == "cls":
        return tracks.x_BTD[:, 0]
    real_BN1 = unimol2.atom_mask(rows)[..., None]
    # Padding holds numbers, not zeros.
    sum_BD = jnp.sum(jnp.where(real_BN1, tracks.x_BTD[:, 1:], 0), axis=1)
    if pool == "sum":
        return sum_BD
    return sum_BD / jnp.maximum(jnp.sum(real_BN1, axis=1), 1).astype(sum_BD.dtype)


def _real(values: np.ndarray, N: int, level: str, many: bool) -> np.ndarray:
    """Values without padding: (D,), (N, D) or (N N, D), with L before D if many."""
    if level == "molecule":
        return values
    if level == "atom":
        values = values[..., :N, :]
    else:
        values = values[..., :N, :N, :]
        values = values.reshape(*values.shape[:-3], N * N, values.shape[-1])
    return np.moveaxis(values, 0, 1) if many else values


def open_run(
    place: str, origin: Mapping[str, Any], changes: Mapping[str, Any]
) -> MoleculeEmbedder:
    """Uni-Mol2 for `embedder.open_embedder`.

    Args:
        place: see `open_molecule_model`; "unimol2" for the packaged network.
        origin: see `embedder.Embedder`.
        changes: fields of the options to set otherwise.
    """
    path = None if place == "unimol2" else place
    # Products in bfloat16 would make results depend on the size of the batch.
    kept = {"dtype": "float32", **changes}
    model = open_molecule_model(path, origin["step"], **kept)
    if (seed := origin["untrained"]) is not None:
        fresh = unimol2_init.init(model.options, jax.random.key(seed))["params"]
        model = model._replace(params=split_head(fresh)[0], head=None)
    told = {**origin, "task": model.config.get("task", PRETRAINING)}
    return MoleculeEmbedder(
        model, told | ({"changes": dict(changes)} if changes else {})
    )
