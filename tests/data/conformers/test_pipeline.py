"""The Apache Beam way gives the files of the local way."""

import sys

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers import pipeline as module
from chemscale_jax.data.conformers.build import Plan
from chemscale_jax.data.conformers.conform import conform_source
from chemscale_jax.data.conformers.pipeline import conform_with_beam
from chemscale_jax.data.text.molecule_text import SmilesList

LINES = ["CCO", "", "c1ccccc1O", "C(C", "OCC", "[H][H]", "CC(=O)[O-].[Na+]", "CN"]
PLAN = Plan(shards=3)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_without_beam_it_says_what_to_install(tmp_path, monkeypatch):
    module._beam.cache_clear()
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install 'chemscale_jax\[beam\]'"):
        conform_with_beam(SmilesList(LINES), tmp_path / "s", PLAN)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Beam and what it brings have some
def test_beam_gives_the_files_of_the_local_way(tmp_path, monkeypatch):
    beam = pytest.importorskip("apache_beam")
    source = SmilesList(LINES)
    local, *_ = conform_source(
        source, tmp_path / "local", PLAN, workers=0, progress=False
    )
    store = conform_with_beam(source, tmp_path / "beam", PLAN)
    assert contents(store.folder) == contents(local.folder)
    assert not (tmp_path / "beam.parts").exists()
    # The store is there already.
    monkeypatch.setattr(beam, "Pipeline", lambda **_: pytest.fail("again"))
    assert len(conform_with_beam(source, tmp_path / "beam", PLAN)) == len(local)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_complete_shards_are_not_made_again(tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    source = SmilesList(LINES)
    local, *_ = conform_source(
        source, tmp_path / "local", PLAN, workers=0, progress=False
    )
    write = module.write_shard

    def fails_at_two(folder, number, *rest):
        if number == 2:
            raise RuntimeError("no room")
        write(folder, number, *rest)

    monkeypatch.setattr(module, "write_shard", fails_at_two)
    in_memory = "--direct_running_mode=in_memory"
    with pytest.raises(UserError, match="the same command goes on from there"):
        conform_with_beam(source, tmp_path / "beam", PLAN, options=in_memory)
    parts = tmp_path / "beam.parts"
    # Whatever was complete when it failed; the others are pretended.
    done = {number for number in range(3) if module.has_shard(parts, number)}
    assert 2 not in done
    for number in {0, 1} - done:
        write(parts, number, 3, *_shard(local, number))
    written = []

    def noted(folder, number, *rest):
        written.append(number)
        write(folder, number, *rest)

    monkeypatch.setattr(module, "write_shard", noted)
    store = conform_with_beam(source, tmp_path / "beam", PLAN, options=in_memory)
    assert written == [2]
    assert contents(store.folder) == contents(local.folder)


def _shard(store, number):
    """Molecules and failures of a shard of a store."""
    from chemscale_jax.data.conformers.steps import (
        encode_molecule,
        shard_of_key,
        shard_of_line,
    )

    molecules = [
        encode_molecule(store.record(i), int(store.lines[i]), float32=False)
        for i in range(len(store))
        if shard_of_key(int(store.keys[i]), 3) == number
    ]
    failures = []
    for failure in store.ledger():
        if failure.reason == "duplicate":
            first = int(failure.message.rpartition(" ")[2])
            place = store.lines.tolist().index(first)
            own = shard_of_key(int(store.keys[place]), 3)
        elif failure.reason == "unusable":
            from chemscale_jax.chem.smiles import molecule_key

            own = shard_of_key(molecule_key(failure.smiles), 3)
        else:
            own = shard_of_line(failure.line, 3)
        if own == number:
            failures.append(failure)
    return molecules, failures
