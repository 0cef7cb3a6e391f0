"""A prompting study from the command line: sampled, gone on with, reported."""

import collections
import csv
import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from chemscale_jax.analysis.generation.prompting_rows import Row
from chemscale_jax.chem import drugs, prompts
from chemscale_jax.chem.molecule_profiles import profile_all
from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.commands import prompt_study
from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import language_model, sample
from chemscale_jax.interop import hf_gpt_neo
from tests.inference.tiny_gpt import OPTIONS, make_params

SOURCES = drugs.prompt_drugs()[:3]
SYMBOLS = [s for one in SOURCES for s in prompts.encode(one.smiles, "selfies")]
VOCABULARY = Vocabulary.from_counts(collections.Counter(SYMBOLS), "selfies")
SIZED = dataclasses.replace(OPTIONS, vocabulary=VOCABULARY.size, positions=128)
SMOKE = [
    "--config=configs/prompting.py:smoke",
    "--config.sampling.samples=2",
    "--config.prompts.lengths=('5', '7')",
    "--config.sampling.max_tokens=12",
    "--config.grid.top_k=(1000,)",
    "--config.grid.top_p=()",
    "--config.grid.temperature=(1.0,)",
    "--config.grid.num_beams=(2,)",
]
# Two models, two lengths, three molecules; two samples or beams of three settings.
CELLS, ROWS = 2 * 2 * 3, 2 * 2 * 3 * (2 + 2 + 2)


def save(folder, options, seed=0):
    params = make_params(options, seed)
    hf_gpt_neo.save_folder(folder, options, params, VOCABULARY)


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Of two models of one size on one device, for which less is compiled."""
    folder = tmp_path_factory.mktemp("models")
    save(folder / "small", SIZED)
    save(folder / "large", SIZED, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_device_count", lambda: 1)
        yield [*SMOKE, f"--config.models={folder / 'small'},{folder / 'large'}"]


@pytest.fixture(scope="module")
def study(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "new"
    assert prompt_study.main([*flags, f"--workdir={folder}"]) == 0
    return folder


def rows_of(folder):
    with (folder / "molecules.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_molecule_is_there_with_what_is_said_of_it(study):
    rows = rows_of(study)
    assert list(rows[0]) == list(Row._fields)
    assert len(rows) == ROWS
    masses = {one.name: profile_all([one.smiles]).properties[0, 3] for one in SOURCES}
    found = profile_all([row["smiles"] for row in rows])
    earlier = set()
    for row, verdict, properties in zip(
        rows, found.verdicts, found.properties, strict=True
    ):
        if not row["smiles"]:
            assert (row["passes"], row["new"], row["kept"]) == ("", "no", "")
            continue
        assert row["passes"] == ("no" if verdict else "yes")
        assert row["reason"] == "; ".join(map(str, verdict))
        gap = properties[3] - masses[row["molecule"]]
        assert float(row["weight_difference"]) == pytest.approx(gap, abs=1e-3)
        key = tuple(row[name] for name in ("smiles", *Row._fields[:5]))
        same = {one.smiles for one in SOURCES if one.name == row["molecule"]}
        assert row["new"] == ("no" if key in earlier | same else "yes")
        earlier.add(key)
    for one in SOURCES:
        cut = [
            row for row in rows if (row["molecule"], row["length"]) == (one.name, "5")
        ]
        assert {row["prompt_symbols"] for row in cut} == {"5"}
    assert {row["kept"] for row in rows} >= {"yes"}


def test_more_tokens_than_there_are_is_plain_sampling(study):
    """The same random numbers in every setting of a length, others in every length."""
    found = collections.defaultdict(list)
    for row in rows_of(study):
        found[row["model"], row["knob"], row["length"]].append(row["log_likelihood"])
    for model in ("small", "large"):
        assert found[model, "top_k", "5"] == found[model, "temperature", "5"]
        assert found[model, "top_k", "5"] != found[model, "top_k", "7"]
    assert found["small", "top_k", "5"] != found["large", "top_k", "5"]


def test_the_report_has_settings_models_and_plots(study):
    with (study / "settings.csv").open(newline="") as file:
        settings = list(csv.DictReader(file))
    # Each setting at each length, and at all.
    assert len(settings) == CELLS + 6
    some = next(
        row
        for row in settings
        if (row["model"], row["knob"], row["length"]) == ("large", "top_k", "all")
    )
    assert some["molecules"] == "12"
    rows = [r for r in rows_of(study) if (r["model"], r["knob"]) == ("large", "top_k")]
    shares = [
        np.mean([row["kept"] == "yes" for row in rows if row["molecule"] == one.name])
        for one in SOURCES
    ]
    assert float(some["kept"]) == pytest.approx(np.mean(shares), abs=1e-5)
    assert float(some["kept_low"]) <= float(some["kept"]) <= float(some["kept_high"])
    text = (study / "report.md").read_text()
    assert " valid | " in text
    assert "| top_k 1000 " in text
    assert "large - small" in text
    assert "top_k 1000 keeps all" in text
    assert "3 prompt molecules themselves 3 pass" in text
    # 2 (12 w^2 + 10 w) + 2 w parameters without embeddings.
    assert text.count(" 6,496 |") == 2
    for name in ("pass_rate", "weight_difference", "prompt_length"):
        assert (study / "plots" / f"{name}.png").stat().st_size > 10_000
        assert f"plots/{name}.png" in text


def test_only_what_is_missing_is_sampled_again(study, flags, monkeypatch, capsys):
    sampled = []

    def counted(model, made, settings, **rest):
        sampled.append(settings)
        return plain(model, made, settings, **rest)

    plain = sample.sample
    monkeypatch.setattr(sample, "sample", counted)
    path, before = study / "molecules.csv", (study / "molecules.csv").read_bytes()
    report = (study / "report.md").read_bytes()
    assert prompt_study.main([*flags, f"--workdir={study}"]) == 0
    assert not sampled
    assert path.read_bytes() == before
    assert (study / "report.md").read_bytes() == report
    assert " valid | " in capsys.readouterr().out
    # A kill in the midst of writing the last cell.
    path.write_bytes(before[:-100])
    assert prompt_study.main([*flags, f"--workdir={study}"]) == 0
    assert [settings.num_beams for settings in sampled] == [2]
    assert path.read_bytes() == before


def test_another_study_is_refused(study, flags, tmp_path):
    flags = [*flags, f"--workdir={study}"]
    with pytest.raises(UserError, match="study with other seed; choose another"):
        prompt_study.main([*flags, "--config.seed=1"])
    with pytest.raises(UserError, match="study with other samples; choose"):
        prompt_study.main([*flags, "--config.sampling.samples=5"])
    save(tmp_path / "small", SIZED, seed=2)
    with pytest.raises(UserError, match="study with other weights of small"):
        prompt_study.main([*flags, f"--config.models={tmp_path / 'small'}"])
    with pytest.raises(UserError, match="has files but no study.json"):
        prompt_study.main([*flags, f"--workdir={tmp_path}"])


def test_molecules_of_ones_own_and_what_they_are_compared_with(flags, tmp_path, capsys):
    mine, reference = tmp_path / "mine.smi", tmp_path / "reference.smi"
    smiles = [one.smiles for one in SOURCES]
    mine.write_text("\n".join([smiles[0], "CCO", "c1cc", smiles[0], "BrCCCCCCCCC"]))
    reference.write_text("CCO\nCC(=O)[O-]\nc1cc\n")
    status = prompt_study.main(
        [
            # A tuple that is given twice keeps its first value.
            *(flag for flag in flags if "grid" not in flag and "models" not in flag),
            flags[-1].partition(",")[0],
            *(f"--config.grid.{knob}=()" for knob in ("top_k", "top_p", "num_beams")),
            "--config.grid.temperature=(1.0,)",
            f"--workdir={tmp_path / 'own'}",
            f"--config.prompts.path={mine}",
            f"--config.reference.path={reference}",
        ]
    )
    assert status == 0
    printed = capsys.readouterr().out
    assert "Left out: CCO: it has 3 symbols" in printed
    assert "Left out: c1cc: 'c1cc' cannot be read" in printed
    assert "it is there already" in printed
    assert "Left out: BrCCCCCCCCC: prompt [Br][C]" in printed
    assert "Of 2 reference molecules" in printed
    assert "50.0% pass" in printed
    facts = json.loads((tmp_path / "own" / "study.json").read_text())
    assert [one["smiles"] for one in facts["molecules"]] == smiles[:1]
    assert len(rows_of(tmp_path / "own")) == 2 * 2


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.prompts.names=('unobtainin',)", "'unobtainin', which is not in"),
        ("--config.prompts.lengths=('l+3',)", "no molecule can be a prompt"),
        ("--config.prompts.lengths=()", "no setting or no prompt length"),
        ("--config.sampling.samples=0", "samples=0"),
        ("--config.grid.top_p=(2.0,)", "top_p is 2.0"),
        ("--config.models=here,here", "names a model twice"),
        ("--config.models=", "comes with no model"),
        ("--models=here", "cannot read argument '--models=here'"),
        ("--config.task=causal_lm", "is of task 'causal_lm'"),
    ],
)
def test_mistakes_are_named(flags, tmp_path, monkeypatch, flag, message):
    monkeypatch.setattr(language_model, "PACKAGED", tmp_path / "absent")
    # A tuple that is given twice keeps its first value.
    name = flag.partition("=")[0]
    flags = [other for other in flags if not other.startswith(f"{name}=")]
    with pytest.raises(UserError, match=re.escape(message)):
        prompt_study.main([*flags, flag, f"--workdir={tmp_path / 'study'}"])
    assert not (tmp_path / "study").exists()
