"""Embeddings of molecules and atoms from the last features of a force field.

Taken are the scalars, which no rotation changes. Geometries are conformers with
hydrogens: molecules are pooled over all atoms, at the level of atoms the heavy ones are
given. Where there are several conformers, values are means over them.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from chemscale_jax.chem import neighbors
from chemscale_jax.chem.conformers import ConformerSettings
from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Params
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data.frames.source import Record
from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.data.inputs.whole_rows import WholeRow, whole_rows
from chemscale_jax.data.packs.graphs import empty_pack, fill_row
from chemscale_jax.data.packs.neighbor_table import Pairs
from chemscale_jax.data.packs.packing import PackBudget
from chemscale_jax.inference.embed_settings import (
    EmbedSettings,
    numbered_layers,
    pooled,
)
from chemscale_jax.inference.embedding_parts import (
    place_fields,
    row_fields,
    value_fields,
)
from chemscale_jax.inference.ensemble import PACKAGED
from chemscale_jax.inference.force_field import ForceField, open_force_field
from chemscale_jax.inference.molecule_batches import Averages, Batching
from chemscale_jax.inference.result_parts import Part, Reading, Rows
from chemscale_jax.models.energy import EnergyModel
from chemscale_jax.tasks import force_field as task

# Atoms of a batch, and room for edges and pairs in its arrays for each of them.
CPU_PLACES, ACCELERATOR_PLACES = 1024, 2**14
_EDGES, _PAIRS = 32, 64
_LEAST_PLACES = 64
_SCALARS = e3nn.Irreps("0e")
_PART_ROWS = {"molecule": 1024, "atom": 512}


class _Graph(NamedTuple):
    """One conformer of the molecule of a row, and its neighbours."""

    place: int
    record: Record
    edges: Pairs
    pairs: Pairs | None

    @property
    def places(self) -> int:
        """Atoms, or more where it has so many edges or pairs."""
        edges = math.ceil(len(self.edges.receivers_E) / _EDGES)
        pairs = 0
        if self.pairs is not None:
            pairs = math.ceil(len(self.pairs.receivers_E) / _PAIRS)
        return max(len(self.record.species), edges, pairs)


@dataclasses.dataclass(frozen=True)
class ForceFieldEmbedder:
    """A force field as an `embedder.Embedder`."""

    field: ForceField
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Name of the network."""
        return self.field.model.name

    @property
    def weights(self) -> Params:
        """All parameters, and constants."""
        return {"params": self.field.params, "constants": self.field.constants}

    def settled(self, settings: EmbedSettings) -> EmbedSettings:
        """See `embedder.Embedder`."""
        self.layers(settings)
        if settings.geometry == "flat":
            raise UserError(
                "geometry is 'flat': a force field has no use for drawings; leave it "
                "out"
            )
        settings = pooled(
            settings, "a force field", ("mean", "sum"), ("molecule", "atom")
        )
        return dataclasses.replace(settings, geometry="conformers")

    def layers(self, settings: EmbedSettings) -> list[int]:
        """See `embedder.Embedder`; the last one only."""
        depth = self.field.config.model.depth
        found = numbered_layers(settings.layer, depth)
        if found != [depth]:
            raise UserError(
                f"layer is {settings.layer!r}: a force field gives the features of its "
                "last layer; leave layer out"
            )
        return found

    def stamp(self, batching: Batching) -> dict[str, Any]:
        """See `embedder.Embedder`."""
        return {
            "network": self.field.config.model.to_dict(),
            "places of a batch": _places(batching),
        }

    def read_rows(
        self, source: MoleculeInput, settings: EmbedSettings, reading: Reading
    ) -> Rows:
        """See `embedder.Embedder`."""
        making = ConformerSettings(count=settings.conformers, seed=settings.seed)

        def read(start: int) -> Iterator[WholeRow]:
            return whole_rows(
                source.unread_rows(start),
                making,
                elements=tuple(self.field.artifacts["reference_energies_ev"]),
                workers=reading.workers,
                cache=reading.cache,
            )

        total = len(source) if reading.progress else None
        size = _PART_ROWS[settings.level]
        return Rows(read, total, size, "embed", reading.progress)

    def make_work(
        self, settings: EmbedSettings, batching: Batching, columns: Sequence[str] = ()
    ) -> Callable[[Sequence[WholeRow]], Part]:
        """See `embedder.Embedder`."""
        field, level = self.field, settings.level
        program = functools.partial(
            jax.jit(functools.partial(scalars, field.model)),
            field.params,
            field.constants,
        )
        width = field.model.feature_irreps.filter(keep=_SCALARS).dim

        def work(rows: Sequence[WholeRow]) -> Part:
            graphs = [
                graph
                for place, row in enumerate(rows)
                for graph in _graphs(place, row, field.model)
            ]
            averages = Averages()
            for graph, scalar_NF in _shown(program, graphs, _places(batching)):
                whole = rows[graph.place].whole
                assert whole is not None
                if level == "atom":
                    values = scalar_NF[whole.heavy]
                else:
                    values = scalar_NF.sum(axis=0, dtype=np.float64)
                    if settings.pool == "mean":
                        values = values / len(scalar_NF)
                averages.add(graph.place, values)
            counts = [averages.count(place) for place in range(len(rows))]
            part = row_fields(rows, columns)
            part["conformers"] = np.array(counts, np.int32)
            for name, of in (("values", averages.mean), ("std", averages.std)):
                found = [of(i) if count else None for i, count in enumerate(counts)]
                part |= value_fields(rows, found, level, (width,), name)
            return part | place_fields(rows, [count > 0 for count in counts], level)

        return work


def scalars(
    model: EnergyModel, params: Params, constants: Params, pack: GraphPack
) -> Array:
    """The last features of each atom that no rotation or reflection changes, (N, F)."""
    features = model.features(params, constants, pack)
    return features.filter(keep=_SCALARS).array.astype(jnp.float32)


def _graphs(place: int, row: WholeRow, model: EnergyModel) -> Iterator[_Graph]:
    """All conformers of a row."""
    if row.whole is None:
        return
    whole, N = row.whole, len(row.whole.numbers_N)
    for xyz_N3 in whole.positions_KN3:
        # Distances lose digits far from the origin.
        centred_N3 = xyz_N3 - xyz_N3.mean(0, keepdims=True)
        record = Record(
            species=whole.numbers_N,
            positions=centred_N3,
            energy=0.0,
            forces=np.zeros((N, 3), np.float32),
            energy_mask=False,
            forces_mask=False,
            charge=float(whole.charge),
            spin=float(whole.unpaired),
            cell=None,
            id=row.where,
        )
        pairs = None
        if model.pair_cutoff_ang is not None:
            pairs = _within(centred_N3, model.pair_cutoff_ang)
        yield _Graph(place, record, _within(centred_N3, model.cutoff_ang), pairs)


def _within(positions_N3: np.ndarray, cutoff_ang: float) -> Pairs:
    if math.isinf(cutoff_ang):
        return Pairs(*neighbors.all_pairs(len(positions_N3)), None)
    found = neighbors.radius_pairs(positions_N3[None], cutoff_ang)
    return Pairs(found.receivers_E, found.senders_E, None)


def _places(batching: Batching) -> int:
    on_cpu = jax.default_backend() == "cpu"
    return batching.places or (CPU_PLACES if on_cpu else ACCELERATOR_PLACES)


def _shown(
    program: Callable[[GraphPack], Array], graphs: Sequence[_Graph], places: int
) -> Iterator[tuple[_Graph, np.ndarray]]:
    """What a program makes of the atoms of each graph, (N, F), smallest first."""
    batch: list[_Graph] = []
    used = 0
    for graph in sorted(graphs, key=lambda graph: graph.places):
        if batch and used + graph.places >= places:
            yield from _run(program, batch, used)
            batch, used = [], 0
        batch.append(graph)
        used += graph.places
    if batch:
        yield from _run(program, batch, used)


def _run(
    program: Callable[[GraphPack], Array], batch: Sequence[_Graph], used: int
) -> Iterator[tuple[_Graph, np.ndarray]]:
    # A power of two, so that few sizes are compiled; one place is padding.
    size = max(_LEAST_PLACES, 2 ** math.ceil(math.log2(used + 1)))
    has_pairs = batch[0].pairs is not None
    budget = PackBudget(
        nodes=size,
        edges=_EDGES * size,
        molecules=size,
        pairs=_PAIRS * size if has_pairs else 0,
    )
    rows = empty_pack(1, budget)
    fill_row(
        rows,
        0,
        [graph.record for graph in batch],
        [graph.edges for graph in batch],
        np.zeros(len(batch)),
        [graph.pairs for graph in batch if graph.pairs is not None] or None,
    )
    pack = jax.tree.map(lambda leaf: leaf[0], rows)
    # Else an accelerator rounds factors of products to fewer digits.
    with jax.default_matmul_precision("highest"):
        scalar_NF = np.asarray(jax.device_get(program(jax.device_put(pack))))
    start = 0
    for graph in batch:
        stop = start + len(graph.record.species)
        yield graph, scalar_NF[start:stop]
        start = stop


def open_run(
    place: str, origin: Mapping[str, Any], changes: Mapping[str, Any]
) -> ForceFieldEmbedder:
    """A force field for `embedder.open_embedder`.

    Args:
        place: workdir of a run; "force_field" for the packaged one.
        origin: see `embedder.Embedder`.
        changes: fields of the network to set otherwise.
    """
    folder = PACKAGED if place == "force_field" else pathlib.Path(place)
    field = open_force_field(Workdir(folder), origin["step"])
    fields = field.config.to_dict()
    # Else results would depend on what else is in the batch.
    kept = {"dtype": "float32", "attention_maximum": "molecule", **changes}
    network = {name: x for name, x in kept.items() if name in fields["model"]}
    config = ConfigDict({**fields, "model": {**fields["model"], **network}})
    field = field._replace(
        model=task.make_model(config, field.artifacts), config=config
    )
    if (seed := origin["untrained"]) is not None:
        fresh = field.model.init(jax.random.key(seed))
        field = field._replace(params=fresh["params"])
    told = {**origin, "task": "force_field"}
    return ForceFieldEmbedder(
        field, told | ({"changes": dict(changes)} if changes else {})
    )
