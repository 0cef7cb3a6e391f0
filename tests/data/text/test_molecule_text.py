import bz2
import gzip
import lzma
import sys
import zipfile

import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text.molecule_text import (
    LINES_PER_CHUNK,
    SmilesList,
    open_text,
    read_lines,
)
from chemscale_jax.data.text.text_layout import MAX_LINE_BYTES
from tests.data.peak_memory import run_fresh


def read(path, column=""):
    return [
        (n, text, reason) for n, text, reason, _ in read_lines(open_text(path, column))
    ]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


CASES = {
    # name: content, column, expected (line, SMILES, reason)
    "names.csv": ("name,SMILES\nethanol,CCO\n", "", [(2, "CCO", "")]),
    "other.csv": ("a,mol\n1,CCO\n2,C\n", "mol", [(2, "CCO", ""), (3, "C", "")]),
    "case.csv": ("a,Mol\n1,CCO\n", "mol", [(2, "CCO", "")]),
    "canonical.csv": ("id,canonical_smiles,smi\n1,C,N\n", "", [(2, "C", "")]),
    "one.csv": ("CCO\nC\n", "", [(1, "CCO", ""), (2, "C", "")]),
    "number.csv": ("1,CCO\n2,C\n", "2", [(1, "CCO", ""), (2, "C", "")]),
    "headed.csv": ("id,smiles\n2,C\n", "2", [(2, "C", "")]),
    "semicolon.csv": ("id;smiles\n1;C\n", "", [(2, "C", "")]),
    "quoted.csv": ('n,smiles\n"a,b",C\nx,"N"\n', "", [(2, "C", ""), (3, "N", "")]),
    "short.csv": ("n,smiles\nx\ny,C\n", "", [(2, "x", "bad_row"), (3, "C", "")]),
    "open.csv": ('n,smiles\n"a,C\nb,N\n', "", [(2, '"a,C', "bad_row"), (3, "N", "")]),
    "hole.csv": ("n,smiles\nx,\n\n", "", [(2, "", "empty"), (3, "", "empty")]),
    "tabs.tsv": ("n\tSmiles\nx y\tC\n", "", [(2, "C", "")]),
    "plain.smi": ("CCO ethanol 1\nC\tmethane\n", "", [(1, "CCO", ""), (2, "C", "")]),
    "headed.smi": ("smiles zinc_id\nC 7\n", "", [(2, "C", "")]),
    "second.smi": ("x CCO\nz\n", "2", [(1, "CCO", ""), (2, "z", "bad_row")]),
    "windows.txt": ("C\r\n\r\nN", "", [(1, "C", ""), (2, "", "empty"), (3, "N", "")]),
    "marked.txt": (b"\xef\xbb\xbfC\nN", "", [(1, "C", ""), (2, "N", "")]),
    "bytes.txt": (b"C\xff\nN\n", "", [(1, "C\\xff", "not_utf8"), (2, "N", "")]),
    "UPPER.SMI": ("C\n", "", [(1, "C", "")]),
    "nothing.csv": ("", "", []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_layouts(tmp_path, name):
    content, column, expected = CASES[name]
    assert read(write(tmp_path / name, content), column) == expected


@pytest.mark.parametrize(
    ("name", "content", "column", "complaint"),
    [
        ("a.csv", "id,name\n1,x\n", "", "2 columns and none is .* 'id', 'name'"),
        ("a.csv", "id,name\n1,x\n", "smiles", "no column 'smiles'.*'id', 'name'"),
        ("a.csv", "id,name\n1,x\n", "3", "no column '3'"),
        ("a.smi", "C x\n", "name", "no column 'name'.*'C', 'x'"),
        ("a.sdf", "C\n", "", r"ends in '.sdf', .*csv, tsv, smi"),
        ("a", "C\n", "", "ends in 'nothing'"),
        ("a.csv", "C\n".encode("utf-16"), "", "UTF-16 text: save it as UTF-8"),
        ("a.txt.zip", b"PK", "", "cannot be read as a zip archive"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path, name, content, column, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        open_text(write(tmp_path / name, content), column)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"no.csv does not exist: give a file"):
        open_text(tmp_path / "no.csv")
    with pytest.raises(UserError, match="is a folder, not a file"):
        open_text(tmp_path)


def zipped(content, names=("pubchem.txt",)):
    def write_to(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, content)

    return write_to


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".xz"])
def test_packed_files_hold_the_same_lines(tmp_path, ending):
    content = "".join(f"{'C' * (1 + i % 50)} {i}\n" for i in range(2500)).encode()
    packers = {
        "": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
    }
    path = write(tmp_path / f"a.smi{ending}", packers[ending](content))
    found = read(path)
    assert found == [(i + 1, "C" * (1 + i % 50), "") for i in range(2500)]
    chunks = list(open_text(path).chunks())
    assert [(c.first, len(c.lines)) for c in chunks] == [
        (1, 1000),
        (1001, 1000),
        (2001, 500),
    ]
    shares = [c.read for c in chunks]
    assert sorted(shares) == shares
    assert shares[-1] == 1.0


def test_the_one_file_of_a_zip_archive(tmp_path):
    path = tmp_path / "a.txt.zip"
    zipped("C\nN\n", ("data/pubchem.txt", "__MACOSX/._pubchem.txt"))(path)
    assert read(path) == [(1, "C", ""), (2, "N", "")]
    zipped("C\n", ("a.txt", "b.txt"))(path)
    with pytest.raises(UserError, match=r"2 files \(a.txt, b.txt\), not one"):
        open_text(path)


@pytest.mark.parametrize(
    ("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)]
)
def test_a_packed_file_that_is_cut_short(tmp_path, ending, pack):
    whole = pack("".join(f"C{i % 7}N{i}\n" for i in range(50_000)).encode())
    source = open_text(write(tmp_path / f"a.txt{ending}", whole[: len(whole) // 2]))
    good = []
    with pytest.raises(UserError, match=r"after line \d+.*cut short") as caught:
        good.extend(line.number for line in read_lines(source))
    named = int(str(caught.value).split("after line ")[1].split()[0])
    assert 1000 < good[-1] <= named < good[-1] + LINES_PER_CHUNK
    with pytest.raises(UserError, match="cannot be read after line 0"):
        open_text(write(tmp_path / f"b.txt{ending}", b"C\nN\n"))


def test_long_lines_fail_alone(tmp_path):
    lines = [
        b"C",
        b"C" * MAX_LINE_BYTES,
        b"C" * (MAX_LINE_BYTES + 1),
        b"N" * 3_000_000,
        b"O",
    ]
    found = read(write(tmp_path / "a.txt", b"\n".join(lines)))
    reasons = [(n, reason) for n, _, reason in found]
    assert reasons == [
        (1, ""),
        (2, ""),
        (3, "line_too_long"),
        (4, "line_too_long"),
        (5, ""),
    ]
    assert len(found[3][1]) == 200
    assert found[4][1] == "O"


def test_chunks_of_long_lines_are_short(tmp_path):
    path = write(tmp_path / "a.txt", (b"C" * 60_000 + b"\n") * 150)
    chunks = list(open_text(path).chunks())
    assert [(c.first, len(c.lines)) for c in chunks] == [(1, 67), (68, 67), (135, 16)]


def test_a_huge_line_takes_no_memory(tmp_path):
    path = tmp_path / "a.txt.gz"
    with gzip.GzipFile(path, "wb", compresslevel=1) as stream:
        for _ in range(200):
            stream.write(b"C" * 1_000_000)
        stream.write(b"\nN\n")
    script = (
        "import sys\n"
        "from chemscale_jax.data.text.molecule_text import open_text, read_lines\n"
        "from tests.data.peak_memory import peak_bytes\n"
        "before = peak_bytes()\n"
        "found = [(l.number, l.reason) for l in read_lines(open_text(sys.argv[1]))]\n"
        "assert found == [(1, 'line_too_long'), (2, '')], found\n"
        "print(peak_bytes() - before)\n"
    )
    assert int(run_fresh(script, path)) < 16e6


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    smiles = ["CCO", None, "", "C\nN", *["C"] * 2000]
    table = pyarrow.table({"id": list(range(2004)), "smiles": smiles})
    parquet.write_table(table, path, row_group_size=700)
    found = read(path)
    assert found[:4] == [
        (1, "CCO", ""),
        (2, "", "empty"),
        (3, "", "empty"),
        (4, "C\nN", ""),
    ]
    assert len(found) == 2004
    assert [len(c.lines) for c in open_text(path).chunks()] == [1000, 1000, 4]
    with pytest.raises(UserError, match="no column 'mol'.*'id', 'smiles'"):
        open_text(path, "mol")
    with pytest.raises(UserError, match="column 'id' .* holds int64, not text"):
        open_text(path, "id")
    write(path, path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        open_text(path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'chemscale_jax\[parquet\]'"):
        open_text(write(tmp_path / "a.parquet", b""))


def test_lists_and_identities(tmp_path):
    smiles = ["C C", "", "N"]
    found = list(read_lines(SmilesList(smiles)))
    assert [(line.number, line.text, line.reason) for line in found] == [
        (1, "C C", ""),
        (2, "", "empty"),
        (3, "N", ""),
    ]
    assert list(SmilesList([]).chunks()) == []
    assert SmilesList(smiles).identity != SmilesList(["C C", "N", ""]).identity
    a, b = write(tmp_path / "a.smi", "C\n"), write(tmp_path / "b.smi", "N\n")
    assert open_text(a).identity["sha256"] != open_text(b).identity["sha256"]
