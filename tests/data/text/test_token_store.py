import json

import numpy as np
import pytest

from chemscale_jax.chem.smiles import molecule_key
from chemscale_jax.chem.vocabulary import SPECIALS, Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.growing_array import GrowingArray
from chemscale_jax.data.text.token_store import (
    Failure,
    StoreWriter,
    TokenStore,
)

VOCABULARY = Vocabulary((*SPECIALS, "[C]", "[O]", "[=C]"), "selfies")
# Ids of three molecules, the second of which is cut over two appends by its neighbours.
MOLECULES = [[5], [5, 5, 6], [5, 7]]


def write(folder, molecules=MOLECULES, at_once=2):
    with StoreWriter(folder, VOCABULARY) as writer:
        for start in range(0, len(molecules), at_once):
            some = molecules[start : start + at_once]
            m = len(some)
            writer.append(
                np.concatenate(some),
                np.array([len(ids) for ids in some]),
                np.arange(m) + start + 2,
                np.uint64(2**63 + start)
                + np.arange(2 * m, dtype=np.uint64).reshape(-1, 2),
                np.array([len(ids) for ids in some]),
            )
        writer.finish({"lines": 5, "failed": {"empty": 2}}, {"unknown": {}})
    (folder / "ledger.csv").write_text(
        'line,reason,smiles,message\n1,empty,,nothing\n5,syntax,"a,b","x ""y"""\n'
    )
    return folder


def test_what_is_written_is_read(tmp_path):
    store = TokenStore.open(write(tmp_path / "store"))
    assert len(store) == 3
    assert [store.symbols(i).tolist() for i in range(3)] == MOLECULES
    assert store.tokens.dtype == np.uint16
    assert store.lengths.tolist() == [1, 3, 2]
    assert store.lines.tolist() == [2, 3, 4]
    assert store.keys[2].tolist() == [2**63 + 2, 2**63 + 3]
    assert store.heavy_atoms.tolist() == [1, 3, 2]
    assert store.vocabulary == VOCABULARY
    assert store.failed() == {"empty": 2}
    assert list(store.ledger()) == [
        Failure(1, "empty", "", "nothing"),
        Failure(5, "syntax", "a,b", 'x "y"'),
    ]
    with pytest.raises(IndexError, match="molecule 3 of 3"):
        store.symbols(3)
    with pytest.raises(IndexError):
        store.symbols(-1)


def test_pieces_make_the_same_files(tmp_path):
    one, all_ = write(tmp_path / "a", at_once=1), write(tmp_path / "b", at_once=3)
    for file in one.iterdir():
        if file.name != "keys.npy":  # whose values depend on the pieces here
            assert file.read_bytes() == (all_ / file.name).read_bytes()


def test_a_copy_in_memory_needs_no_files(tmp_path):
    folder = write(tmp_path / "store")
    copy = TokenStore.open(folder).in_memory()
    expected = list(TokenStore.open(folder).ledger())
    for file in folder.iterdir():
        file.unlink()
    assert copy.symbols(1).tolist() == MOLECULES[1]
    assert list(copy.ledger()) == expected
    assert copy.folder is None


def test_an_empty_store_is_a_store(tmp_path):
    with StoreWriter(tmp_path / "s", VOCABULARY) as writer:
        writer.finish({"lines": 0, "failed": {}}, {})
    store = TokenStore.open(tmp_path / "s")
    assert len(store) == 0
    assert store.keys.shape == (0, 2)
    assert list(store.ledger()) == []


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "keys.npy", "lines.npy"])
def test_a_file_that_is_cut_short(tmp_path, name):
    folder = write(tmp_path / "store")
    content = (folder / name).read_bytes()
    for size in (len(content) - 1, len(content) - 2, len(content) // 2, 0):
        (folder / name).write_bytes(content[:size])
        with pytest.raises(UserError, match=r"token store .* is damaged.*again"):
            TokenStore.open(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"is damaged.*{name}"):
        TokenStore.open(folder)


def test_offsets_of_another_text(tmp_path):
    folder = write(tmp_path / "store")
    np.save(folder / "offsets.npy", np.array([0, 4, 1, 6]))
    with pytest.raises(UserError, match="offsets.npy ends at 6"):
        TokenStore.open(folder)
    np.save(folder / "offsets.npy", np.array([0, 1, 4, 5]))
    with pytest.raises(UserError, match="ends at 5, but there are 6 symbols"):
        TokenStore.open(folder)


def test_folders_that_are_no_store(tmp_path):
    with pytest.raises(UserError, match="is no token store: store.json cannot be read"):
        TokenStore.open(tmp_path)
    folder = write(tmp_path / "store")
    info = json.loads((folder / "store.json").read_text())
    for text, complaint in (
        ("{", "is no JSON"),
        ("[]", "not a JSON object"),
        (json.dumps(info | {"schema_version": 7}), "version 7 .* reads 1"),
        (json.dumps(info | {"vocabulary_size": 9}), "8 tokens, but .* promises 9"),
    ):
        (folder / "store.json").write_text(text)
        with pytest.raises(UserError, match=complaint):
            TokenStore.open(folder)


def test_a_store_that_was_broken_off_is_none(tmp_path):
    folder = tmp_path / "store"
    with pytest.raises(RuntimeError), StoreWriter(folder, VOCABULARY):
        raise RuntimeError
    with pytest.raises(UserError, match="is no token store"):
        TokenStore.open(folder)


def test_keys_are_those_of_every_machine():
    assert molecule_key("CCO") == 14074757553414938733
    assert molecule_key("CCO") != molecule_key("OCC")


def test_an_array_of_any_size_has_the_same_header(tmp_path):
    path = tmp_path / "a.npy"
    array = GrowingArray(path, np.uint64, (2,))
    rows = np.arange(400_000, dtype=np.uint64).reshape(-1, 2)
    for part in np.array_split(rows, 7):
        array.append(part)
    array.close()
    array.close()
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), rows)
