"""Embeddings of molecules, atoms and pairs of atoms, from any layer of Uni-Mol2.

Molecules are read into a canonical form, so that each way to write one gives the same.
Where there are several conformers, values are means over them, and standard deviations
say how far they differ.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.chem.conformers import ConformerSettings
from chemscale_jax.core.batches import MoleculeRows
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.saved_arrays import SavedArrays
from chemscale_jax.core.types import Array, Params
from chemscale_jax.data.conformed_rows import GEOMETRIES, conformed
from chemscale_jax.data.molecule_input import InputRow, MoleculeInput
from chemscale_jax.inference import molecule_batches as batches
from chemscale_jax.inference import result_parts
from chemscale_jax.inference.molecule_batches import BY_DEVICE, Batching
from chemscale_jax.inference.molecule_model import MoleculeModel
from chemscale_jax.inference.result_parts import Part, Rows, texts
from chemscale_jax.inference.result_table import INPUT
from chemscale_jax.models import unimol2
from chemscale_jax.models.unimol2_options import Unimol2Options
from chemscale_jax.models.unimol2_states import read_layers

LEVELS = ("molecule", "atom", "pair")
POOLS = ("cls", "mean", "sum")
FEATURES = ("auto", "keep", "drop")
# Rows of a part, which is held in memory, by level.
_PART_ROWS = {"molecule": 2048, "atom": 512, "pair": 64}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """What to read from the network.

    Attributes:
        layer: 0 for the normed embeddings, up to the depth for the last layer; -1 for
            the last, -2 for the one before; "all" for each one from 0 on.
        level: "molecule", "atom" or "pair" (all ordered pairs of atoms, each atom
            with itself too; the virtual atom is left out of both).
        pool: of molecules: "cls", the virtual atom, as the published tools take it;
            "mean" or "sum" over the real ones.
        conformers: of each molecule whose coordinates are not taken from the input.
        seed: of the conformers.
        geometry: "given" (where the input has any, else conformers), "conformers" of
            all molecules, or "flat" for drawings, which take no time to make.
        features: of atoms and bonds: "keep", "drop" (withheld), or "auto": as the
            network was finetuned, kept where it was not.

    Raises:
        UserError: a value is unknown.
    """

    layer: int | str = -1
    level: str = "molecule"
    pool: str = "cls"
    conformers: int = 1
    seed: int = 0
    geometry: str = "given"
    features: str = "auto"

    def __post_init__(self):
        choices = {
            "level": LEVELS,
            "pool": POOLS,
            "geometry": tuple(GEOMETRIES),
            "features": FEATURES,
        }
        for name, allowed in choices.items():
            if (found := getattr(self, name)) not in allowed:
                raise UserError(f"{name} is {found!r}, expected one of {allowed}")
        if self.level != "molecule" and self.pool != "cls":
            raise UserError(
                f"pool={self.pool!r} is for level='molecule': leave it out for "
                f"level={self.level!r}"
            )


LAST_LAYER = EmbedSettings()


@dataclasses.dataclass(frozen=True)
class Embeddings(SavedArrays):
    """Embeddings of M rows of input; V values of width D, of L layers if all are asked.

    At the level of molecules V is M, and rows that failed are NaN. At the levels of
    atoms and pairs V counts those of all molecules, one molecule after another, and
    failed ones have none.
    """

    index: np.ndarray  # (M,) int64, row of the input, the first being 0
    where: np.ndarray  # (M,) str, such as "mols.csv line 7"
    smiles: np.ndarray  # (M,) str, canonical; atoms stand in its order
    status: np.ndarray  # (M,) str, one of `chem.molecule_record.STATUSES`
    reason: np.ndarray  # (M,) str
    atoms: np.ndarray  # (M,) int32, heavy atoms
    conformers: np.ndarray  # (M,) int32, geometries that were averaged
    layers: np.ndarray  # (L,) int32
    values: np.ndarray  # (V, D) or (V, L, D) float32
    # Over conformers; left out where no molecule has several.
    std: np.ndarray | None = None  # like values
    # Of atoms and pairs: the row of their molecule, as in index, and their places.
    molecule: np.ndarray | None = None  # (V,) int64
    first: np.ndarray | None = None  # (V,) int32
    second: np.ndarray | None = None  # (V,) int32, of pairs
    species: np.ndarray | None = None  # (V,) uint8, atomic number of the first
    positions: np.ndarray | None = None  # (V, 3) angstrom, of atoms; first conformer

    def __len__(self) -> int:
        return len(self.index)

    def of(self, row: int) -> np.ndarray:
        """Values of one row of the input: (D,), (N, D) or (N, N, D); (.., L, D)."""
        if self.molecule is None:
            return self.values[row]
        start, stop = np.searchsorted(self.molecule, [row, row + 1])
        found = self.values[start:stop]
        if self.second is None:
            return found
        N = round(len(found) ** 0.5)
        return found.reshape(N, N, *found.shape[1:])


def embed(
    model: MoleculeModel,
    source: MoleculeInput,
    settings: EmbedSettings = LAST_LAYER,
    *,
    batching: Batching = BY_DEVICE,
    workers: int | None = None,
    cache: str | os.PathLike | None = "",
    progress: bool = False,
) -> Embeddings:
    """Embeddings of all rows, in their order, in memory.

    Args:
        model: the network.
        source: from `open_input`.
        settings: what to read.
        batching: how molecules share batches; features are those of the settings.
        workers: processes that make conformers; default one for each core.
        cache: file of finished conformers; "": that of the package; None: none.
        progress: whether there is a bar.

    Raises:
        UserError: there is no such layer, or no row.
    """
    rows = read_rows(source, settings, workers, cache, progress)
    work = make_work(model, settings, batching)
    return gather(result_parts.compute_parts(rows, work), model, settings)


def read_rows(
    source: MoleculeInput,
    settings: EmbedSettings,
    workers: int | None,
    cache: str | os.PathLike | None,
    progress: bool,
) -> Rows:
    """The rows of a source, with conformers."""
    making = ConformerSettings(count=settings.conformers, seed=settings.seed)

    def read(start: int) -> Iterator[InputRow]:
        return conformed(
            source.unread_rows(start),
            making,
            geometry=settings.geometry,
            workers=workers,
            cache=cache,
            progress=False,
        )

    total = len(source) if progress else None
    size = _PART_ROWS[settings.level]
    if settings.level == "molecule" and settings.layer != "all":
        size = batches.part_rows(size)
    return Rows(read, total, size, "embed", progress)


def layers_of(options: Unimol2Options, layer: int | str) -> list[int]:
    """Numbers of the layers that a setting asks for.

    Raises:
        UserError: there is none.
    """
    depth = options.depth
    if layer == "all":
        return list(range(depth + 1))
    number = layer + depth + 1 if isinstance(layer, int) and layer < 0 else layer
    if not isinstance(number, int) or not 0 <= number <= depth:
        raise UserError(
            f"layer is {layer!r}: this network has {depth}; give 0 to {depth}, "
            f"-{depth + 1} to -1, or 'all'"
        )
    return [number]


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
        (number,) = layers_of(options, layer)
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


def make_work(
    model: MoleculeModel,
    settings: EmbedSettings,
    batching: Batching,
    columns: Sequence[str] = (),
) -> Callable[[Sequence[InputRow]], Part]:
    """What `result_parts` calls: rows to a part with the fields of `Embeddings`.

    Args:
        model: the network.
        settings: what to read.
        batching: see `embed`.
        columns: of the input, to be kept; see `row_fields`.
    """
    layers_of(model.options, settings.layer)  # refuses what is not there
    reading = settings.layer, settings.level, settings.pool
    program = functools.partial(read_network, model.options, reading, model.params)
    drop = settings.features == "drop"
    if settings.features == "auto":
        drop = model.drop_features
    batching = batching._replace(drop_features=drop)
    many, options = settings.layer == "all", model.options
    width = options.pair_width if settings.level == "pair" else options.width
    shape = (options.depth + 1, width) if many else (width,)

    def work(rows: Sequence[InputRow]) -> Part:
        records = [row.record for row in rows]
        averages = batches.Averages()
        for shown in batches.show(program, records, batching):
            N = len(records[shown.place].species_N)
            values = _real(shown.arrays["values"], N, settings.level, many)
            averages.add(shown.place, values)
        part = row_fields(rows, columns)
        part["conformers"] = np.array(
            [averages.count(i) for i in range(len(rows))], np.int32
        )
        return part | _values(rows, averages, settings.level, shape)

    return work


def row_fields(rows: Sequence[InputRow], columns: Sequence[str] = ()) -> Part:
    """What is known of rows, whatever was computed of them.

    Args:
        rows: of the input.
        columns: of the input that become fields "input/NAME".
    """
    records = [row.record for row in rows]
    cells = {
        f"{INPUT}{name}": texts([row.columns.get(name, "") for row in rows])
        for name in columns
    }
    return {
        **cells,
        "index": np.array([row.index for row in rows], np.int64),
        "where": texts([row.where for row in rows]),
        "smiles": texts([record.smiles for record in records]),
        "status": texts([record.status for record in records]),
        "reason": texts([record.reason for record in records]),
        "atoms": np.array([len(record.species_N) for record in records], np.int32),
    }


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


def _values(
    rows: Sequence[InputRow],
    averages: batches.Averages,
    level: str,
    shape: tuple[int, ...],
) -> Part:
    """Values and deviations of a part, and of what they are."""
    nothing = np.full(shape, np.nan) if level == "molecule" else np.zeros((0, *shape))
    values, deviations = [], []
    molecule, first, second, species = [], [], [], []
    for place, row in enumerate(rows):
        if not averages.count(place):
            values.append(nothing)
            deviations.append(nothing)
            continue
        values.append(averages.mean(place))
        deviations.append(averages.std(place))
        N = len(row.record.species_N)
        one, two = np.divmod(np.arange(N * N), N)
        one = np.arange(N) if level == "atom" else one
        molecule.append(np.full(len(one), row.index))
        first.append(one)
        second.append(two)
        species.append(row.record.species_N[one])
    stack = np.stack if level == "molecule" else np.concatenate
    part = {
        "values": stack(values).astype(np.float32),
        "std": stack(deviations).astype(np.float32),
    }
    if level == "molecule":
        return part
    fields = {"molecule": (molecule, np.int64), "first": (first, np.int32)}
    if level == "pair":
        fields["second"] = (second, np.int32)
    fields["species"] = (species, np.uint8)
    if level == "atom":
        xyz = [row.record.positions_KN3[:1].reshape(-1, 3) for row in rows]
        part["positions"] = np.concatenate(xyz)
    for name, (lists, dtype) in fields.items():
        part[name] = np.concatenate([np.zeros(0, dtype), *lists]).astype(dtype)
    return part


def gather(
    parts: Iterator[Part], model: MoleculeModel, settings: EmbedSettings
) -> Embeddings:
    """All parts together.

    Raises:
        UserError: there is no row.
    """
    if not (found := list(parts)):
        refuse_empty()
    whole: dict[str, Any] = result_parts.joined(found)
    if whole["conformers"].max() < 2:
        whole["std"] = None
    layers = layers_of(model.options, settings.layer)
    names = {field.name for field in dataclasses.fields(Embeddings)}
    kept = {name: x for name, x in whole.items() if name in names}
    return Embeddings(layers=np.array(layers, np.int32), **kept)


def refuse_empty() -> NoReturn:
    """Refuses an input without a row."""
    raise UserError("the input has no row, so there is nothing to do")
