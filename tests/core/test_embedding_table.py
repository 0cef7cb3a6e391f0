"""Files of embeddings are read the same in each form, and blocks add up."""

import csv
import json

import numpy as np
import pytest

from chemscale_jax.core.embedding_readers import ABOUT_KEY
from chemscale_jax.core.embedding_table import (
    EmbeddingTable,
    blocks,
    joined,
    read_embeddings,
)
from chemscale_jax.core.errors import UserError

ABOUT = {"task": "causal_lm", "layer": 2, "pool": "mean"}
M, D = 7, 3


def make_table() -> EmbeddingTable:
    values = np.random.default_rng(0).normal(size=(M, D)).astype(np.float32)
    values[[0, 4]] = np.nan
    return EmbeddingTable(
        index=np.arange(M),
        where=np.array([f"mols.csv line {i + 2}" for i in range(M)]),
        smiles=np.array(["", "C", "CC", "CCO", "", "N", "O"]),
        status=np.array(["failed", "2d", "2d", "2d", "failed", "3d", "3d"]),
        reason=np.array(["empty", "", "", "", "not, a SMILES", "", ""]),
        values=values,
        columns={"label": np.array(["1", "", "x,y", "é", "0", "1", "2"])},
        about=ABOUT,
    )


def own_columns(table: EmbeddingTable) -> dict[str, list]:
    return {
        "label": table.columns["label"].tolist(),
        "row": table.index.tolist(),
        "where": table.where.tolist(),
        "canonical_smiles": table.smiles.tolist(),
        "status": table.status.tolist(),
        "reason": table.reason.tolist(),
        "conformers": [1] * len(table),
    }


def write(table: EmbeddingTable, path) -> None:
    rows = [None if np.isnan(x).all() else x.tolist() for x in table.values]
    if path.suffix == ".npz":
        table.save(path)
    elif path.suffix == ".csv":
        columns = own_columns(table)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, *(f"embedding_{d}" for d in range(D))])
            for place, row in enumerate(rows):
                own = [cells[place] for cells in columns.values()]
                writer.writerow([*own, *(row or [""] * D)])
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        kind = pyarrow.list_(pyarrow.float32())
        columns = own_columns(table) | {"embedding": pyarrow.array(rows, kind)}
        about = {ABOUT_KEY: json.dumps(dict(table.about)).encode()}
        parquet.write_table(pyarrow.table(columns).replace_schema_metadata(about), path)
    else:
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(path, mode="w")
        for name in ("index", "where", "smiles", "status", "reason", "values"):
            data = getattr(table, name)
            dtype = "str" if data.dtype.kind == "U" else data.dtype
            group.create_array(name, shape=data.shape, dtype=dtype)[...] = data
        cells = np.stack(list(table.columns.values()), 1)
        group.create_array("columns", shape=cells.shape, dtype="str")[...] = cells
        names = list(table.columns)
        group.attrs.update({**table.about, "column_names": names, "complete": True})


def check_equal(found: EmbeddingTable, table: EmbeddingTable) -> None:
    for name in ("index", "where", "smiles", "status", "reason", "values"):
        np.testing.assert_array_equal(getattr(found, name), getattr(table, name), name)
    assert found.values.dtype == np.float32
    assert list(found.columns) == ["label"]
    np.testing.assert_array_equal(found.columns["label"], table.columns["label"])


@pytest.mark.parametrize("ending", [".npz", ".csv", ".parquet", ".zarr"])
def test_each_form(ending, tmp_path):
    table, path = make_table(), tmp_path / f"e{ending}"
    write(table, path)
    check_equal(found := read_embeddings(path), table)
    assert dict(found.about) == ({} if ending == ".csv" else ABOUT)
    np.testing.assert_array_equal(found.usable, [0, 1, 1, 1, 0, 1, 1])
    assert [len(block) for block in blocks(path, rows=3)] == [3, 3, 1]
    check_equal(joined(list(blocks(path, rows=3))), table)


def test_take_keeps_columns_beside():
    table = make_table()
    some = table.take(table.usable)
    assert some.index.tolist() == [1, 2, 3, 5, 6]
    assert some.columns["label"].tolist() == ["", "x,y", "é", "1", "2"]
    assert some.usable.all()


def test_what_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_embeddings(tmp_path / "no.npz")
    with pytest.raises(UserError, match="must end in"):
        read_embeddings(tmp_path / "no.txt")
    path = tmp_path / "e.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a file of embeddings"):
        read_embeddings(path)
    table = make_table()
    table.save(path)
    whole = dict(np.load(path))
    np.savez(path, allow_pickle=False, **whole | {"molecule": np.arange(M)})
    with pytest.raises(UserError, match="holds atoms.*--level=molecule"):
        read_embeddings(path)
    np.savez(
        path, allow_pickle=False, **whole | {"values": np.zeros((M, 2, D), np.float32)}
    )
    with pytest.raises(UserError, match="several layers.*--layer"):
        read_embeddings(path)
    np.savez(path, allow_pickle=False, **whole | {"where": whole["where"][:-1]})
    with pytest.raises(UserError, match="different numbers of rows"):
        read_embeddings(path)
    del whole["status"]
    np.savez(path, allow_pickle=False, **whole)
    with pytest.raises(UserError, match="it has no status"):
        read_embeddings(path)
    table.take(slice(0)).save(path)
    with pytest.raises(UserError, match="has no row"):
        read_embeddings(path)


def test_cut_csv_names_its_row(tmp_path):
    path = tmp_path / "e.csv"
    write(make_table(), path)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], "1,2"]), encoding="utf-8")
    with pytest.raises(UserError, match="row 4 has 2 cells"):
        read_embeddings(path)


def test_zarr_is_read_when_it_is_whole(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "e.zarr"
    write(make_table(), path)
    zarr.open_group(path, mode="a").attrs.pop("complete")
    with pytest.raises(UserError, match="not written to its end"):
        read_embeddings(path)
    del zarr.open_group(path, mode="a")["status"]
    with pytest.raises(UserError, match="it has no status"):
        read_embeddings(path)
