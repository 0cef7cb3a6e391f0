"""Public molecules, where they are at hand."""

import csv
import gzip
import itertools
import os
import pathlib
from collections import Counter

import numpy as np
import pytest

from chemscale_jax.chem.scaffolds import scaffold_of
from chemscale_jax.data.conformers.build import Plan
from chemscale_jax.data.conformers.codec import STATUS_CODES
from chemscale_jax.data.conformers.conform import conform_source
from chemscale_jax.data.conformers.scaffold_table import scaffold_table
from chemscale_jax.data.text.molecule_text import SmilesList, open_text, read_lines

pytestmark = pytest.mark.shared


@pytest.fixture
def shared():
    return pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data"


def test_conformers_of_public_molecules(shared, tmp_path):
    source = open_text(shared / "smiles/pubchem/pubchem_10k.txt")
    lines = [line.text for line in itertools.islice(read_lines(source), 300)]
    plan = Plan(shards=4)
    some = SmilesList(lines)
    store, *_ = conform_source(some, tmp_path / "s", plan, workers=2, progress=False)
    ledger = list(store.ledger())
    assert sorted([*store.lines, *(f.line for f in ledger)]) == list(range(1, 301))
    assert len(store) >= 290
    found = Counter(STATUS_CODES[i] for i in store.status)
    assert found["3d"] >= 0.95 * len(store), found
    assert len(np.unique(store.keys)) == len(store)
    for record in store.records(range(len(store))):
        assert np.isfinite(record.positions_KN3).all()
        assert bool(record.reason) == (record.status != "3d")


def test_scaffolds_are_those_of_the_reference(shared):
    with (shared / "ref/murcko_zinc250k_top1000.csv").open() as stream:
        rows = list(csv.reader(stream))
    counts = {row[0]: row[1] for row in rows if row[1].isdecimal()}
    path = shared / "smiles/zinc250k/250k_rndm_zinc_drugs_clean.smi.gz"
    with gzip.open(path, "rt") as stream:
        some = [line.split()[0] for line in itertools.islice(stream, 2000)]
    found = Counter(map(scaffold_of, some))
    # The frequent ones are among the frequent ones of the whole set.
    frequent = [smiles for smiles, n in found.most_common(20) if smiles]
    assert sum(smiles in counts for smiles in frequent) >= 0.9 * len(frequent)
    # And each is its own scaffold.
    for smiles in itertools.islice((s for s in counts if s), 200):
        assert scaffold_of(smiles) == smiles


def test_counts_of_two_public_files(shared, tmp_path):
    text = tmp_path / "some.smi"
    source = open_text(shared / "smiles/pubchem/pubchem_10k.txt")
    lines = [line.text for line in itertools.islice(read_lines(source), 500)]
    text.write_text("\n".join(lines) + "\n")
    table = scaffold_table(text, progress=False)
    assert table.counts.sum() == len(table.keys) <= table.lines - table.unread
    assert len(set(table.scaffolds)) == len(table.scaffolds)
