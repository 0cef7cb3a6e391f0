"""One interface to everything that makes vectors of molecules.

===========  =========================================  ==========================
task         model                                      values
===========  =========================================  ==========================
denoising    Uni-Mol2, pretrained or finetuned          molecules, atoms, pairs
causal_lm    ChemGPT and other language models          molecules, atoms
force_field  SchNet, PaiNN, Allegro, SpookyNet          molecules, atoms
morgan       counts of substructures, without weights   molecules
===========  =========================================  ==========================

Molecules are read into a canonical form first, so that each way to write one gives the
same numbers.
"""

import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

import chemscale_jax
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import tree_paths
from chemscale_jax.core.types import Params
from chemscale_jax.core.workdir import Workdir, read_json
from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.inference.embed_settings import EmbedSettings
from chemscale_jax.inference.molecule_batches import Batching
from chemscale_jax.inference.result_parts import Part, Reading, Rows
from chemscale_jax.interop import hf_files

# Names that stand for what comes with the package.
UNIMOL2, CHEMGPT, FORCE_FIELD, MORGAN = "unimol2", "chemgpt", "force_field", "morgan"
NAMES = (UNIMOL2, CHEMGPT, FORCE_FIELD, MORGAN)


class Embedder(Protocol):
    """What a model has to give so that everything else can be done with it."""

    @property
    def kind(self) -> str:
        """Of the model, such as "unimol2"."""
        ...

    @property
    def origin(self) -> Mapping[str, Any]:
        """What it was opened with: "workdir", "step" and "untrained"."""
        ...

    @property
    def weights(self) -> Params:
        """All that was trained; {} for a model without weights."""
        ...

    def settled(self, settings: EmbedSettings) -> EmbedSettings:
        """The settings with all choices made.

        Raises:
            UserError: the model has not what is asked for.
        """
        ...

    def layers(self, settings: EmbedSettings) -> list[int]:
        """Numbers of the layers that are asked for.

        Raises:
            UserError: there is none.
        """
        ...

    def stamp(self, batching: Batching) -> dict[str, Any]:
        """What values depend on besides weights and settings, JSON-able."""
        ...

    def read_rows(
        self, source: MoleculeInput, settings: EmbedSettings, reading: Reading
    ) -> Rows:
        """The rows of a source as `make_work` takes them."""
        ...

    def make_work(
        self, settings: EmbedSettings, batching: Batching, columns: Sequence[str] = ()
    ) -> Callable[[Sequence[Any]], Part]:
        """What makes a part with the fields of `embed.Embeddings` of some rows.

        Args:
            settings: from `settled`.
            batching: how molecules share batches.
            columns: of the input that are kept, see `embedding_parts.row_fields`.
        """
        ...


def open_embedder(
    workdir: str | pathlib.Path | None = None,
    step: int | None = None,
    *,
    untrained: int | None = None,
    **changes: Any,
) -> Embedder:
    """The model of a run, of published weights, or one of `NAMES`.

    Args:
        workdir: of a run of any task; published weights of Uni-Mol2 or of a language
            model, "hub:owner/name" too; "unimol2", "chemgpt" or "force_field" for
            what comes with the package; "morgan" for fingerprints; default "unimol2".
        step: of a checkpoint other than the best; only for a run.
        untrained: a seed: fresh parameters in place of the trained ones, as a control.
        changes: fields of the network to set otherwise, such as ``dtype``.

    Raises:
        UserError: there is no such place, or it holds nothing that gives embeddings.
    """
    place = UNIMOL2 if workdir is None else str(workdir)
    named = place in NAMES
    if not named and not place.startswith(hf_files.HUB):
        place = str(pathlib.Path(place).expanduser().absolute())
    origin = {"workdir": place, "step": step, "untrained": untrained}
    if step is not None and named:
        raise UserError(f"{place} has no checkpoints by step; leave step out")
    kind = place if named else _kind(place)
    # Each comes with libraries for which the others need not wait.
    if kind == MORGAN:
        from chemscale_jax.inference import fingerprint_embeddings

        if untrained is not None or changes:
            raise UserError("fingerprints have nothing to train: leave the rest out")
        return fingerprint_embeddings.FingerprintEmbedder(origin)
    if kind == CHEMGPT:
        from chemscale_jax.inference import language_embeddings

        return language_embeddings.open_run(place, origin, changes)
    if kind == FORCE_FIELD:
        from chemscale_jax.inference import force_field_embeddings

        return force_field_embeddings.open_run(place, origin, changes)
    from chemscale_jax.inference import molecule_embeddings

    return molecule_embeddings.open_run(place, origin, changes)


def _kind(place: str) -> str:
    """Which of `NAMES` a model is like.

    Raises:
        UserError: the place is missing, or a run of a task without embeddings.
    """
    if place.startswith(hf_files.HUB):
        folder = pathlib.Path(hf_files.local_folder(place))
    else:
        folder = pathlib.Path(place)
        if not folder.exists():
            raise UserError(
                f"{folder} does not exist; give the workdir of a run, published "
                f"weights, or one of {', '.join(NAMES)}"
            )
    if not (folder / "config.json").exists():
        return UNIMOL2  # a file of weights, or several runs
    if not Workdir(folder).artifacts_json.exists():
        published = read_json(folder / "config.json").get("model_type")
        return CHEMGPT if published == "gpt_neo" else UNIMOL2
    task = Workdir(folder).config().get("task")
    kinds = {
        "causal_lm": CHEMGPT,
        "force_field": FORCE_FIELD,
        "conformer_denoising": UNIMOL2,
        "property_regression": UNIMOL2,
    }
    if task not in kinds:
        raise UserError(
            f"workdir {folder} holds a run of task {task!r}, which has no embeddings; "
            f"those of {', '.join(kinds)} have"
        )
    return kinds[task]


def reopened(about: Mapping[str, Any]) -> tuple[Embedder, EmbedSettings]:
    """The model and settings that made embeddings, to make more of the same.

    Args:
        about: of the embeddings, see `facts`.

    Raises:
        UserError: they are not told, or the weights are others now.
    """
    if lacking := [k for k in ("workdir", "settings", "weights") if k not in about]:
        raise UserError(
            f"what made the embeddings is not known (no {', '.join(lacking)}); write "
            "them again with chemscale embed, as .npz, .parquet or .zarr"
        )
    embedder = open_embedder(
        about["workdir"],
        about.get("step"),
        untrained=about.get("untrained"),
        **about.get("changes", {}),
    )
    if weights_digest(embedder) != about["weights"]:
        raise UserError(
            f"{about['workdir']} has other weights than those that made the "
            "embeddings; write them again with chemscale embed"
        )
    return embedder, EmbedSettings(**about["settings"])


def facts(embedder: Embedder, settings: EmbedSettings) -> dict[str, Any]:
    """What made some embeddings, JSON-able; see `reopened`.

    Args:
        embedder: the model.
        settings: from its `settled`.
    """
    layers = embedder.layers(settings)
    return {
        "model": embedder.kind,
        **embedder.origin,
        "level": settings.level,
        "layer": layers[0] if settings.layer != "all" else "all",
        "pool": settings.pool,
        "settings": vars(settings),
        "version": chemscale_jax.__version__,
    }


def identity(embedder: Embedder, batching: Batching) -> dict[str, Any]:
    """What results depend on besides the molecules and settings, JSON-able."""
    return {
        "model": embedder.kind,
        "weights": weights_digest(embedder),
        **embedder.stamp(batching),
        "version": chemscale_jax.__version__,
    }


def weights_digest(embedder: Embedder) -> str:
    """A checksum of all weights, by name."""
    digest = hashlib.sha256()
    weights = embedder.weights
    for name, leaf in zip(tree_paths(weights), jax.tree.leaves(weights), strict=True):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
