"""Sources of molecules: each by its name, files tokenised once, one vocabulary."""

import json

import pytest
from ml_collections import ConfigDict

from chemscale_jax.chem.vocabulary import SPECIALS, Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text import token_sources
from chemscale_jax.data.text.token_sources import open_corpus

SMILES = ("CCO", "c1ccccc1", "CC(=O)O", "C[NH3+].[Cl-]", "not a molecule", "CCN")


def _data(**changes) -> ConfigDict:
    fields = {
        "source": "file",
        "path": "",
        "column": "",
        "tfds_split": "train",
        "notation": "",
        "vocabulary": "",
        "embedded_molecules": 30,
    }
    return ConfigDict({**fields, **changes})


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "molecules.smi"
    file.write_text("".join(f"{smiles}\n" for smiles in SMILES))
    return str(file)


def test_a_file_is_tokenised_once(path, cache, monkeypatch):
    store = open_corpus(_data(path=path))
    assert store.lines.tolist() == [1, 2, 3, 4, 6]
    assert store.vocabulary.decode(store.symbols(0)) == ["[C]", "[C]", "[O]"]
    assert store.failed().total() == 1
    monkeypatch.delattr(token_sources, "tokenize_source")
    again = open_corpus(_data(path=path))
    assert again.folder == store.folder
    assert again.folder is not None
    assert again.folder.parent == cache


def test_ids_are_those_of_the_given_vocabulary(path, tmp_path):
    given = Vocabulary((*SPECIALS, "[O]", "[X]", "[C]", "[N]"))
    given.save(tmp_path / "vocabulary.json")
    run = tmp_path / "run"
    run.mkdir()
    (run / "artifacts.json").write_text(json.dumps({"vocabulary": given.to_json()}))
    named = _data(path=path, vocabulary=str(tmp_path / "vocabulary.json"))
    for store in (open_corpus(named), open_corpus(_data(path=path), str(run))):
        assert store.vocabulary == given
        # Molecules with symbols that it lacks are in the ledger.
        assert store.lines.tolist() == [1, 6]
        assert store.symbols(0).tolist() == [7, 7, 5]
    # Weights alone say nothing of ids.
    assert open_corpus(_data(path=path), "weights.npz").vocabulary != given

    # A store has ids already.
    fields = {"source": "store", "path": str(store.folder)}
    assert open_corpus(_data(**fields), str(run)).vocabulary == given
    other = tmp_path / "other.json"
    Vocabulary((*SPECIALS, "[C]")).save(other)
    with pytest.raises(UserError, match=r"another vocabulary \(9 tokens\) .* \(6\)"):
        open_corpus(_data(**fields, vocabulary=str(other)))
    with pytest.raises(UserError, match="tokens of selfies, not of smiles"):
        open_corpus(_data(**fields, notation="smiles"))
    with pytest.raises(UserError, match="leave config.data.notation empty"):
        open_corpus(_data(**fields, notation="smiles"), str(run))
    (run / "artifacts.json").write_text("{}")
    with pytest.raises(UserError, match="a run without a vocabulary"):
        open_corpus(_data(**fields), str(run))


def test_the_embedded_molecules():
    store = open_corpus(_data(source="embedded", notation="smiles"))
    assert len(store) == 30
    assert store.vocabulary.notation == "smiles"


def test_sources_that_cannot_be_had(path, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="source='sdf' is unknown"):
        open_corpus(_data(source="sdf"))
    for wrong in ({}, {"source": "store"}, {"source": "embedded", "path": path}):
        with pytest.raises(UserError, match="'file' and 'store' need one"):
            open_corpus(_data(**wrong))
    with pytest.raises(UserError, match="does not exist"):
        open_corpus(_data(path=path + ".gz"))
    monkeypatch.setenv("CHEMSCALE_CACHE", path)
    with pytest.raises(UserError, match="set CHEMSCALE_CACHE to a writable folder"):
        open_corpus(_data(path=path))
