"""Maps of a model beside its controls: embeds one table in each, then draws.

The folder holds embeddings/NAME.npz of each space, and what `analysis.map_files`
writes. The same call goes on where it was.
"""

import json
import pathlib

from chemscale_jax.analysis.maps.embedding_maps import MapSettings
from chemscale_jax.analysis.maps.files import WrittenMaps, write_maps
from chemscale_jax.analysis.maps.mapped_molecules import read_molecules
from chemscale_jax.analysis.maps.study import StudySettings
from chemscale_jax.core import processes
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import write_json
from chemscale_jax.data import cache
from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.data.labels.embedded_properties import embedded_properties
from chemscale_jax.inference import embedder
from chemscale_jax.inference.embed_files import write_embeddings
from chemscale_jax.inference.embed_settings import EmbedSettings
from chemscale_jax.inference.molecule_batches import BY_DEVICE

TASK = "maps"
TRAINED, UNTRAINED, MORGAN = "trained", "untrained", embedder.MORGAN
CONTROLS = (UNTRAINED, MORGAN)


def run_maps(config: Config, workers: int | None = None) -> WrittenMaps:
    """Embeds what is missing, then writes maps and report.

    Args:
        config: such as configs/maps.py.
        workers: processes that make conformers and draw structures; default all.

    Raises:
        UserError: the config asks for what is not there.
    """
    if config.task != TASK:
        raise UserError(
            f"config {config.name!r} is for the task {config.task!r}; for maps take "
            "configs/maps.py"
        )
    if unknown := set(config.embed.controls) - set(CONTROLS):
        raise UserError(
            f"config.embed.controls has {', '.join(sorted(unknown))}: there are "
            f"{', '.join(CONTROLS)}"
        )
    folder = pathlib.Path(config.workdir).expanduser()
    source = open_input(
        config.data.path or embedded_properties(), smiles_col=config.data.smiles_col
    )
    processes.start(cache.cache_folder() / "xla")
    names = [TRAINED, *config.embed.controls]
    paths = [_embedded(config, source, name, folder, workers) for name in names]
    asked = config.map
    molecules = read_molecules(
        paths, names=names, most=asked.max_points, seed=config.seed
    )
    return write_maps(
        molecules,
        folder,
        color=asked.color,
        settings=MapSettings(
            method=asked.method,
            scale=asked.scale,
            components=asked.components,
            perplexity=asked.perplexity,
            neighbors=asked.umap_neighbors,
            seed=config.seed,
        ),
        study=StudySettings(
            neighbors=asked.neighbors,
            least_members=asked.least_members,
            seed=config.seed,
            replicates=asked.replicates,
            permutations=asked.permutations,
        ),
        processes=workers,
    )


def _embedded(
    config: Config,
    source: MoleculeInput,
    name: str,
    folder: pathlib.Path,
    workers: int | None,
) -> pathlib.Path:
    """The file of a space, made unless it is there and of the same model and input."""
    model = embedder.open_embedder(
        MORGAN if name == MORGAN else config.embed.workdir or None,
        untrained=config.seed if name == UNTRAINED else None,
    )
    settings = EmbedSettings()
    if name != MORGAN:
        settings = EmbedSettings(
            layer=config.embed.layer,
            pool=config.embed.pool,
            geometry=config.embed.geometry,
        )
    path = folder / "embeddings" / f"{name}.npz"
    stamp_path = path.with_suffix(".json")
    stamp = {
        "input": dict(source.identity),
        "settings": repr(model.settled(settings)),
        **embedder.identity(model, BY_DEVICE),
    }
    if path.exists() and stamp_path.exists():
        try:
            if json.loads(stamp_path.read_text()) == json.loads(json.dumps(stamp)):
                return path
        except json.JSONDecodeError:
            pass  # torn: made anew
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp_path.unlink(missing_ok=True)
    write_embeddings(model, source, path, settings, workers=workers)
    write_json(stamp_path, stamp)
    return path
