"""Derived files: made once, whole or not at all, usable without a cache folder."""

import os

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.cache import cache_folder, derived_folder, file_identity
from chemscale_jax.data.frames.flat import FlatFile


def _writer(text, calls):
    def fill(folder):
        calls.append(text)
        (folder / "x.txt").write_text(text)

    return fill


def test_made_once_per_key(cache):
    calls = []
    first = derived_folder("kind", {"a": 1}, _writer("one", calls))
    again = derived_folder("kind", {"a": 1}, _writer("two", calls))
    other = derived_folder("kind", {"a": 2}, _writer("three", calls))
    assert first == again != other
    assert first.parent == cache
    assert calls == ["one", "three"]


def test_a_failed_fill_leaves_nothing(cache):
    def fail(folder):
        (folder / "x.txt").write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        derived_folder("kind", {"a": 1}, fail)
    assert not list(cache.iterdir())

    def full(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left.*CHEMSCALE_CACHE"):
        derived_folder("kind", {"a": 1}, full)


def test_a_damaged_entry_is_made_again():
    calls = []
    folder = derived_folder("kind", {"a": 1}, _writer("one", calls))
    (folder / "x.txt").write_text("")
    derived_folder("kind", {"a": 1}, _writer("one", calls))
    assert (folder / "x.txt").read_text() == "one"
    assert len(calls) == 2


def test_an_unwritable_cache_gives_a_temporary_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CHEMSCALE_CACHE", str(tmp_path / "file" / "cache"))
    folder = derived_folder("kind", {"a": 1}, _writer("one", []))
    assert (folder / "x.txt").read_text() == "one"
    assert "set CHEMSCALE_CACHE" in capsys.readouterr().err


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv("CHEMSCALE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache_folder()) == "/somewhere/chemscale_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().parts[-2:] == (".cache", "chemscale_jax")


def test_file_identity_changes_with_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    before = file_identity(path)
    os.utime(path, ns=(1, 1))
    assert file_identity(path) != before


def test_a_flat_file_that_shrinks_is_noticed(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(8))
    flat = FlatFile(path, "<f4")
    assert flat.read(4, 1).tolist() == [0.0]
    with pytest.raises(OSError, match="cut short"):
        flat.read(4, 2)
