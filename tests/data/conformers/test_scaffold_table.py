import numpy as np
import pytest

from chemscale_jax.chem.smiles import molecule_key, read_molecule
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers import scaffold_table as module
from chemscale_jax.data.conformers.build import Plan
from chemscale_jax.data.conformers.conform import conform_source
from chemscale_jax.data.conformers.scaffold_table import scaffold_table
from chemscale_jax.data.text.molecule_text import open_text

LINES = "CCO\nOCC\nCc1ccccc1\nOc1ccccc1\n\nC1CC1\nC(\nC\nCC\nCc1ccccc1\n"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "some.smi"
    path.write_text(LINES)
    return path


def test_a_file_and_its_store_are_counted_alike(tmp_path, text):
    plan = Plan(shards=2)
    options = {"workers": 0, "progress": False}
    conform_source(open_text(text), tmp_path / "store", plan, **options)
    of_file = scaffold_table(text, progress=False)
    of_store = scaffold_table(tmp_path / "store")
    assert (of_file.name, of_store.name) == ("some.smi", "store")
    for table in (of_file, of_store):
        assert (table.lines, table.unread) == (10, 2)
        assert table.scaffolds == ["", "c1ccccc1", "C1CC1"]
        assert table.counts.tolist() == [3, 2, 1]
        smiles = ("CCO", "Cc1ccccc1", "Oc1ccccc1", "C1CC1", "C", "CC")
        keys = sorted(molecule_key(read_molecule(s).canonical) for s in smiles)
        assert table.keys.tolist() == keys


def test_chunks_and_processes_change_nothing(text, monkeypatch):
    whole = scaffold_table(text, progress=False)
    monkeypatch.setattr("chemscale_jax.data.text.molecule_text.LINES_PER_CHUNK", 3)
    monkeypatch.setattr(module, "_WORTH_PROCESSES", 0)
    cut = scaffold_table(text, workers=1, progress=False)
    assert cut.scaffolds == whole.scaffolds
    assert np.array_equal(cut.counts, whole.counts)
    assert np.array_equal(cut.keys, whole.keys)


def test_what_is_neither(tmp_path):
    with pytest.raises(UserError, match="is no conformer store"):
        scaffold_table(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        scaffold_table(tmp_path / "x.smi")
