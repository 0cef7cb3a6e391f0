"""The embedded corpus: made once, the same for all, a beginning of a larger one."""

import hashlib
import importlib.metadata
import pathlib

import pytest

from chemscale_jax.chem.drug_fragments import pieces_of
from chemscale_jax.chem.drugs import drugs
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text import corpus_card, embedded_corpus
from chemscale_jax.data.text.corpus_card import CorpusFacts
from chemscale_jax.data.text.embedded_corpus import (
    embedded_smiles,
    embedded_store,
    recombined,
)

PARENTS = tuple(drug.smiles for drug in drugs()[::12])


@pytest.fixture(autouse=True)
def few_drugs(monkeypatch):
    """A dozenth of the list: quick to cut, and enough for hundreds of molecules."""
    some = drugs()[::12]
    monkeypatch.setattr(embedded_corpus, "drugs", lambda: some)
    monkeypatch.setattr(corpus_card, "drugs", lambda: some)


def test_the_file_is_made_once_with_its_card(cache, monkeypatch):
    path = embedded_smiles(60)
    lines = path.read_text().splitlines()
    assert len(set(lines)) == 60 == len(lines)
    assert not set(lines) & set(PARENTS)
    assert path.is_relative_to(cache)
    card = (path.parent / "CARD.md").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert "| molecules | 60 |" in card
    assert "Apache-2.0" in card
    monkeypatch.setattr(embedded_corpus, "recombined", None)  # would fail
    assert embedded_smiles(60) == path


def test_a_small_corpus_is_the_beginning_of_a_larger_one():
    small = embedded_smiles(30).read_text()
    large = embedded_smiles(40)
    assert large.read_text().startswith(small)
    assert embedded_smiles(30, seed=1).read_text() != small


@pytest.mark.slow
def test_processes_do_not_change_the_molecules():
    # Two blocks at least, so that both processes have work.
    size = 600
    alone = list(recombined(size, 0, parents=PARENTS))
    assert list(recombined(size, 2, parents=PARENTS)) == alone


def test_no_parent_comes_out_again(monkeypatch):
    first, second, *_ = list(recombined(20, parents=PARENTS))
    pieces = pieces_of(PARENTS)
    monkeypatch.setattr(embedded_corpus, "pieces_of", lambda smiles: pieces)
    assert next(recombined(20, parents=(*PARENTS, first))) == second


def test_the_store_holds_every_molecule():
    lines = embedded_smiles(60).read_text().splitlines()
    store = embedded_store(size=60, workers=0)
    assert len(store) == len(lines)
    assert store.lines.tolist() == list(range(1, 61))
    assert store.vocabulary.notation == "selfies"
    assert 25 < store.lengths.mean() < 50
    again = embedded_store(size=60, workers=0)
    assert (again.keys == store.keys).all()


def test_a_card_of_many_molecules_compares_them_with_the_drugs(monkeypatch):
    monkeypatch.setattr(corpus_card, "_WORTH_A_TABLE", 2)
    facts = CorpusFacts("x.smi", 3, 0, 10, 20, "abc", "2026.9.1")
    card = corpus_card.corpus_card(facts, ["CCO", "c1ccccc1", "c1ccccc1O"])
    assert "| heavy atoms | 5.33 (" in card
    assert "| distinct Murcko scaffolds | 2 |" in card


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.metadata.version("rdkit") != "2026.9.1",
    reason="the card in the package is of one version of RDKit",
)
def test_the_default_corpus_is_that_of_the_card_in_the_package(monkeypatch):
    # When it is changed on purpose: copy the new card into the package.
    monkeypatch.setattr(embedded_corpus, "drugs", drugs)
    monkeypatch.setattr(corpus_card, "drugs", drugs)
    digest = hashlib.sha256(embedded_smiles().read_bytes()).hexdigest()
    package = pathlib.Path(embedded_corpus.__file__).parent
    assert digest in (package / "embedded" / "CORPUS_CARD.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size of the embedded corpus is 0"),
        ({"seed": -1}, "seed of the embedded corpus is -1"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_bad_numbers(arguments, message):
    with pytest.raises(UserError, match=message):
        embedded_smiles(**arguments)
