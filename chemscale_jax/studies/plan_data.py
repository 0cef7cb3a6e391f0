"""What a plan needs to know of the data of a run, with the data or without them.

The files of a study may be on another machine. Then the data of the package stand in
for them: they give the shapes of batches, and the sizes that the config states give
their number. Frames and molecules of the package are smaller or larger than others, so
such a plan is marked.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Epoch, Stream
from chemscale_jax.core.types import Batch, Config
from chemscale_jax.data import STREAMS
from chemscale_jax.data.frames.splits import VALID_CAP
from chemscale_jax.data.packs import graphs
from chemscale_jax.data.packs.stream import GraphStream

# Records of the package that are looked at where others are not at hand.
_FRAMES, _CORPUS, _CONFORMERS = 2000, 2000, 64
# Rows of a batch of those; a batch of more rows has the same shapes but for their axis.
_ROWS = 8
# Batches that are made to see how often each shape occurs.
_LOOKED_AT = 32


class Sizes(NamedTuple):
    """Of a training set; None where a unit makes no sense or is not known."""

    molecules: int | None = None
    frames: int | None = None
    tokens: int | None = None


class Data(NamedTuple):
    """Batches of a run, as far as their cost goes."""

    specs: tuple[Batch, ...]  # all kinds of batches
    shares: tuple[float, ...]  # of the training steps, one for each
    artifacts: Mapping[str, Any]  # of the stream
    sizes: Sizes
    batch: float  # examples of a step, on average
    steps_per_epoch: int
    eval_steps: int  # of all sets that are watched, per epoch
    stand_in: bool  # the data of the package in place of the config's


def key_of(config: Config) -> str:
    """Equal for configs whose streams differ in nothing that matters here."""
    kept = {
        "data": config.data.to_dict(),
        "batch": config.batch.to_dict(),
        "cutoff": config.model.get("cutoff_ang"),
        "init": config.init_from,
        "watch": list(config.train.watch),
    }
    return json.dumps(kept, sort_keys=True, default=str)


def look_at(config: Config) -> Data:
    """Opens the data of a run, or what stands in for them.

    Args:
        config: the whole config.

    Raises:
        UserError: the data are not at hand, and the config does not say how many
            there are.
    """
    absent = _absent(config)
    stand_in = _stand_in(config) if absent else config
    stream: Stream = STREAMS[config.data.stream](stand_in, 0, 1)
    epoch = stream.train_epoch(0)
    shares = _shares(stream, epoch)
    watched = [
        name for name in stream.evals if name == "valid" or name in config.train.watch
    ]
    sizes = _sizes(stream.artifacts)
    # Of labelled molecules no config says how many there are, and few of them differ
    # in cost from others: the package's own are taken as they are.
    if not absent or config.data.stream == "properties":
        passes = config.data.passes if config.data.stream == "graphs" else 1
        examples = (sizes.frames or sizes.molecules or 0) * passes
        return Data(
            specs=stream.batch_specs,
            shares=shares,
            artifacts=stream.artifacts,
            sizes=sizes,
            batch=_batch(config, examples / len(epoch)),
            steps_per_epoch=len(epoch),
            eval_steps=sum(len(stream.evals[name]) for name in watched),
            stand_in=absent,
        )
    grown = config.batch.rows / stand_in.batch.rows
    found = _examples(config, stream)
    per_step = found.seen / len(epoch) * grown
    if config.data.stream == "tokens" and config.batch.form == "cut":
        per_step = float(config.batch.rows * config.batch.length)  # no place is empty
    if config.data.stream == "graphs" and config.batch.exact_molecules:
        per_step = float(config.batch.exact_molecules)
    passes = config.data.passes if config.data.stream == "graphs" else 1
    return Data(
        specs=tuple(_with_rows(spec, grown) for spec in _specs(config, stream)),
        shares=shares,
        artifacts=stream.artifacts,
        sizes=found.sizes,
        batch=_batch(config, per_step),
        steps_per_epoch=math.ceil(found.train * passes / per_step),
        eval_steps=math.ceil(found.valid / per_step),
        stand_in=True,
    )


def _specs(config: Config, stream: Stream) -> tuple[Batch, ...]:
    """Kinds of batches; packs have the room that the config gives them."""
    if not isinstance(stream, GraphStream):
        return stream.batch_specs
    given = {
        name: config.batch[name] for name in ("nodes", "edges") if config.batch[name]
    }
    budget = stream.budget._replace(**given)
    return (graphs.pack_spec(stream.rows, budget, stream.source.periodic),)


class _Examples(NamedTuple):
    """In the unit that fills batches: frames, molecules, or rows of one text."""

    seen: float  # of the package, in an epoch
    train: float  # as the config states
    valid: float
    sizes: Sizes


def _examples(config: Config, stream: Stream) -> _Examples:
    data, facts = config.data, stream.artifacts
    kind = data.stream
    if kind == "graphs":
        train = data.train_size or data.max_frames
        found = _Examples(
            facts["split"]["train"],
            train,
            data.valid_size or VALID_CAP,
            Sizes(frames=train or None),
        )
    elif kind == "tokens":
        own = facts["training_set"]
        mean = own["tokens"] / own["molecules"]
        # Tokens are what fills rows, however they are cut or packed.
        tokens = data.train_tokens or data.train_rows * config.batch.length
        tokens = tokens or round(data.train_molecules * mean)
        found = _Examples(
            own["tokens"],
            tokens,
            data.valid_molecules_max * mean,
            Sizes(tokens=tokens or None, molecules=data.train_molecules or None),
        )
    else:
        molecules = data.train_molecules or data.epoch_molecules
        found = _Examples(
            facts["training_set"]["molecules"],
            data.epoch_molecules or molecules,
            data.valid_molecules_max,
            Sizes(molecules=molecules or None),
        )
    if not found.train:
        raise UserError(
            f"the data of {config.name} are not here ({data.path or 'no path given'}), "
            "and the config does not say how many to train on; give --config.data.path "
            "or the size"
        )
    return found


def _absent(config: Config) -> bool:
    if config.data.path:
        return not pathlib.Path(config.data.path).exists()
    return config.data.source != "embedded"


def _stand_in(config: Config) -> Config:
    """The config with the data of the package, few of them."""
    own = config.copy_and_resolve_references()
    own.data.path, own.data.source = "", "embedded"
    own.batch.workers = 0
    if own.data.stream == "graphs":
        own.data.test_path, own.data.split, own.data.heldout = "", "frames", "none"
        own.data.train_size = own.data.valid_size = 0
        own.data.max_frames, own.data.label_check = _FRAMES, "off"
        own.batch.nodes = own.batch.edges = 0
        own.data.passes = 1
        return own
    own.data.train_molecules = 0
    if own.data.stream == "properties":
        own.data.update(_labelled())
        own.batch.buckets = ()  # those of the config may be too small for drugs
        return own
    if own.data.stream == "tokens":
        own.data.embedded_molecules = _CORPUS
        own.data.train_tokens = own.data.train_rows = 0
        own.batch.rows = min(own.batch.rows, _ROWS)
        return own
    own.data.embedded_molecules = _CONFORMERS
    own.data.sampling, own.data.epoch_molecules = "once", 0
    own.data.statuses = ("3d", "unconverged", "given")
    own.batch.rows = min(own.batch.rows, _ROWS)
    return own


def _labelled() -> dict[str, Any]:
    """Fields of ``config.data`` for the table of properties that the package makes."""
    # Imported when asked for: other streams need not wait for RDKit.
    from chemscale_jax.data.labels.embedded_properties import embedded_properties

    return {
        **{"source": "file", "path": str(embedded_properties()), "test_path": ""},
        **{"smiles_col": "", "targets": (), "units": (), "kind": "auto"},
        **{"geometries": "", "geometry": "flat", "conformers": 1, "max_rows": 0},
        **{"split": "random", "split_col": "", "split_file": "", "folds": 0},
    }


def _with_rows(spec: Batch, grown: float) -> Batch:
    """The spec of a batch with more rows."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (round(x.shape[0] * grown), *x.shape[1:]), x.dtype
        ),
        spec,
    )


def _shares(stream: Stream, epoch: Epoch) -> tuple[float, ...]:
    """How often each kind of batch occurs, from some of them."""
    specs = stream.batch_specs
    if len(specs) == 1:
        return (1.0,)
    shapes = [jax.tree.map(lambda x: x.shape, spec) for spec in specs]
    counts = [0] * len(specs)
    step = max(1, len(epoch) // _LOOKED_AT)
    for index in range(0, len(epoch), step):
        counts[shapes.index(jax.tree.map(lambda x: x.shape, epoch[index]))] += 1
    return tuple(count / sum(counts) for count in counts)


def _sizes(artifacts: Mapping[str, Any]) -> Sizes:
    if "training_set" not in artifacts:
        return Sizes(frames=artifacts["split"]["train"])
    own = artifacts["training_set"]
    return Sizes(molecules=own["molecules"], tokens=own.get("tokens"))


def _batch(config: Config, mean: float) -> float:
    """Rows of text where every batch has as many, else frames or molecules."""
    if config.data.stream == "graphs" and config.batch.exact_molecules:
        return float(config.batch.exact_molecules)
    if config.data.stream == "tokens" and config.batch.form != "bucketed":
        return float(config.batch.rows)
    return round(mean, 2)
