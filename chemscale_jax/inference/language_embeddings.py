"""Embeddings of molecules and atoms from the states of a language model.

Frey et al. 2023, section 5.1, take the states after the last layer and do not say how
they are pooled; here the default is the mean over the symbols of the molecule, without
special tokens. The network is causal: the state of a symbol has seen those before it,
the last one all of them, and the token that begins a row none.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.chem import prompts
from chemscale_jax.chem.atom_symbols import heavy_places
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import replicated, row_sharding
from chemscale_jax.core.types import Array, Params
from chemscale_jax.data.inputs.molecule_input import InputRow, MoleculeInput
from chemscale_jax.inference.embed_settings import (
    EmbedSettings,
    numbered_layers,
    pooled,
)
from chemscale_jax.inference.embedding_parts import (
    conformed_parts,
    marked,
    place_fields,
    row_fields,
    value_fields,
)
from chemscale_jax.inference.language_model import (
    TASK,
    LanguageModel,
    open_language_model,
)
from chemscale_jax.inference.molecule_batches import Batching
from chemscale_jax.inference.prefill import rows_bucket
from chemscale_jax.inference.result_parts import Part, Reading, Rows
from chemscale_jax.inference.score import padded_length
from chemscale_jax.models import gpt
from chemscale_jax.models.gpt import GptOptions

# Tokens of a batch, padding included.
CPU_PLACES, ACCELERATOR_PLACES = 4096, 2**16
_PART_ROWS = {"molecule": 8192, "atom": 512}


class _Tokens(NamedTuple):
    """One molecule as the network reads it."""

    ids: np.ndarray  # the token that begins a row, then those of the symbols
    atoms: np.ndarray | None  # places of the heavy atoms among them


@dataclasses.dataclass(frozen=True)
class LanguageEmbedder:
    """A language model as an `embedder.Embedder`."""

    model: LanguageModel
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """See `embedder.Embedder`."""
        return "chemgpt"

    @property
    def weights(self) -> Params:
        """All parameters."""
        return self.model.params

    def settled(self, settings: EmbedSettings) -> EmbedSettings:
        """See `embedder.Embedder`."""
        self.layers(settings)
        if settings.level == "molecule" and settings.pool == "cls":
            raise UserError(
                "pool is 'cls': the first token of a causal language model has seen "
                "nothing of the molecule, so it is the same for all; use mean or last"
            )
        settings = pooled(
            settings, "a language model", ("mean", "last", "sum"), ("molecule", "atom")
        )
        return dataclasses.replace(settings, conformers=1, geometry="flat")

    def layers(self, settings: EmbedSettings) -> list[int]:
        """See `embedder.Embedder`."""
        return numbered_layers(settings.layer, self.model.options.depth)

    def stamp(self, batching: Batching) -> dict[str, Any]:
        """See `embedder.Embedder`."""
        return {
            "options": repr(self.model.options),
            "vocabulary": self.model.vocabulary.to_json(),
            "places of a batch": _places(batching),
        }

    def read_rows(
        self, source: MoleculeInput, settings: EmbedSettings, reading: Reading
    ) -> Rows:
        """See `embedder.Embedder`."""
        size = _PART_ROWS[settings.level]
        if settings.layer == "all":
            size //= 8
        return conformed_parts(source, settings, reading, size)

    def make_work(
        self, settings: EmbedSettings, batching: Batching, columns: Sequence[str] = ()
    ) -> Callable[[Sequence[InputRow]], Part]:
        """See `embedder.Embedder`."""
        options, level = self.model.options, settings.level
        params = self.model.params
        if batching.mesh is not None:
            params = jax.device_put(params, replicated(batching.mesh))
        asked = settings.layer, settings.pool if level == "molecule" else "every"
        program = functools.partial(read_states, options, asked, params)
        shape: tuple[int, ...] = (options.width,)
        if settings.layer == "all":
            shape = (options.depth + 1, options.width)

        def work(rows: Sequence[InputRow]) -> Part:
            read = [self._read(row, level) for row in rows]
            rows = [marked(row, why) for row, (_, why) in zip(rows, read, strict=True)]
            values: list[np.ndarray | None] = [None] * len(rows)
            asked = {place: one for place, (one, _) in enumerate(read) if one}
            lengths = {place: len(one.ids) for place, one in asked.items()}
            for batch in _batches(options, lengths, batching):
                found_B = _run(program, [asked[i].ids for i in batch.members], batch)
                for place, found in zip(batch.members, found_B, strict=False):
                    atoms = asked[place].atoms
                    values[place] = found if atoms is None else found[atoms]
            counted = [value is not None for value in values]
            part = row_fields(rows, columns)
            part["conformers"] = np.zeros(len(rows), np.int32)
            part |= value_fields(rows, values, level, shape)
            return part | place_fields(rows, counted, level)

        return work

    def _read(self, row: InputRow, level: str) -> tuple[_Tokens | None, str]:
        """What the network reads of a row, or why it reads nothing."""
        record, vocabulary = row.record, self.model.vocabulary
        if record.status == "failed":
            return None, record.reason
        if not record.smiles:
            return None, "its bonds are unknown, so it has no SMILES"
        atoms = None
        try:
            symbols = prompts.encode(record.smiles, self.model.notation)
            pieces = [vocabulary.encode([symbol]) for symbol in symbols]
            if level == "atom":
                places = heavy_places(record.smiles, symbols, self.model.notation)
                # The last piece of a symbol has seen all of it; place 0 is the begin.
                ends = np.cumsum([len(piece) for piece in pieces])
                atoms = ends[places]
        except ValueError as error:
            return None, str(error)
        for symbol, piece in zip(symbols, pieces, strict=True):
            if vocabulary.unk in piece:
                return None, f"the symbol {symbol} is not in the model's vocabulary"
        ids = np.concatenate([[vocabulary.begin], *pieces]).astype(np.int32)
        if len(ids) > self.model.options.positions:
            return None, (
                f"{len(ids)} tokens; the model has {self.model.options.positions} "
                "positions"
            )
        return _Tokens(ids, atoms), ""


class _Batch(NamedTuple):
    members: Sequence[int]
    rows: int
    length: int
    batching: Batching


def _places(batching: Batching) -> int:
    on_cpu = jax.default_backend() == "cpu"
    return batching.places or (CPU_PLACES if on_cpu else ACCELERATOR_PLACES)


def _batches(
    options: GptOptions, lengths: Mapping[int, int], batching: Batching
) -> Iterator[_Batch]:
    """Molecules of about one length side by side, in few shapes."""
    rooms: dict[int, list[int]] = {}
    for place, length in lengths.items():
        rooms.setdefault(padded_length(options, length), []).append(place)
    for L, members in sorted(rooms.items()):
        # A power of two, so that few sizes are compiled.
        most = rows_bucket(max(1, _places(batching) // L // 2) + 1, batching.mesh)
        rows = min(most, rows_bucket(len(members), batching.mesh))
        for first in range(0, len(members), rows):
            yield _Batch(members[first : first + rows], rows, L, batching)


def _run(
    program: Callable[..., Array], sequences: Sequence[np.ndarray], batch: _Batch
) -> np.ndarray:
    """What a program gives for some sequences of ids, and for rows of padding."""
    tokens_BL = np.zeros((batch.rows, batch.length), np.int32)
    length_B = np.zeros(batch.rows, np.int32)
    for row, ids in enumerate(sequences):
        tokens_BL[row, : len(ids)] = ids
        length_B[row] = len(ids)
    placed = tokens_BL, length_B
    if batch.batching.mesh is not None:
        placed = jax.device_put(placed, row_sharding(batch.batching.mesh))
    # Else an accelerator rounds factors of products to fewer digits.
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.device_get(program(*placed)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def read_states(
    options: GptOptions,
    asked: tuple[int | str, str],
    params: Params,
    tokens_BL: Array,
    length_B: Array,
) -> Array:
    """States of a network, pooled over the symbols of each row, float32.

    Args:
        options: of the network.
        asked: the layer, see `EmbedSettings`, and "mean", "sum" or "last"; "every"
            for the states of all tokens.
        params: of the network.
        tokens_BL: ids; the first of a row begins it and counts for nothing.
        length_B: of each row; what follows is padding.

    Returns:
        (B, D) or (B, L, D); with all layers (B, layers, D) or (B, L, layers, D).
    """
    layer, pool = asked
    B, L = tokens_BL.shape
    place_BL = jnp.broadcast_to(jnp.arange(L)[None], (B, L))
    segment_BL = (place_BL < length_B[:, None]).astype(jnp.int32)
    symbol_BL1 = ((place_BL > 0) & (segment_BL > 0))[..., None]

    def read(x_BLD: Array) -> Array:
        x_BLD = x_BLD.astype(jnp.float32)
        if pool == "every":
            return x_BLD
        if pool == "last":
            last_B11 = jnp.maximum(length_B - 1, 0)[:, None, None]
            return jnp.take_along_axis(x_BLD, last_B11, axis=1)[:, 0]
        sum_BD = jnp.sum(jnp.where(symbol_BL1, x_BLD, 0), axis=1)
        if pool == "sum":
            return sum_BD
        return sum_BD / jnp.maximum(length_B - 1, 1)[:, None].astype(sum_BD.dtype)

    row = tokens_BL, segment_BL, place_BL
    if layer == "all":
        found = gpt.read_layers(options, params, *row, read)
        return jnp.moveaxis(found, 0, -2)
    (number,) = numbered_layers(layer, options.depth)
    return read(gpt.hidden(options, params, *row, layer=number))


def open_run(
    place: str, origin: Mapping[str, Any], changes: Mapping[str, Any]
) -> LanguageEmbedder:
    """A language model for `embedder.open_embedder`.

    Args:
        place: see `open_language_model`; "chemgpt" for the packaged one.
        origin: see `embedder.Embedder`.
        changes: fields of `GptOptions` to set otherwise.
    """
    path = None if place == "chemgpt" else place
    model = open_language_model(path, origin["step"])
    # Products in bfloat16 would make results depend on the size of the batch.
    kept = {"dtype": "float32", "remat": "none", **changes}
    model = model._replace(options=dataclasses.replace(model.options, **kept))
    if (seed := origin["untrained"]) is not None:
        fresh = gpt.init(model.options, jax.random.key(seed))["params"]
        model = model._replace(params=fresh)
    told = {**origin, "task": TASK}
    return LanguageEmbedder(
        model, told | ({"changes": dict(changes)} if changes else {})
    )
