import csv
import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from chemscale_jax.chem import selfies_codec
from chemscale_jax.chem.smiles import molecule_key, read_molecule
from chemscale_jax.chem.vocabulary import SPECIALS, Vocabulary
from chemscale_jax.commands import tokenize as command
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text import encode_lines, molecule_text, token_parts
from chemscale_jax.data.text import tokenize as module
from chemscale_jax.data.text.finish_store import Finish
from chemscale_jax.data.text.molecule_text import SmilesList
from chemscale_jax.data.text.token_store import TokenStore
from chemscale_jax.data.text.tokenize import (
    tokenize_file,
    tokenize_smiles,
    tokenize_source,
)
from tests.data.hostile_lines import hostile_lines
from tests.data.peak_memory import run_fresh

GOOD = [
    "CCO",
    "c1ccccc1O",
    "N[C@@H](C)C(=O)O",
    "[13CH4]",
    "CC(=O)[O-].[Na+]",
    "F/C=C/F",
]
BAD = {"": "empty", "C(C": "syntax", "CC*": "wildcard", "CCO>>CC=O": "reaction"}
LINES = [GOOD[0], *BAD, *GOOD[1:]]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def decoded(store, i):
    symbols = store.vocabulary.decode(store.symbols(i).tolist())
    return "".join(symbols)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(molecule_text, "LINES_PER_CHUNK", 3)
    monkeypatch.setattr(module, "LINES_PER_CHUNK", 3)


@pytest.mark.parametrize("notation", ["selfies", "selfies-1", "smiles"])
def test_every_line_is_a_molecule_or_a_failure(notation):
    store = tokenize_smiles(LINES, notation=notation)
    assert store.vocabulary.notation == store.info["notation"] == notation
    assert store.lines.tolist() == [1, 6, 7, 8, 9, 10]
    ledger = list(store.ledger())
    assert [(f.line, f.smiles, f.reason) for f in ledger] == [
        (line, *item) for line, item in enumerate(BAD.items(), 2)
    ]
    assert all(f.message for f in ledger)
    assert store.info["lines"] == len(LINES) == len(store) + len(ledger)
    assert store.info["failed"] == dict.fromkeys(sorted(BAD.values()), 1)
    assert store.info["round_trip"]["share"] == 1.0
    assert store.coverage["unknown"] == {}
    for i, smiles in enumerate(GOOD):
        parsed = read_molecule(smiles)
        keys = [molecule_key(parsed.canonical), molecule_key(parsed.neutral)]
        assert store.keys[i].tolist() == keys
        assert store.heavy_atoms[i] == parsed.heavy_atoms
        if notation == "smiles":
            assert decoded(store, i) == smiles
        if notation == "selfies":
            assert decoded(store, i) == "".join(selfies_codec.encode(smiles))
    assert int(store.tokens.min()) >= Vocabulary.specials


def test_the_vocabulary_is_ordered_by_count():
    store = tokenize_smiles(["CCO", "CCN", "CO"])
    assert store.vocabulary.tokens == (*SPECIALS, "[C]", "[O]", "[N]")
    assert [store.symbols(i).tolist() for i in range(3)] == [
        [5, 5, 6],
        [5, 5, 7],
        [5, 6],
    ]
    assert store.coverage["known"]["[C]"] == {"count": 5, "molecules": 3}


def test_what_is_encoded_is_what_is_written(tmp_path):
    written = tokenize_smiles(["OCC", "[CH3:1]C"], notation="smiles")
    assert [decoded(written, i) for i in range(2)] == ["OCC", "CC"]
    source = SmilesList(["OCC", "C(N)"])
    store, _ = tokenize_source(
        source,
        tmp_path / "s",
        notation="smiles",
        canonical=True,
        workers=0,
        progress=False,
    )
    assert [decoded(store, i) for i in range(2)] == ["CCO", "CN"]


@pytest.mark.parametrize("size", [1, 3, 4, 1000])
def test_chunks_do_not_change_the_store(tmp_path, monkeypatch, size):
    whole = tokenize_smiles(LINES)
    monkeypatch.setattr(molecule_text, "LINES_PER_CHUNK", size)
    store = tokenize_smiles(LINES)
    np.testing.assert_array_equal(store.tokens, whole.tokens)
    np.testing.assert_array_equal(store.keys, whole.keys)
    assert (store.info, store.coverage) == (whole.info, whole.coverage)
    assert list(store.ledger()) == list(whole.ledger())


VOCABULARY = Vocabulary((*SPECIALS, "[C]", "[O]", "[=C]"), "selfies")


def test_unknown_symbols_are_never_silent(tmp_path, small_chunks):
    smiles = ["CCO", "CCN", "", "NC#N", "C=C", "CF"]
    dropped = tokenize_smiles(smiles, vocabulary=VOCABULARY)
    assert dropped.vocabulary == VOCABULARY
    assert dropped.lines.tolist() == [1, 5]
    assert [tuple(failure) for failure in dropped.ledger()] == [
        (2, "unknown_symbol", "CCN", "[N]"),
        (3, "empty", "", "the line is empty"),
        (4, "unknown_symbol", "NC#N", "[N] [#N]"),
        (6, "unknown_symbol", "CF", "[F]"),
    ]
    assert dropped.info["failed"] == {"empty": 1, "unknown_symbol": 3}
    assert dropped.coverage["unknown"] == {
        "[N]": {"count": 2, "molecules": 2},
        "[#N]": {"count": 1, "molecules": 1},
        "[F]": {"count": 1, "molecules": 1},
    }
    assert dropped.coverage["molecules_with_unknown"] == 3
    kept = tokenize_smiles(smiles, vocabulary=VOCABULARY, on_unknown="keep")
    assert kept.lines.tolist() == [1, 2, 4, 5, 6]
    assert kept.symbols(1).tolist() == [5, 5, 0]
    assert kept.info["round_trip"]["equal"] == 2
    assert [d["line"] for d in kept.info["round_trip"]["differences"]] == [2, 4, 6]
    with pytest.raises(UserError, match=r"are not in the vocabulary of 8 .*: \[N\]"):
        tokenize_smiles(smiles, vocabulary=VOCABULARY, on_unknown="fail")


def test_a_vocabulary_that_is_full_drops_the_rare(tmp_path, monkeypatch):
    source = SmilesList(["CCO", "CCO", "CF"])
    finish = Finish(max_vocabulary=7)
    store, _ = tokenize_source(
        source, tmp_path / "s", finish=finish, workers=0, progress=False
    )
    assert store.vocabulary.tokens == (*SPECIALS, "[C]", "[O]")
    assert [tuple(f) for f in store.ledger()] == [(3, "unknown_symbol", "CF", "[F]")]
    # Other ways to finish start from the same parts, which a failure leaves there.
    finish = Finish(max_vocabulary=7, on_unknown="fail")
    with pytest.raises(UserError, match=r"\[F\]"):
        tokenize_source(
            source, tmp_path / "t", finish=finish, workers=0, progress=False
        )
    finish = Finish(max_vocabulary=7, on_unknown="keep")
    monkeypatch.setattr(module, "encode_chunk", lambda *_, **__: pytest.fail("again"))
    store, _ = tokenize_source(
        source, tmp_path / "t", finish=finish, workers=0, progress=False
    )
    assert len(store) == 3


def test_more_symbols_than_ids(monkeypatch):
    monkeypatch.setattr(token_parts, "OVERFLOW", 3)
    store = tokenize_smiles(["CO", "CF", "CN", "CS", "FCO", "CCl"])
    assert store.lines.tolist() == [1, 2, 5]
    assert [(f.line, f.smiles, f.reason) for f in store.ledger()] == [
        (3, "CN", "unknown_symbol"),
        (4, "CS", "unknown_symbol"),
        (6, "CCl", "unknown_symbol"),
    ]


def test_pieces_of_words():
    pieces = Vocabulary((*SPECIALS, "[C]", "[", "##N", "##]"), "selfies", True)
    store = tokenize_smiles(["CN", "CNC", "CF"], vocabulary=pieces)
    assert store.symbols(0).tolist() == [5, 6, 7, 8]
    assert store.symbols(1).tolist() == [5, 6, 7, 8, 5]
    assert store.lengths.tolist() == [4, 5]
    assert store.coverage["cut_into_pieces"] == {"[N]": {"count": 2, "molecules": 2}}
    assert store.info["round_trip"]["share"] == 1.0
    assert [f.line for f in store.ledger()] == [3]


def test_molecules_that_take_too_long_or_fail_strangely(monkeypatch):
    slow = read_molecule

    def reader(text, quiet):
        if text == "CCC":
            while True:
                pass
        if text == "CCCC":
            raise RuntimeError("strange\nbusiness")
        return slow(text)

    monkeypatch.setattr(encode_lines, "read_molecule", reader)
    chunk = next(SmilesList(["CC", "CCC", "CCCC", "C"]).chunks())
    began = time.process_time()
    encoded = encode_lines.encode_chunk(
        chunk,
        {3: "crashed"},
        lambda place: None,
        layout=SmilesList([]).layout,
        notation="selfies",
        limit_s=0.2,
    )
    assert time.process_time() - began < 5
    assert encoded.lines.tolist() == [1]
    rows = list(csv.reader(encoded.ledger.decode().splitlines()))
    assert [row[:2] for row in rows] == [
        ["2", "too_slow"],
        ["3", "error"],
        ["4", "crashed"],
    ]
    assert rows[1][3] == "RuntimeError: strange\\nbusiness"
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def mixed_file(path, n=3000):
    lines = [*hostile_lines(n // 2, seed=1), *(s.encode() for s in GOOD * (n // 12))]
    random.Random(2).shuffle(lines)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch, capsys):
    text = mixed_file(tmp_path / "text.smi")
    unbroken = tmp_path / "unbroken"
    tokenize_file(text, unbroken, workers=2, progress=False)
    out = tmp_path / "out"
    journal = tmp_path / "out.parts" / "journal.jsonl"
    script = "import sys; from chemscale_jax.commands import tokenize as c; c.main"
    start = [sys.executable, "-c", f"{script}(sys.argv[1:])", str(text)]
    with subprocess.Popen(
        [*start, f"--out={out}", "--workers=1"], stderr=subprocess.DEVNULL
    ) as run:
        while not (journal.exists() and journal.stat().st_size):
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
    assert not out.exists()
    done = [json.loads(line) for line in journal.read_bytes().splitlines()]
    assert 1 <= len(done) < 3, "it was too fast to be killed"
    # A broken last record, and data behind the last whole one.
    for file in (tmp_path / "out.parts").glob("*.part"):
        with file.open("ab") as stream:
            stream.write(b"x" * 7)
    with journal.open("ab") as stream:
        stream.write(b'{"progress": [3')
    calls = []
    encode = module.encode_chunk

    def spy(chunk, *args, **options):
        calls.append(chunk.first)
        return encode(chunk, *args, **options)

    monkeypatch.setattr(module, "encode_chunk", spy)
    assert command.main([str(text), f"--out={out}", "--workers=0"]) == 0
    assert calls == [1000 * i + 1 for i in range(len(done), 3)]
    assert contents(out) == contents(unbroken)
    assert not journal.parent.exists()
    printed = capsys.readouterr().out
    assert "lines       3,000: " in printed
    assert "molecules come back the same" in printed


def test_a_finished_store_is_left_alone(tmp_path):
    text = tmp_path / "a.smi"
    text.write_text("CCO\nCC\n")
    out = tmp_path / "out"
    options = {"workers": 0, "progress": False}
    tokenize_file(text, out, **options)
    before = contents(out)
    stamp = (out / "tokens.bin").stat().st_mtime_ns
    assert len(tokenize_file(text, out, **options)) == 2
    assert (out / "tokens.bin").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="store of another file or of other settings"):
        tokenize_file(text, out, notation="smiles", **options)
    text.write_text("CCO\nCN\n")
    with pytest.raises(UserError, match="store of another file or of other settings"):
        tokenize_file(text, out, **options)
    assert contents(out) == before


def test_parts_of_other_settings_or_processes(tmp_path):
    folder = tmp_path / "out.parts"
    with token_parts.TokenParts(folder, {"source": 1}) as parts:
        assert parts.progress.chunks == 0
        with pytest.raises(UserError, match="another process is writing"):
            token_parts.TokenParts(folder, {"source": 1})
    with pytest.raises(UserError, match="source: 1, now 2.*remove the folder"):
        token_parts.TokenParts(folder, {"source": 2})


def test_what_makes_no_sense(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    selfies = Vocabulary((*SPECIALS, "[C]"), "selfies")
    for options, complaint in (
        ({"notation": "inchi"}, "no notation 'inchi': use selfies"),
        ({"finish": Finish(on_unknown="hope")}, "on_unknown is 'hope'"),
        ({"finish": Finish(max_vocabulary=5)}, "max_vocabulary is 5"),
        ({"finish": Finish(round_trip=-1)}, "round_trip is -1"),
        ({"finish": Finish(selfies), "notation": "smiles"}, "one of selfies, not of"),
        ({"workers": -1}, "workers is -1"),
        ({"out": tmp_path / "full"}, "is there and no token store"),
        ({"out": tmp_path / "file"}, "is there and no token store"),
        ({"out": tmp_path / "file" / "x"}, "choose another --out"),
        ({"source": SmilesList([])}, "holds no line with a molecule"),
    ):
        arguments: dict = {"source": SmilesList(["C"]), "out": tmp_path / "o"} | options
        with pytest.raises(UserError, match=complaint):
            tokenize_source(**{"workers": 0, "progress": False} | arguments)


def peaks_of(text, out):
    """Peak memory in bytes of a run, of the main process and of its worker."""
    script = (
        "import sys\n"
        "from chemscale_jax.data.text.tokenize import tokenize_file\n"
        "from tests.data.peak_memory import peak_bytes, watch_children\n"
        "worker = [0]\n"
        "watch_children(worker)\n"
        "tokenize_file(*sys.argv[1:], workers=1, progress=False)\n"
        "print(peak_bytes(), worker[0])\n"
    )
    return [int(number) for number in run_fresh(script, text, out).split()]


@pytest.mark.parametrize("n", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_hostile_lines(tmp_path, n):
    text = tmp_path / "hostile.smi"
    lines = list(hostile_lines(n))
    text.write_bytes(b"\n".join(lines) + b"\n")
    peaks = peaks_of(text, tmp_path / "store")
    store = TokenStore.open(tmp_path / "store")
    ledger = list(store.ledger())
    accounted = np.concatenate([store.lines, [f.line for f in ledger]])
    np.testing.assert_array_equal(np.sort(accounted), np.arange(1, n + 1))
    assert store.info["lines"] == n == len(store) + store.failed().total()
    assert {f.reason for f in ledger} >= {
        *("empty", "not_utf8", "not_text", "wildcard", "reaction", "syntax"),
        *("too_long", "too_large", "query", "valence", "kekulisation"),
    }
    assert all(len(f.smiles) + len(f.message) < 400 for f in ledger)
    assert store.info["round_trip"]["molecules"] == min(
        max(len(store) // 50, 200), 1000
    )
    print({"peaks_mb": [peak / 1e6 for peak in peaks], **store.info["failed"]})
    assert max(peaks) < 400e6
    if n > 3_000:
        # A tenth of the lines takes nearly the same memory.
        small = tmp_path / "small.smi"
        small.write_bytes(b"\n".join(lines[: n // 10]) + b"\n")
        for large, little in zip(peaks, peaks_of(small, tmp_path / "s"), strict=True):
            assert large < little + 40e6
