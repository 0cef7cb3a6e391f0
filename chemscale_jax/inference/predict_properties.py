"""Properties of molecules, with what is known of how far off they may be.

A value is the mean over the geometries of a molecule and over the members of an
ensemble, each in the units of the data (for classes: of probabilities). Deviations say
how far geometries and members differ; intervals and sets of classes are those of the
calibration that was made after training, see `core.conformal`.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.chem.conformers import ConformerSettings
from chemscale_jax.core.batches import MoleculeRows
from chemscale_jax.core.conformal import Calibration
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.saved_arrays import SavedArrays
from chemscale_jax.core.types import Array, Params
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data.inputs.conformed_rows import conformed
from chemscale_jax.data.inputs.molecule_input import InputRow, MoleculeInput
from chemscale_jax.inference import molecule_batches as batches
from chemscale_jax.inference import result_parts
from chemscale_jax.inference.embed_settings import refuse_empty
from chemscale_jax.inference.embedding_parts import row_fields
from chemscale_jax.inference.molecule_batches import BY_DEVICE, Batching
from chemscale_jax.inference.molecule_model import (
    MoleculeModel,
    Place,
    open_molecule_models,
)
from chemscale_jax.inference.property_split import in_units
from chemscale_jax.inference.result_parts import Part, Rows
from chemscale_jax.models import unimol2
from chemscale_jax.models.unimol2_options import Unimol2Options

_PART_ROWS = 2048


class PropertyModel(NamedTuple):
    """Finetuned networks that answer together.

    Attributes:
        members: of one kind; each has a head.
        calibration: of intervals; None where there is none.
        source: where they lie.
    """

    members: tuple[MoleculeModel, ...]
    calibration: Calibration | None
    source: str

    @property
    def targets(self) -> Mapping[str, Any]:
        """Names, units, kind and classes of what is predicted."""
        return self.members[0].artifacts["targets"]

    @property
    def outputs(self) -> int:
        """P, how many numbers there are for a molecule."""
        kind, classes = self.targets["kind"], self.targets["classes"]
        return len(classes) if kind == "multiclass" else len(self.targets["names"])

    @property
    def data(self) -> Mapping[str, Any]:
        """How molecules were shown in training: ``config.data`` of the first member."""
        return self.members[0].config["data"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """How molecules are shown to the networks.

    Attributes:
        conformers: of each molecule; 0: as many as in training.
        seed: of the conformers; -1: that of training.
        geometry: "given", "conformers" or "flat"; "": as in training.
    """

    conformers: int = 0
    seed: int = -1
    geometry: str = ""


AS_TRAINED = PredictSettings()


@dataclasses.dataclass(frozen=True)
class PredictedProperties(SavedArrays):
    """Predictions of M rows of input, of P outputs; NaN for rows that failed.

    Outputs are the values of T targets (regression), their probabilities of 1
    (binary), or the probabilities of the C classes of the one target.
    """

    index: np.ndarray  # (M,) int64, row of the input, the first being 0
    where: np.ndarray  # (M,) str, such as "mols.csv line 7"
    smiles: np.ndarray  # (M,) str, canonical
    status: np.ndarray  # (M,) str, one of `chem.molecule_record.STATUSES`
    reason: np.ndarray  # (M,) str
    atoms: np.ndarray  # (M,) int32, heavy atoms
    conformers: np.ndarray  # (M,) int32, geometries that were averaged
    pred: np.ndarray  # (M, P) float64
    conformer_std: np.ndarray  # (M, P) float64; 0 for one geometry
    member_std: np.ndarray | None = None  # (M, P) float64; of several members

    def __len__(self) -> int:
        return len(self.index)


def open_property_model(
    source: Place | Sequence[Place] | None = None, **changes: Any
) -> PropertyModel:
    """The finetuned network of a run, or those of its folds and seeds.

    Args:
        source: a workdir, a folder of several (``finetune.json``, ``lanes``), or
            several of these, whose intervals are unknown.
        changes: fields of the networks' options, such as ``dtype``.

    Raises:
        UserError: a place holds no network that predicts properties.
    """
    members = tuple(open_molecule_models(source, **changes))
    for member in members:
        if member.head is None:
            raise UserError(
                f"{member.source} predicts no property, it was only pretrained; "
                "finetune it first, with chemscale finetune"
            )
    calibration, name = None, members[0].source
    if source is None or isinstance(source, str | pathlib.Path):
        name = name if source is None else str(source)
        file = Workdir(pathlib.Path(name).expanduser()).calibration_json
        if file.exists():
            calibration = Calibration.load(file)
    return PropertyModel(members, calibration, name)


def predict(
    model: PropertyModel,
    source: MoleculeInput,
    settings: PredictSettings = AS_TRAINED,
    *,
    batching: Batching = BY_DEVICE,
    workers: int | None = None,
    cache: str | os.PathLike | None = "",
    progress: bool = False,
) -> PredictedProperties:
    """Properties of all rows, in their order, in memory.

    Args:
        model: the networks.
        source: from `open_input`.
        settings: how molecules are shown.
        batching: how they share batches; features are those of training.
        workers: processes that make conformers; default one for each core.
        cache: file of finished conformers; "": that of the package; None: none.
        progress: whether there is a bar.

    Raises:
        UserError: there is no row.
    """
    rows = read_rows(model, source, settings, workers, cache, progress)
    return gathered(whole(rows, make_work(model, batching)), model)


def whole(rows: Rows, work: Callable[[Sequence[InputRow]], Part]) -> Part:
    """All parts as one.

    Raises:
        UserError: there is no row.
    """
    parts = list(result_parts.compute_parts(rows, work))
    if not parts:
        refuse_empty()
    return result_parts.joined(parts)


def gathered(part: Part, model: PropertyModel) -> PredictedProperties:
    """The fields of a part."""
    names = [field.name for field in dataclasses.fields(PredictedProperties)]
    fields: dict[str, Any] = {name: part[name] for name in names}
    if len(model.members) == 1:
        fields["member_std"] = None
    return PredictedProperties(**fields)


def read_rows(
    model: PropertyModel,
    source: MoleculeInput,
    settings: PredictSettings,
    workers: int | None,
    cache: str | os.PathLike | None,
    progress: bool,
) -> Rows:
    """The rows of a source, with geometries as the networks know them."""
    data = model.data
    making = ConformerSettings(
        count=settings.conformers or data["conformers"],
        seed=data["conformer_seed"] if settings.seed < 0 else settings.seed,
    )

    def read(start: int) -> Iterator[InputRow]:
        return conformed(
            source.unread_rows(start),
            making,
            geometry=settings.geometry or data["geometry"],
            workers=workers,
            cache=cache,
            progress=False,
        )

    total = len(source) if progress else None
    return Rows(read, total, batches.part_rows(_PART_ROWS), "predict", progress)


@functools.partial(jax.jit, static_argnums=0)
def read_head(
    options: Unimol2Options, params: Params, head: Params, rows: MoleculeRows
) -> dict[str, Array]:
    """What the head of a network gives: "outputs" (B, P), scaled values or logits."""
    encoded = unimol2.encode(options, params, rows)
    return {"outputs": unimol2.pooled(head, encoded.x_BTD).astype(jnp.float32)}


def make_work(
    model: PropertyModel, batching: Batching, columns: Sequence[str] = ()
) -> Callable[[Sequence[InputRow]], Part]:
    """What `result_parts` calls: rows to a part with fields of `PredictedProperties`.

    Args:
        model: the networks.
        batching: how molecules share batches.
        columns: of the input, to be kept; see `embedding_parts.row_fields`.
    """

    def work(rows: Sequence[InputRow]) -> Part:
        records = [row.record for row in rows]
        M, P = len(rows), model.outputs
        mean_KMP = np.full((len(model.members), M, P), np.nan)
        std_KMP = mean_KMP.copy()
        conformers = np.zeros(M, np.int32)
        for k, member in enumerate(model.members):
            program = functools.partial(
                read_head, member.options, member.params, member.head
            )
            shown_as = batching._replace(drop_features=member.drop_features)
            targets, averages = member.artifacts["targets"], batches.Averages()
            for shown in batches.show(program, records, shown_as):
                values = in_units(shown.arrays["outputs"], targets)
                averages.add(shown.place, values)
            for place in range(M):
                conformers[place] = averages.count(place)
                if conformers[place]:
                    mean_KMP[k, place] = averages.mean(place)
                    std_KMP[k, place] = averages.std(place)
        part = row_fields(rows, columns)
        part["conformers"] = conformers
        part["pred"] = mean_KMP.mean(0)
        part["conformer_std"] = np.sqrt((std_KMP**2).mean(0))
        several = len(model.members) > 1
        part["member_std"] = (
            mean_KMP.std(0, ddof=1) if several else np.full((M, P), np.nan)
        )
        return part

    return work
