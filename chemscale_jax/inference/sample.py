"""Prompts to molecules: what the sampler's ids mean, how likely they are, what is kept.

Two ways to generate: drawing tokens (or taking the best one) with `decode`, and
searching for the most likely continuations with `beam`.
"""

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from chemscale_jax.chem import prompts as chem_prompts
from chemscale_jax.chem.prompts import Generated, Prompt
from chemscale_jax.chem.worker_map import ordered_map
from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import beam, decode
from chemscale_jax.inference.grammar import Grammar, make_rules
from chemscale_jax.inference.language_model import LanguageModel
from chemscale_jax.inference.logit_filters import Filters

# Fewer molecules are read sooner than processes start.
_WORTH_PROCESSES = 5_000
NO_PROMPT = Prompt(())


@dataclasses.dataclass(frozen=True)
class Settings:
    """How molecules are generated."""

    samples: int = 1  # of each prompt
    max_new: int = 256  # tokens at most, without the prompt
    filters: Filters = dataclasses.field(default_factory=Filters)
    greedy: bool = False
    # More than 0: beam search, which returns the best ``samples`` beams.
    num_beams: int = 0
    length_penalty: float = 1.0
    early_stopping: beam.Patience = False
    beam_groups: int = 1
    diversity: float = 0.0
    grammar: Grammar = dataclasses.field(default_factory=Grammar)
    seed: int = 0
    batch_rows: int = 256


class Molecule(NamedTuple):
    """One generated molecule; log-likelihoods are in nats, of the unfiltered model."""

    smiles: str  # canonical; "" where the symbols are no molecule
    symbols: str
    log_likelihood: float  # of the prompt and what was generated
    log_likelihood_given_prompt: float
    tokens: int  # generated, the end token included
    finished: bool
    prompt: str  # its symbols
    source: str  # SMILES that the prompt is cut from
    kept: bool | None  # whether it holds what the prompt stands for; None: no prompt


def sample(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    settings: Settings,
    *,
    mesh: Mesh | None = None,
    processes: int | None = None,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> list[Molecule]:
    """Generates ``settings.samples`` molecules of each prompt, in the prompts' order.

    Args:
        model: of `open_language_model`.
        prompts: of `chem.prompts`; ``NO_PROMPT`` for molecules from the start.
        settings: how.
        mesh: devices over which molecules are spread; one by default.
        processes: that read what was generated; all that may be used by default.
        on_rows: called with how many molecules were added, after each batch.

    Raises:
        UserError: a prompt has a symbol that the model does not know, or the settings
            do not fit together.
    """
    vocabulary = model.vocabulary
    ids = [prompt_ids(model, prompt) for prompt in prompts]
    common = {
        "end": vocabulary.end,
        "pad": vocabulary.pad,
        "max_new": settings.max_new,
        "rules": make_rules(vocabulary, settings.grammar),
        "batch_rows": settings.batch_rows,
        "mesh": mesh,
    }
    if settings.num_beams:
        if (active := settings.filters.active) - {"repetition_penalty"}:
            raise UserError(
                f"beam search does not draw: {', '.join(sorted(active))} would have no "
                "effect; leave num_beams or these out"
            )
        found = beam.beam_search(
            model.options,
            model.params,
            ids,
            num_beams=settings.num_beams,
            num_return=settings.samples,
            length_penalty=settings.length_penalty,
            early_stopping=settings.early_stopping,
            groups=settings.beam_groups,
            diversity=settings.diversity,
            repetition_penalty=settings.filters.repetition_penalty,
            on_rows=lambda rows: on_rows(rows * settings.samples),
            **common,
        )
        tokens = found.tokens.reshape(-1, settings.max_new)
        finished, given = found.finished.ravel(), found.log_probs.ravel()
        before = np.repeat(found.prompt_log_probs, settings.samples)
    else:
        found = decode.decode(
            model.options,
            model.params,
            ids,
            filters=settings.filters,
            greedy=settings.greedy,
            samples_per_prompt=settings.samples,
            seed=settings.seed,
            on_rows=on_rows,
            **common,
        )
        tokens, finished = found.tokens, found.finished
        given = found.log_probs.sum(axis=1, dtype=np.float64)
        before = found.prompt_log_probs
    return _read(model, prompts, settings, tokens, finished, given, before, processes)


def prompt_ids(model: LanguageModel, prompt: Prompt) -> np.ndarray:
    """The begin token and the ids of a prompt.

    Raises:
        UserError: the model does not know a symbol.
    """
    vocabulary = model.vocabulary
    ids = vocabulary.encode(prompt.symbols).astype(np.int32)
    if np.any(ids == vocabulary.unk):
        known = vocabulary.symbol_ids
        unknown = [symbol for symbol in prompt.symbols if symbol not in known]
        raise UserError(
            f"prompt {''.join(prompt.symbols)} has {unknown[0]}, which is not among "
            f"the {vocabulary.size} tokens of {model.source}; use another prompt"
        )
    return np.concatenate([[np.int32(vocabulary.begin)], ids]).astype(np.int32)


def _read(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    settings: Settings,
    tokens: np.ndarray,
    finished: np.ndarray,
    given: np.ndarray,
    before: np.ndarray,
    processes: int | None,
) -> list[Molecule]:
    """Molecules of generated ids."""
    vocabulary = model.vocabulary
    rows: list[tuple[Prompt, list[str], int]] = []
    for number, row in enumerate(tokens):
        prompt = prompts[number // settings.samples]
        ends = np.flatnonzero(row == vocabulary.end)
        length = int(ends[0]) if len(ends) else len(row)
        symbols = [*prompt.symbols, *vocabulary.decode(row[:length])]
        rows.append((prompt, symbols, length + bool(len(ends))))
    readings = ordered_map(
        functools.partial(chem_prompts.read_generated, notation=model.notation),
        [Generated(symbols, prompt.fragment) for prompt, symbols, _ in rows],
        processes=processes if len(rows) >= _WORTH_PROCESSES else 1,
        label="read molecules",
        progress=len(rows) >= _WORTH_PROCESSES,
    )
    return [
        Molecule(
            smiles=reading.canonical,
            symbols="".join(symbols),
            log_likelihood=float(before[i] + given[i]),
            log_likelihood_given_prompt=float(given[i]),
            tokens=length,
            finished=bool(finished[i]),
            prompt="".join(prompt.symbols),
            source=prompt.source,
            kept=reading.kept,
        )
        for i, ((prompt, symbols, length), reading) in enumerate(
            zip(rows, readings, strict=True)
        )
    ]


def write_molecules(path: pathlib.Path, molecules: Sequence[Molecule]) -> None:
    """Writes a .csv with everything, or a .smi with SMILES and log-likelihoods.

    A .smi has no line for what is no molecule.

    Raises:
        UserError: the file has another ending, or cannot be written.
    """
    check_writable(path)
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".smi":
            for molecule in molecules:
                if molecule.smiles:
                    file.write(f"{molecule.smiles}\t{molecule.log_likelihood:.6f}\n")
            return
        writer = csv.writer(file)
        writer.writerow(Molecule._fields)
        for molecule in molecules:
            writer.writerow([_cell(value) for value in molecule])


def check_writable(path: pathlib.Path) -> None:
    """Refuses a place where no generated molecules can be written, before the work."""
    if path.suffix not in (".csv", ".smi"):
        raise UserError(f"{path} ends in {path.suffix!r}; choose a .csv or a .smi")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder; make it first")


def _cell(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def summary(molecules: Sequence[Molecule], seconds: float) -> str:
    """How many molecules there are of which kind, and how fast they came."""
    total = len(molecules)
    valid = [molecule.smiles for molecule in molecules if molecule.smiles]
    finished = sum(molecule.finished for molecule in molecules)
    lines = [
        f"{total:,} molecules in {seconds:.1f} s, {total / max(seconds, 1e-9):,.0f} "
        "per second, programs compiled and molecules read included",
        f"valid      {_share(len(valid), total)}",
        f"unique     {_share(len(set(valid)), len(valid))} of the valid ones",
        f"finished   {_share(finished, total)}; the others reached the limit of tokens",
    ]
    asked = [molecule.kept for molecule in molecules if molecule.kept is not None]
    if asked:
        kept = sum(map(bool, asked))
        lines.append(f"prompt kept {_share(kept, len(asked))} (bonds of Kekule forms)")
    each = np.mean([molecule.tokens for molecule in molecules])
    nats = np.mean([molecule.log_likelihood for molecule in molecules])
    lines.append(f"mean       {each:.1f} tokens, log-likelihood {nats:.2f} nats")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else "none"
