import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from chemscale_jax.chem.conformers import ConformerSettings, conform
from chemscale_jax.chem.molecule_record import record_of_smiles
from chemscale_jax.chem.smiles import molecule_key, read_molecule
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers import build as conformer_build
from chemscale_jax.data.conformers import conform as module
from chemscale_jax.data.conformers import parts as conformer_parts
from chemscale_jax.data.conformers import shards as conformer_shards
from chemscale_jax.data.conformers import steps as conformer_steps
from chemscale_jax.data.conformers.build import Plan
from chemscale_jax.data.conformers.codec import ERROR_ANG
from chemscale_jax.data.conformers.conform import conform_source
from chemscale_jax.data.conformers.shards import write_shard
from chemscale_jax.data.conformers.steps import (
    Candidate,
    leave_out_repeats,
    make_molecules,
    shard_of,
    shard_of_key,
)
from chemscale_jax.data.text.molecule_text import SmilesList, open_text
from tests.data.hostile_lines import hostile_lines

GOOD = ["CCO", "c1ccccc1O", "C[C@H](N)C(=O)O", "CC(=O)[O-].[Na+]", "Cc1ccncc1", "C"]
BAD = {"": "empty", "C(C": "syntax", "CC*": "wildcard", "[H][H]": "unusable"}
# The second spelling of each is a repeat.
LINES = [GOOD[0], *BAD, *GOOD[1:], "OCC", "Oc1ccccc1", "N[C@@H](C)C(=O)O"]
HALOGENS = ("F", "Cl", "Br", "I")
QUIET = {"workers": 0, "progress": False}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check_counts(store, n_lines):
    """Every line is once in the store or once in the ledger."""
    ledger = list(store.ledger())
    lines = [*store.lines.tolist(), *(failure.line for failure in ledger)]
    assert sorted(lines) == list(range(1, n_lines + 1))
    assert [f.line for f in ledger] == sorted(f.line for f in ledger)
    assert Counter(f.reason for f in ledger) == store.failed()
    assert store.info["lines"] == n_lines == len(store) + store.failed().total()
    assert sum(store.info["statuses"].values()) == len(store)
    assert len(np.unique(store.keys)) == len(store)
    assert store.info["conformers"] == store.conformers.sum()
    assert sum(molecules for _, molecules in store.info["shards"]) == len(store)


def test_every_line_is_a_molecule_or_a_row_of_the_ledger(tmp_path):
    settings = ConformerSettings(count=2, seed=5)
    plan = Plan(conformers=settings, shards=2)
    store, made, cpu_s = conform_source(
        SmilesList(LINES), tmp_path / "s", plan, **QUIET
    )
    assert (made, cpu_s > 0) == (len(store), True)
    check_counts(store, len(LINES))
    assert store.failed() == {**dict.fromkeys(BAD.values(), 1), "duplicate": 3}
    repeats = [f for f in store.ledger() if f.reason == "duplicate"]
    assert [(f.line, f.message) for f in repeats] == [
        (11, "the molecule of line 1"),
        (12, "the molecule of line 6"),
        (13, "the molecule of line 7"),
    ]
    by_line = {int(line): i for i, line in enumerate(store.lines)}
    for line in by_line:
        smiles = read_molecule(LINES[line - 1]).canonical
        wanted = conform(record_of_smiles(smiles, f"line {line}"), settings)
        found = store.record(by_line[line])
        assert (found.name, found.smiles) == (f"line {line}", smiles)
        assert found.status == wanted.status == "3d"
        moved = np.abs(found.positions_KN3 - wanted.positions_KN3).max()
        assert moved <= ERROR_ANG
        assert store.keys[by_line[line]] == molecule_key(smiles)
    shards = shard_of(store.keys, 2)
    assert shards.tolist() == sorted(shards)
    ends = np.cumsum([molecules for _, molecules in store.info["shards"]])
    assert ends.tolist() == [int((shards == 0).sum()), len(store)]


def test_shards_are_ranges_of_keys():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**64, 10_000, np.uint64)
    for shards in (1, 3, 1000):
        found = shard_of(keys, shards)
        assert [shard_of_key(int(key), shards) for key in keys[:100]] == [
            *found[:100].tolist()
        ]
        counts = np.bincount(found.astype(int), minlength=shards)
        assert len(counts) == shards
        assert counts.min() > 0
        order = np.argsort(keys)
        assert (np.diff(found[order].astype(int)) >= 0).all()
    ends = np.array([0, 2**64 - 1], np.uint64)
    assert shard_of(ends, 7).tolist() == [0, 6]


def test_repeats_are_told_by_smiles_not_by_key():
    some = [Candidate(5, 1, "CC"), Candidate(2, 1, "CO"), Candidate(3, 1, "CC")]
    distinct, repeats = leave_out_repeats(some)
    assert distinct == [some[1], some[2]]
    assert [(f.line, f.message) for f in repeats] == [(5, "the molecule of line 3")]


def test_molecules_that_end_their_process():
    options = {"settings": ConformerSettings(), "max_atoms": 9, "float32": False}
    some = [Candidate(i, i, smiles) for i, smiles in enumerate(("CC", "CO", "CN"), 1)]
    places = []
    making = make_molecules(
        some, {0: "crashed", 3: "too_slow"}, places.append, **options
    )
    # The record of the first is not touched, nor the conformers of the second.
    assert places == [2, 4, 5]
    assert [(f.line, f.reason) for f in making.failures] == [(1, "crashed")]
    assert [(m.line, m.status) for m in making.molecules] == [(2, 2), (3, 0)]


def test_hostile_lines(tmp_path):
    lines = [line for line in hostile_lines(80, seed=3) if len(line) < 300]
    (tmp_path / "h.smi").write_bytes(b"\n".join(lines) + b"\n")
    plan = Plan(max_atoms=40, shards=3)
    source = open_text(tmp_path / "h.smi")
    store, *_ = conform_source(source, tmp_path / "s", plan, **QUIET)
    check_counts(store, len(lines))
    assert len(store) > 10
    assert store.failed()["too_large"] > 0
    assert store.failed().total() > 30
    assert store.atoms.max() <= 40


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr("chemscale_jax.data.text.molecule_text.LINES_PER_CHUNK", 7)
    monkeypatch.setattr(conformer_build, "LINES_PER_CHUNK", 7)
    for some in (conformer_build, module):
        monkeypatch.setattr(some, "PER_JOB", 2)


class Killed(BaseException):
    pass


def test_a_run_may_stop_anywhere(tmp_path, monkeypatch, small_pieces):
    source = SmilesList(LINES)
    plan = Plan(shards=3)
    whole, *_ = conform_source(source, tmp_path / "whole", plan, **QUIET)
    steps = itertools.count()
    kills = 0

    def stops(function):
        def stopping(*args, **options):
            here = next(steps) == kills // 2 % 9
            if here and kills % 2:
                raise Killed
            result = function(*args, **options)
            if here:
                raise Killed
            return result

        return stopping

    files = module.JournaledFiles
    monkeypatch.setattr(files, "append", stops(files.append))
    for name in ("write_json", "_write_scaffolds", "_write_ledger"):
        function = getattr(conformer_shards, name)
        monkeypatch.setattr(conformer_shards, name, stops(function))
    monkeypatch.setattr(conformer_parts, "write_shard", stops(write_shard))
    made = Counter()
    real = conformer_steps.conform

    def counted(record, settings):
        made[record.smiles] += 1
        return real(record, settings)

    monkeypatch.setattr(conformer_steps, "conform", counted)
    while True:
        steps = itertools.count()
        try:
            store, *_ = conform_source(source, tmp_path / "s", plan, **QUIET)
            break
        except Killed:
            kills += 1
            assert kills < 99
            assert not (tmp_path / "s").exists()
    assert kills >= 8
    assert contents(store.folder) == contents(whole.folder)
    assert not (tmp_path / "s.parts").exists()
    # At most what one job made is lost each time.
    assert made.total() <= len(whole) + 2 * kills


def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path):
    rng = random.Random(0)
    acids = [
        f"{'C' * n}c1ccc({'O' * k}C)cc1C(=O)O" for n in range(1, 7) for k in (0, 1)
    ]
    amines = [f"NC1CCN({'C' * n}c2ccc({x})cc2)C1" for n in range(9) for x in HALOGENS]
    lines = [*acids, *amines, *acids[:6], "", "C(", *GOOD]
    rng.shuffle(lines)
    text = tmp_path / "text.smi"
    text.write_text("\n".join(lines) + "\n")
    flags = [str(text), "--seed=7", "--shards=3"]
    script = (
        "import sys; from chemscale_jax.commands import conformers as c\n"
        "if __name__ == '__main__': sys.exit(c.main(sys.argv[1:]))"
    )
    (tmp_path / "run.py").write_text(script)
    start = [sys.executable, str(tmp_path / "run.py"), *flags]
    out, parts = tmp_path / "out", tmp_path / "out.parts"
    with subprocess.Popen(
        [*start, f"--out={out}", "--workers=2"], stderr=subprocess.DEVNULL
    ) as run:
        while not list(parts.glob("shard-*.parts/journal.jsonl")):
            assert run.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)
        run.send_signal(signal.SIGKILL)
    assert not out.exists(), "it was too fast to be killed"
    assert parts.exists()
    # A broken last record, and data behind the last whole one.
    for file in parts.glob("*/*.part"):
        with file.open("ab") as stream:
            stream.write(b"x" * 7)
    for journal in parts.glob("*/journal.jsonl"):
        with journal.open("ab") as stream:
            stream.write(b'{"state": {"jobs": 9')
    plan = Plan(conformers=ConformerSettings(seed=7), shards=3)
    source = open_text(text)
    store, *_ = conform_source(source, out, plan, **QUIET)
    whole, *_ = conform_source(source, tmp_path / "whole", plan, **QUIET)
    assert contents(out) == contents(whole.folder)
    assert not parts.exists()
    check_counts(store, len(lines))
    assert store.failed() == {"duplicate": 6, "empty": 1, "syntax": 1}
    # Given again, nothing is made, and nothing changes.
    again, made, _ = conform_source(source, out, plan, **QUIET)
    assert (len(again), made) == (len(store), 0)
    with pytest.raises(UserError, match="store of another file or of other settings"):
        conform_source(source, out, Plan(shards=3), **QUIET)


def test_parts_of_other_settings(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise Killed

    monkeypatch.setattr(module, "make_molecules", stop)
    source = SmilesList(GOOD)
    with pytest.raises(Killed):
        conform_source(source, tmp_path / "s", Plan(shards=1), **QUIET)
    with pytest.raises(UserError, match="max_atoms: 256, now 9.*remove the folder"):
        conform_source(source, tmp_path / "s", Plan(shards=1, max_atoms=9), **QUIET)
    stamp = json.loads((tmp_path / "s.parts" / "read" / "settings.json").read_text())
    assert stamp["conformers"]["count"] == 1


def test_what_makes_no_sense(tmp_path):
    (tmp_path / "file").write_text("")
    for options, complaint in (
        ({"plan": Plan(shards=-1)}, "shards is -1: use 0 to 10000"),
        ({"plan": Plan(max_atoms=0)}, "max_atoms is 0: use 1 to"),
        (
            {"plan": Plan(conformers=ConformerSettings(count=9999))},
            "conformers is 9999",
        ),
        ({"plan": Plan(conformers=ConformerSettings(seed=-1))}, "seed is -1"),
        ({"workers": -1}, "workers is -1"),
        ({"out": tmp_path / "file"}, "is there and no conformer store"),
        ({"out": tmp_path / "file" / "x"}, "choose another --out"),
        ({"source": SmilesList([])}, "holds no line with a molecule"),
    ):
        arguments: dict = {"source": SmilesList(["C"]), "out": tmp_path / "o"}
        with pytest.raises(UserError, match=complaint):
            conform_source(**{**QUIET, **arguments, **options})
