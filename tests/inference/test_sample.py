"""Generating and scoring molecules, from the folder of a run to the file."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest

from chemscale_jax.chem import prompts, selfies_codec
from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.commands import sample as sample_command
from chemscale_jax.commands import score as score_command
from chemscale_jax.core.errors import UserError
from chemscale_jax.inference import language_model, sample, score
from chemscale_jax.inference.grammar import Grammar
from chemscale_jax.inference.logit_filters import Filters
from chemscale_jax.interop import hf_gpt_neo
from tests.inference.tiny_gpt import OPTIONS, make_params

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
SYMBOLS = [
    *("[C]", "[=C]", "[O]", "[=O]", "[N]", "[S]", "[Cl]", "[O-1]", "[#N]", "[F]"),
    *("[Branch1]", "[=Branch1]", "[Branch2]", "[Ring1]", "[Ring2]", "[#Branch1]"),
]
VOCABULARY = Vocabulary.from_counts(dict.fromkeys(SYMBOLS, 1), "selfies")
SIZED = dataclasses.replace(OPTIONS, vocabulary=VOCABULARY.size)
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def model():
    return language_model.LanguageModel(SIZED, make_params(SIZED), VOCABULARY, "here")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, model):
    """What packing a run leaves of it."""
    folder = tmp_path_factory.mktemp("run")
    fields = dataclasses.asdict(SIZED) | {"name": "gpt_neo"}
    del fields["vocabulary"]
    config = {"task": "causal_lm", "model": fields, "data": {"stream": "tokens"}}
    (folder / "config.json").write_text(json.dumps(config))
    artifacts = {"vocabulary": VOCABULARY.to_json()}
    (folder / "artifacts.json").write_text(json.dumps(artifacts))
    leaves = jax.tree_util.tree_leaves_with_path({"params": model.params})
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
    np.savez(folder / "weights.npz", allow_pickle=False, **arrays)
    return folder


def settings(**changes):
    return sample.Settings(**{"max_new": 20, "samples": 6, "seed": 1, **changes})


def test_molecules_and_their_likelihoods(model):
    prompt = prompts.molecule_prompt(ASPIRIN, 5)
    found = sample.sample(model, [sample.NO_PROMPT, prompt], settings())
    assert len(found) == 12
    for number, molecule in enumerate(found):
        expected = prompt if number >= 6 else sample.NO_PROMPT
        assert molecule.prompt == "".join(expected.symbols)
        assert molecule.symbols.startswith(molecule.prompt)
        assert (molecule.kept is None) == (number < 6)
        decoded = prompts.decode(selfies_codec.split(molecule.symbols), "selfies")
        if number >= 6:
            assert molecule.kept == prompts.keeps(prompt.fragment, decoded)
        difference = molecule.log_likelihood - molecule.log_likelihood_given_prompt
        assert (abs(difference) > 1) == (number >= 6)
    assert sample.sample(model, [sample.NO_PROMPT, prompt], settings()) == found


def test_grammar(model):
    grammar = Grammar(closed=True, max_atoms=7, elements=("C", "O"), neutral=True)
    found = sample.sample(
        model, [sample.NO_PROMPT], settings(grammar=grammar, samples=16)
    )
    for molecule in found:
        symbols = selfies_codec.split(molecule.symbols)
        facts = [prompts.symbol_facts(symbol) for symbol in symbols]
        assert {fact.element for fact in facts} <= {"C", "O", ""}
        assert not any(fact.charged for fact in facts)
        assert sum(bool(fact.element) for fact in facts) <= 7
        assert not symbols or prompts.clean_cuts(symbols)[-1] == len(symbols)
    with pytest.raises(UserError, match="elements .*it has C, Cl, F, N, O, S"):
        sample.sample(
            model, [sample.NO_PROMPT], settings(grammar=Grammar(elements=("Fe",)))
        )


def test_beams_are_ordered(model):
    prompt = prompts.molecule_prompt(ASPIRIN, 5)
    found = sample.sample(
        model, [prompt], settings(num_beams=4, samples=3, length_penalty=0.0)
    )
    assert len({molecule.symbols for molecule in found}) == 3
    totals = [molecule.log_likelihood_given_prompt for molecule in found]
    assert totals == sorted(totals, reverse=True)
    with pytest.raises(UserError, match="beam search does not draw: top_k"):
        sample.sample(model, [prompt], settings(num_beams=4, filters=Filters(top_k=3)))


def test_unknown_symbols_in_a_prompt(model):
    prompt = prompts.molecule_prompt("CCBr")
    with pytest.raises(UserError, match=r"has \[Br\], which is not among the 21"):
        sample.sample(model, [prompt], settings())


def test_the_commands(workdir, tmp_path, capsys):
    """The same likelihoods from both, and every line of the input accounted for."""
    out = tmp_path / "generated.csv"
    flags = [f"--workdir={workdir}", "--max-new=20", "--no-metrics", f"--out={out}"]
    flags += [f"--prompt-smiles={ASPIRIN}", "--prompt-length=5", "--num=6"]
    assert sample_command.main([*flags, "--prompt-smiles=c1cc"]) == 0
    printed = capsys.readouterr()
    assert "6 molecules in" in printed.out
    assert "prompt kept" in printed.out
    assert "warning: 'c1cc' cannot be read" in printed.err
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["source"] for row in rows} == {ASPIRIN}

    smiles = tmp_path / "molecules.smi"
    smiles.write_text("CCO\nc1cc\nCCBr\nOC=O\n")
    scores = tmp_path / "scores.csv"
    flags = [f"--workdir={workdir}", f"--input={smiles}", f"--out={scores}"]
    assert score_command.main(flags) == 0
    assert "2 of 4 lines scored" in capsys.readouterr().out
    with scores.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [bool(line["log_likelihood"]) for line in lines] == [
        True,
        False,
        False,
        True,
    ]
    assert lines[2]["reason"] == "a symbol is not in the vocabulary"
    assert lines[0]["tokens"] == "4"
    for row in rows:
        if row["finished"] == "yes":
            model = language_model.open_language_model(workdir)
            symbols = prompts.text_prompt(row["symbols"]).symbols
            ids = sample.prompt_ids(model, prompts.Prompt(symbols))

            whole = np.array([*ids, VOCABULARY.end])
            (total,) = score.log_likelihoods(model.options, model.params, [whole])
            assert abs(total - float(row["log_likelihood"])) < TOLERANCE
            break


def test_smi_files(tmp_path):
    molecule = sample.Molecule("CO", "[C][O]", -1.5, -1.0, 3, True, "", "", None)
    bad = molecule._replace(smiles="")
    sample.write_molecules(tmp_path / "some.smi", [molecule, bad])
    assert (tmp_path / "some.smi").read_text() == "CO\t-1.500000\n"
    with pytest.raises(UserError, match="choose a .csv or a .smi"):
        sample.check_writable(tmp_path / "some.txt")
    with pytest.raises(UserError, match="is not a folder"):
        sample.check_writable(tmp_path / "none" / "some.smi")
    text = sample.summary([molecule, molecule, bad], 0.5)
    assert "valid      2 (66.7%)" in text
    assert "unique     1 (50.0%)" in text
    assert "6 per second" in text


def test_models_that_can_be_opened(workdir, tmp_path, model):
    opened = language_model.open_language_model(workdir)
    assert opened.options == SIZED
    assert opened.notation == "selfies"
    hf_gpt_neo.save_folder(tmp_path / "theirs", SIZED, model.params, VOCABULARY)
    theirs = language_model.open_language_model(tmp_path / "theirs")
    assert theirs.options == SIZED
    assert theirs.vocabulary.tokens == VOCABULARY.tokens
    for one, other in zip(
        jax.tree.leaves(opened.params), jax.tree.leaves(theirs.params), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="has no checkpoints by step"):
        language_model.open_language_model(tmp_path / "theirs", step=3)
    with pytest.raises(UserError, match="has no config.json"):
        language_model.open_language_model(tmp_path)
    (tmp_path / "config.json").write_text('{"task": "force_field"}')
    (tmp_path / "artifacts.json").write_text("{}")
    with pytest.raises(UserError, match="task 'force_field', expected 'causal_lm'"):
        language_model.open_language_model(tmp_path)
