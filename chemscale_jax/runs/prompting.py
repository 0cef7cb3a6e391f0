"""The prompting study: molecules of some models under many settings, and its report.

The workdir holds config.json, study.json (models, prompt molecules, what was left out),
molecules.csv (every molecule), settings.csv, report.md and plots/. The same call goes
on where it was: what is in molecules.csv is not sampled again.
"""

import dataclasses
import hashlib
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from chemscale_jax.analysis.generation import prompting_report
from chemscale_jax.analysis.generation.prompting_report import Report
from chemscale_jax.analysis.generation.prompting_rows import (
    KNOBS,
    Cell,
    Row,
    append_rows,
    read_rows,
)
from chemscale_jax.analysis.generation.set_metrics import Draws
from chemscale_jax.chem import drugs, judged_molecules, prompts
from chemscale_jax.chem.prompts import Prompt
from chemscale_jax.core import partition, processes
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import read_json, write_json
from chemscale_jax.data import cache
from chemscale_jax.data.text.molecule_text import open_text, read_lines
from chemscale_jax.inference import language_model, sample
from chemscale_jax.inference.language_model import LanguageModel
from chemscale_jax.inference.logit_filters import Filters

TASK = "prompting"
STUDY_JSON = "study.json"
MOLECULES_CSV = "molecules.csv"
# What all cells of a study have in common.
_FIXED = ("seed", "samples", "max_tokens", "molecules")


class Source(NamedTuple):
    """A molecule whose first symbols are prompts."""

    name: str
    smiles: str
    canonical: str
    weight: float  # g/mol
    passes: bool  # the filters of MOSES


def run_study(config: Config) -> Report:
    """Samples what is missing, then writes the report.

    Args:
        config: the whole config, see configs/prompting.py.

    Raises:
        UserError: a field of the config, a model or a file cannot be used, or the
            workdir holds another study.
    """
    if config.get("task") != TASK:
        raise UserError(
            f"the config is of task {config.get('task')!r}, a prompting study needs "
            f"{TASK!r}; give configs/prompting.py"
        )
    if not config.workdir:
        raise UserError("a prompting study has no workdir; give --workdir=DIR")
    settings = make_settings(config)
    processes.start(cache.cache_folder() / "xla")
    models = open_models(config.models)
    sources, left_out = read_sources(config, models)
    facts = _facts(config, models, sources, left_out)
    folder = pathlib.Path(config.workdir)
    _claim(folder, config, facts)
    sizes = {
        f"{knob} {value}": len(sources) * one.samples
        for (knob, value), one in settings.items()
    }
    path = folder / MOLECULES_CSV
    known = read_rows(path, sizes)
    cells = [
        Cell(model, knob, value, length)
        for model in models
        for knob, value in settings
        for length in config.prompts.lengths
    ]
    mesh = partition.make_mesh() if jax.local_device_count() > 1 else None
    done = sum(sizes[cell.setting] for cell in cells if cell in known)
    with tqdm(
        total=sum(sizes[cell.setting] for cell in cells),
        initial=done,
        unit="mol",
        dynamic_ncols=True,
    ) as bar:
        for cell in cells:
            if cell in known:
                continue
            bar.set_description(f"{cell.model}, {cell.setting}, prompts {cell.length}")
            chosen = settings[cell.knob, cell.value]
            known[cell] = _sample(models, cell, sources, chosen, config.seed, mesh, bar)
            append_rows(path, known[cell])
    draws = Draws(seed=config.seed)
    shown = {cell: known[cell] for cell in cells}
    report = prompting_report.make_report(shown, facts, draws)
    prompting_report.write_report(report, shown, folder, draws)
    return report


def make_settings(config: Config) -> dict[tuple[str, str], sample.Settings]:
    """{(knob, value): how molecules are generated}, in the order of the grid.

    Raises:
        UserError: the grid is empty or a value of it cannot be used.
    """
    made = {}
    number, limit = config.sampling.samples, config.sampling.max_tokens
    if number < 1 or config.sampling.batch < 1:
        raise UserError(
            f"config.sampling has samples={number} and batch={config.sampling.batch}; "
            "both must be 1 or more"
        )
    for knob in KNOBS:
        for value in config.grid[knob]:
            common = {"max_new": limit, "batch_rows": config.sampling.batch}
            if knob == "num_beams":
                # A search of so many beams has no more molecules to give.
                one = sample.Settings(
                    samples=min(number, value), num_beams=value, **common
                )
            else:
                filters = Filters(**{knob: value})
                one = sample.Settings(samples=number, filters=filters, **common)
            made[knob, f"{value:g}"] = one
    if not made or not config.prompts.lengths:
        raise UserError(
            "the study has no setting or no prompt length; give values such as "
            '--config.grid.top_p="(0.9,)" and --config.prompts.lengths="(\'10\',)"'
        )
    return made


def open_models(places: str) -> dict[str, LanguageModel]:
    """{name in tables: model} of folders with commas between.

    Raises:
        UserError: two have the same name, or one cannot be opened.
    """
    listed = [place.strip() for place in places.split(",") if place.strip()]
    if len(set(listed)) < len(listed):
        raise UserError(f"config.models names a model twice: {places}")
    if not listed:
        if not language_model.PACKAGED.exists():
            raise UserError(
                "config.models is empty and this installation comes with no model; "
                "give --config.models=DIR,DIR"
            )
        return {"packaged": language_model.open_language_model()}
    short = [place.rstrip("/").rpartition("/")[2] for place in listed]
    names = short if len(set(short)) == len(short) else listed
    return {
        name: language_model.open_language_model(place)
        for name, place in zip(names, listed, strict=True)
    }


def read_sources(
    config: Config, models: dict[str, LanguageModel]
) -> tuple[list[Source], list[str]]:
    """Molecules that every model can be prompted with, and why others are left out.

    Raises:
        UserError: a name is not on the list of drugs, the file cannot be read, or no
            molecule remains.
    """
    given = list(_given(config))
    judged = judged_molecules.judge_and_weigh([smiles for _, smiles in given])
    sources, left_out, seen = [], [], set()
    for (name, smiles), (verdict, weight) in zip(given, judged, strict=True):
        try:
            made = [
                prompt
                for model in models.values()
                for prompt in _prompts(smiles, config.prompts.lengths, model)
            ]
        except (ValueError, UserError) as error:
            left_out.append(f"{name}: {error}")
            continue
        (read,) = prompts.read_generated(
            [prompts.Generated(prompts.encode(smiles, "selfies"))], "selfies"
        )
        if not made or read.canonical in seen:
            left_out.append(f"{name}: it is there already")
            continue
        seen.add(read.canonical)
        sources.append(Source(name, smiles, read.canonical, weight, not verdict))
    if not sources:
        raise UserError(f"no molecule can be a prompt; the first: {left_out[0]}")
    return sources, left_out


def _given(config: Config) -> Iterator[tuple[str, str]]:
    """Names and SMILES; the name of a molecule from a file is its SMILES."""
    if config.prompts.path:
        lines = read_lines(open_text(config.prompts.path, config.prompts.column))
        found = [(line.text, line.text) for line in lines if line.text]
        if not found:
            raise UserError(f"{config.prompts.path} has no molecule; give another file")
        yield from found
        return
    known = {drug.name: drug.smiles for drug in drugs.drugs()}
    for name in config.prompts.names:
        if name not in known:
            raise UserError(
                f"config.prompts.names has {name!r}, which is not in "
                f"{drugs.DRUGS_CSV.name}; give SMILES in a file: --config.prompts.path"
            )
        yield name, known[name]


def _prompts(
    smiles: str, lengths: Sequence[str], model: LanguageModel
) -> Iterator[Prompt]:
    """One prompt of each length, all of which the model knows.

    Raises:
        ValueError: the molecule is not longer than a prompt.
        UserError: the model does not know one of its symbols.
    """
    symbols = prompts.encode(smiles, model.notation)
    for length in lengths:
        if prompts.wanted_length(length, len(symbols)) >= len(symbols):
            raise ValueError(
                f"it has {len(symbols)} symbols, so a prompt of {length} leaves nothing"
            )
        prompt = prompts.molecule_prompt(smiles, length, model.notation)
        sample.prompt_ids(model, prompt)
        yield prompt


def _sample(
    models: dict[str, LanguageModel],
    cell: Cell,
    sources: Sequence[Source],
    settings: sample.Settings,
    seed: int,
    mesh: Mesh | None,
    bar: tqdm,
) -> list[Row]:
    """The molecules of one cell."""
    model = models[cell.model]
    made = [next(_prompts(source.smiles, [cell.length], model)) for source in sources]
    # The same numbers for every setting and model, others for every length.
    own = zlib.crc32(f"{seed}/{cell.length}".encode()) & 0x7FFFFFFF
    molecules = sample.sample(
        model,
        made,
        dataclasses.replace(settings, seed=own),
        mesh=mesh,
        on_rows=bar.update,
    )
    judged = judged_molecules.judge_and_weigh([m.smiles for m in molecules])
    rows, seen = [], set()
    for place, (molecule, (verdict, weight)) in enumerate(
        zip(molecules, judged, strict=True)
    ):
        which, number = divmod(place, settings.samples)
        source = sources[which]
        key = (source.name, molecule.smiles)
        new = bool(molecule.smiles) and molecule.smiles != source.canonical
        rows.append(
            Row(
                *cell,
                molecule=source.name,
                number=number,
                prompt_symbols=len(made[which].symbols),
                smiles=molecule.smiles,
                tokens=molecule.tokens,
                log_likelihood=molecule.log_likelihood_given_prompt,
                finished=molecule.finished,
                kept=molecule.kept if molecule.smiles else None,
                new=new and key not in seen,
                passes=not verdict if molecule.smiles else None,
                reason="; ".join(map(str, verdict)) if molecule.smiles else "",
                weight_difference=weight - source.weight,
            )
        )
        seen.add(key)
    return rows


def _facts(
    config: Config,
    models: dict[str, LanguageModel],
    sources: Sequence[Source],
    left_out: Sequence[str],
) -> dict[str, Any]:
    """What study.json says."""
    return {
        "seed": config.seed,
        "samples": config.sampling.samples,
        "max_tokens": config.sampling.max_tokens,
        "molecules": [source._asdict() for source in sources],
        "left_out": list(left_out),
        "reference": _reference(config),
        "models": {name: _about(model) for name, model in models.items()},
    }


def _reference(config: Config) -> dict[str, Any] | None:
    """The pass rate of reference molecules."""
    if not config.reference.path:
        return None
    smiles: list[str] = []
    for line in read_lines(open_text(config.reference.path, config.reference.column)):
        if len(smiles) == config.reference.molecules:
            break
        if line.text:
            smiles.append(line.text)
    judged = judged_molecules.judge_and_weigh(smiles)
    readable = [not verdict for verdict, weight in judged if np.isfinite(weight)]
    if not readable:
        raise UserError(f"{config.reference.path} has no molecule; give another file")
    return {
        "source": config.reference.path,
        "molecules": len(readable),
        "passes": float(np.mean(readable)),
    }


def _about(model: LanguageModel) -> dict[str, Any]:
    """Size and origin of a model, and what tells its weights from any others."""
    params = jax.device_get(model.params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    digest = hashlib.blake2b(digest_size=8)
    inside = 0
    for path, leaf in leaves:
        digest.update(np.ascontiguousarray(leaf).tobytes())
        if "embedding" not in jax.tree_util.keystr(path):
            inside += leaf.size
    return {
        "place": model.source,
        "width": model.options.width,
        "depth": model.options.depth,
        "parameters": inside,
        "vocabulary": model.vocabulary.size,
        "notation": model.notation,
        "weights": digest.hexdigest(),
    }


def _claim(folder: pathlib.Path, config: Config, facts: dict[str, Any]) -> None:
    """Writes config and facts into the workdir, unless it holds another study.

    Raises:
        UserError: it does, or it cannot be written.
    """
    path = folder / STUDY_JSON
    if path.exists():
        held = read_json(path)
        changed = [name for name in _FIXED if held[name] != facts[name]]
        for name, model in facts["models"].items():
            if name in held["models"] and held["models"][name] != model:
                changed.append(f"weights of {name}")
        if changed:
            raise UserError(
                f"workdir {folder} holds a study with other {', '.join(changed)}; "
                "choose another --workdir"
            )
        facts = {**facts, "models": held["models"] | facts["models"]}
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder} has files but no {STUDY_JSON}; choose an empty --workdir"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config.to_dict())
        write_json(path, facts)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): choose another --workdir"
        ) from None
