import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.conformers import embedded_conformers as module
from chemscale_jax.data.conformers.embedded_conformers import (
    CARD_FILE,
    embedded_conformers,
)

# Every third one is small.
CORPUS = [f"{'C' * (1 + i % 3 * 8)}N{'C' * i}O" for i in range(15)]


def test_the_first_molecules_of_the_corpus(tmp_path, monkeypatch):
    asked = []

    def corpus(size, workers):
        asked.append(size)
        path = tmp_path / f"{size}.smi"
        path.write_text("\n".join(CORPUS[: size // 4]) + "\n")
        return path

    monkeypatch.setenv("CHEMSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "embedded_smiles", corpus)
    monkeypatch.setattr(module, "MAX_ATOMS", 14)
    store = embedded_conformers(4, 2, workers=0, progress=False)
    # The first corpus did not have so many small ones.
    assert asked == [15, 30]
    order = np.argsort(store.lines)
    small = [s for s in CORPUS if len(s) <= 14][:4]
    assert [record.smiles[-1] for record in store.records(order)] == ["O"] * 4
    assert store.atoms[order].tolist() == [len(smiles) for smiles in small]
    assert store.failed().total() == 0
    assert store.conformers.tolist() == [2] * 4
    card = (store.folder / CARD_FILE).read_text()
    assert f"| heavy atoms | {store.atoms.min()} to {store.atoms.max()}" in card
    assert "4 molecules with 8 conformers" in card
    assert "{" not in card
    # The second time, it is there.
    again = embedded_conformers(4, 2, workers=0, progress=False)
    assert again.folder == store.folder
    assert asked == [15, 30]
    with pytest.raises(UserError, match="size of the embedded conformers is 0"):
        embedded_conformers(0)
