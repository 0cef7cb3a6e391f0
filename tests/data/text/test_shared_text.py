"""Public files of molecules, where they are at hand."""

import csv
import gzip
import itertools
import os
import pathlib

import numpy as np
import pytest

from chemscale_jax.data.text.finish_store import Finish
from chemscale_jax.data.text.molecule_text import open_text, read_lines
from chemscale_jax.data.text.tokenize import tokenize_source
from chemscale_jax.data.text.vocabulary_file import read_vocabulary

pytestmark = pytest.mark.shared


@pytest.fixture
def shared():
    return pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "data"


class First:
    """The first lines of a source."""

    def __init__(self, source, chunks):
        self._source, self._chunks = source, chunks
        self.layout, self.identity = source.layout, source.identity

    def chunks(self):
        return itertools.islice(self._source.chunks(), self._chunks)


@pytest.mark.parametrize(
    ("name", "lines", "first", "smiles"),
    [
        ("smiles/moses/dataset_v1_test.csv.gz", 176_074, 2, "CC1C2CCC(C2)C1CN(CCO)"),
        ("smiles/zinc250k/250k_rndm_zinc_drugs_clean.smi.gz", 249_456, 1, "CC(C)(C)"),
        ("smiles/moleculenet/muv.csv.gz", 93_127, 2, "Cc1cccc(N2CCN(C(=O)C34CC5"),
        ("smiles/corpus/pretrain_1m.smi.xz", 1_286_483, 1, ""),
        ("smiles/pubchem/pubchem_1k_smiles.txt", 999, 1, ""),
    ],
)
def test_public_files_are_read_to_the_last_line(shared, name, lines, first, smiles):
    source = open_text(shared / name)
    line = next(read_lines(source))
    assert line.number == first
    assert line.text.startswith(smiles)
    assert not line.reason
    last = None
    for last in source.chunks():
        assert last.first >= first
    assert last is not None
    assert last.first + len(last.lines) - first == lines


def test_ids_are_those_of_the_published_tokenizer(shared, tmp_path):
    ref = shared / "ref"
    folder = ref / "chemgpt_tokenizers" / "pubchem10M_selfiesv2_tokenizer"
    vocabulary = read_vocabulary(folder)
    source = First(open_text(shared / "smiles/pubchem/pubchem_10k.txt"), 2)
    store, _ = tokenize_source(
        source,
        tmp_path / "store",
        finish=Finish(vocabulary, on_unknown="keep", round_trip=300),
        workers=2,
        progress=False,
    )
    with gzip.open(ref / "selfies2.1.1_pubchem10k.tsv.gz", "rt") as stream:
        rows = list(itertools.islice(csv.DictReader(stream, delimiter="\t"), 2000))
    ids = {int(n): store.symbols(i) for i, n in enumerate(store.lines)}
    differing = []
    for number, row in enumerate(rows, 1):
        expected = [int(token) for token in row["token_ids"].split()][1:-1]
        found = ids.get(number, np.zeros(0)).tolist()
        if found != expected:
            differing.append(row["smiles"])
    # What SELFIES 2.1.1 refused, and the current one can say.
    assert [s for s in differing if "[PF6-]" not in s and "[P-]" not in s] == []
    assert len(store) + store.failed().total() == 2000
    # Only molecules with an unknown symbol, such as the "." of salts, are changed.
    unknown = store.tokens == vocabulary.unk
    with_unknown = np.add.reduceat(unknown, store.offsets[:-1]) > 0
    changed = {d["line"] for d in store.info["round_trip"]["differences"]}
    assert changed <= {271, *store.lines[with_unknown].tolist()}
    assert len(changed) == 10


def test_moses_has_a_complete_ledger(shared, tmp_path):
    source = First(open_text(shared / "smiles/moses/dataset_v1_test.csv.gz"), 3)
    store, cpu_s = tokenize_source(
        source, tmp_path / "store", workers=2, progress=False
    )
    assert len(store) + len(list(store.ledger())) == 3000
    assert len(store) >= 2999
    assert store.lines[0] == 2
    assert store.info["round_trip"]["share"] == 1.0
    assert store.vocabulary.size < 40
    assert cpu_s > 0
