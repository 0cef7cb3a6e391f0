"""The TFDS builders of molecule texts on small files, without network."""

import hashlib
import zipfile

import pytest

from chemscale_jax.commands import tokenize as command
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text.molecule_text import read_lines
from chemscale_jax.data.text.text_layout import MAX_LINE_BYTES
from chemscale_jax.data.text.token_store import TokenStore

tfds_moses = pytest.importorskip("chemscale_jax.data.text.tfds_moses")
tfds_pubchem10m = pytest.importorskip("chemscale_jax.data.text.tfds_pubchem10m")

MOSES = (
    b"SMILES,SPLIT\nCCO,train\nCC\xff,train\nCCC,test\n,test\nC,test_scaffolds\n"
    b"N\nO,../x\nc1ccccc1,test_scaffolds\n"
)


def lines(source):
    return [(line.number, line.text, line.reason) for line in read_lines(source)]


def test_moses_keeps_its_splits(tmp_path, capsys):
    file = tmp_path / "small.csv"
    file.write_bytes(MOSES)
    tfds_moses.prepare(tmp_path / "tfds", file=file)

    def split(name):
        return lines(tfds_moses.open_prepared(tmp_path / "tfds", name))

    assert split("train") == [(1, "CCO", ""), (2, "CC\\xff,train", "not_utf8")]
    assert split("test") == [(1, "CCC", ""), (2, "", "empty")]
    assert split("test_scaffolds") == [(1, "C", ""), (2, "c1ccccc1", "")]
    assert split("unassigned") == [(1, "N", ""), (2, "O", "")]
    with pytest.raises(UserError, match="splits test, test_scaffolds, train, unassig"):
        split("valid")
    # The second time nothing is read.
    file.unlink()
    file.write_bytes(b"")
    tfds_moses.prepare(tmp_path / "tfds", file=file)
    arguments = [str(tmp_path / "tfds"), f"--out={tmp_path / 'store'}", "--workers=0"]
    assert command.main([*arguments, "--split=test_scaffolds"]) == 0
    store = TokenStore.open(tmp_path / "store")
    assert len(store) == 2
    assert store.info["made"]["source"]["split"] == "test_scaffolds"
    with pytest.raises(UserError, match="--column is for files of text"):
        command.main([*arguments, "--column=SMILES"])
    capsys.readouterr()


def test_pubchem_is_read_from_its_archive(tmp_path):
    content = b"CCO\n\nC" + b"C" * MAX_LINE_BYTES + b"\nN\n"
    file = tmp_path / "pubchem_10m.txt.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("pubchem-10m.txt", content)
    tfds_pubchem10m.prepare(tmp_path / "tfds", file=file)
    found = lines(tfds_pubchem10m.open_prepared(tmp_path / "tfds", "train"))
    assert [(n, reason) for n, _, reason in found] == [
        (1, ""),
        (2, "empty"),
        (3, "line_too_long"),
        (4, ""),
    ]


def test_rows_without_the_column_fail_again(tmp_path):
    file = tmp_path / "pubchem.csv"
    file.write_bytes(b"name,smiles\nC\nethanol,CCO\n")
    tfds_pubchem10m.prepare(tmp_path / "tfds", file=file)
    first, second = (
        tfds_pubchem10m.open_prepared(tmp_path / "tfds").chunks().__next__()[1]
    )
    assert (first, second) == (b",C", b"CCO")


def test_what_is_not_the_official_file(tmp_path):
    file = tmp_path / "dataset_v1.csv"
    with pytest.raises(UserError, match=r"dataset_v1.csv is not there: give a copy"):
        tfds_moses.prepare(tmp_path, file=file)
    file.write_bytes(MOSES)
    found = hashlib.sha256(MOSES).hexdigest()
    with pytest.raises(UserError, match=f"not the official .* SHA-256 is {found}"):
        tfds_moses.prepare(tmp_path, file=file)
    other = tmp_path / "other.csv"
    other.write_bytes(b"SMILES\nC\n")
    with pytest.raises(UserError, match=r"no column 'SPLIT'.*columns are 'SMILES'"):
        tfds_moses.prepare(tmp_path, file=other)
    pubchem = tmp_path / "pubchem_10m.txt.zip"
    pubchem.write_bytes(b"")
    with pytest.raises(UserError, match="not the official pubchem_10m"):
        tfds_pubchem10m.prepare(tmp_path, file=pubchem, sha256="0" * 64)
    with pytest.raises(UserError, match="must hold one prepared TFDS data set"):
        tfds_moses.open_prepared(tmp_path)


def test_official_addresses():
    (moses,) = tfds_moses.Moses.BUILDER_CONFIGS
    assert moses.url.endswith("molecularsets/moses/master/data/dataset_v1.csv")
    assert (moses.size, len(moses.sha256)) == (84_482_588, 64)
    (pubchem,) = tfds_pubchem10m.Pubchem10m.BUILDER_CONFIGS
    assert pubchem.url.endswith("/datasets/pubchem_10m.txt.zip")
    assert not pubchem.sha256


def test_checksums_of_downloads(tmp_path):
    builder = tfds_moses.Moses(data_dir=str(tmp_path))
    (info,) = builder.url_infos.values()
    assert info.checksum == tfds_moses.OFFICIAL.sha256
    plain = tfds_pubchem10m.Pubchem10m(data_dir=str(tmp_path))
    assert plain.url_infos is None
