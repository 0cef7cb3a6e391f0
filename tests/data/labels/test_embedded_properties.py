import csv

from chemscale_jax.chem.drug_properties import MAX_ATOMS, TARGETS
from chemscale_jax.data.labels.embedded_properties import embedded_properties


def test_a_table_to_try_things_on_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEMSCALE_CACHE", str(tmp_path))
    path = embedded_properties()
    made = path.stat().st_mtime_ns
    assert embedded_properties().stat().st_mtime_ns == made
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 200
    by_name = {row["name"]: row for row in rows}
    assert set(rows[0]) == {"name", "smiles", *TARGETS}
    # Ethers and benzene rings like fat, acids do not.
    assert float(by_name["ibuprofen"]["logP"]) > float(by_name["aspirin"]["logP"])
    assert all(0 < float(row["QED"]) < 1 for row in rows)
    letters = [sum(c.isalpha() for c in row["smiles"]) for row in rows]
    assert max(letters) <= 2 * MAX_ATOMS
