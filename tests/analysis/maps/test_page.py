import base64
import json
import re
import shutil
import subprocess
import zlib

import numpy as np
import pytest

from chemscale_jax.analysis.maps.mapped_molecules import MappedMolecules
from chemscale_jax.analysis.maps.page import CHUNK, write_map_page
from chemscale_jax.chem.structure_svg import structure_svg
from chemscale_jax.core.errors import UserError

HOSTILE = "</script><img src=x onerror=alert(1)>\x1e\x1f"


def molecules(n):
    smiles = np.array(
        [["CCO", "c1ccccc1C", "CC(=O)Nc1ccc(O)cc1"][i % 3] for i in range(n)]
    )
    rng = np.random.default_rng(0)
    columns = {
        "note": np.array([HOSTILE if i == 1 else f"note {i}" for i in range(n)]),
        "logS": np.array(
            [f"{x:.3f}" if i else "" for i, x in enumerate(rng.normal(size=n))]
        ),
    }
    return MappedMolecules(
        index=np.arange(n),
        where=np.array(["mols.csv"] * n),
        smiles=smiles,
        state=np.array(["shown"] * n),
        columns=columns,
        shown=np.arange(n),
        spaces={"one": np.zeros((n, 2), np.float32)},
        about={"one": {}},
        scaffolds=np.array(
            [["(acyclic)", "c1ccccc1", "c1ccccc1"][i % 3] for i in range(n)]
        ),
    )


def write(folder, n=450):
    found = molecules(n)
    points = np.random.default_rng(1).normal(size=(n, 2)) * (10, 5)
    labels = [found.coloring("scaffold"), found.coloring("logS")]
    path = folder / "map.html"
    size = write_map_page(
        found, {"one": points}, labels, path, title="a < b", processes=1, progress=False
    )
    assert size == path.stat().st_size
    return path, points


def read(path):
    """What the script of the page reads."""
    text = path.read_text()
    (meta_text,) = re.findall(r'id="meta">(.*?)</script>', text, re.DOTALL)
    (packed_text,) = re.findall(r'id="records">(.*?)</script>', text, re.DOTALL)
    meta, packed = json.loads(meta_text), packed_text.split()
    records = [
        record.split("\x1f")
        for chunk in packed
        for record in zlib.decompress(base64.b64decode(chunk)).decode().split("\x1e")
    ]
    return text, meta, packed, records


def test_the_page_holds_every_molecule(tmp_path):
    path, points = write(tmp_path)
    _, meta, packed, records = read(path)
    assert (len(packed), len(records)) == (3, 450)
    assert len(zlib.decompress(base64.b64decode(packed[0])).split(b"\x1e")) == CHUNK
    assert meta["columns"] == ["row", "SMILES", "scaffold", "logS", "note"]
    assert records[4][0] == structure_svg("c1ccccc1C")
    assert records[4][1:4] == ["4", "c1ccccc1C", "c1ccccc1"]
    assert records[4][5] == "note 4"
    raw = np.frombuffer(base64.b64decode(meta["spaces"][0]["points"]), "<u2")
    back = raw.reshape(-1, 2) / 65535
    # One scale for both axes: distances keep their proportions.
    scale = np.ptp(points, axis=0).max()
    np.testing.assert_allclose(
        back - back.mean(0), (points - points.mean(0)) / scale, atol=2e-5
    )


def test_labels_have_a_style_for_each_molecule(tmp_path):
    _, meta, _, _ = read(write(tmp_path)[0])
    scaffold, numbers = meta["labels"]
    codes = np.frombuffer(base64.b64decode(scaffold["codes"]), np.uint8)
    assert [s["name"] for s in scaffold["styles"][:2]] == ["c1ccccc1", "(acyclic)"]
    assert codes[:3].tolist() == [1, 0, 0]
    assert scaffold["styles"][0]["svg"].startswith("<path")
    codes = np.frombuffer(base64.b64decode(numbers["codes"]), np.uint8)
    assert numbers["styles"][codes[0]]["name"] == "unknown"
    assert codes[1:].max() < codes[0]
    assert numbers["fixed"]


def test_nothing_of_the_input_is_run_and_nothing_is_loaded(tmp_path):
    path, _ = write(tmp_path)
    text, _, _, records = read(path)
    assert "<title>a &lt; b</title>" in text
    assert "onerror" not in text
    assert records[1][5].startswith("</script><img")  # as text, without separators
    assert len(records[1]) == 6
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)=["']|url\(|import\(|fetch\(|https?:""", text)


def test_pages_stay_small(tmp_path):
    """20,000 molecules take less than 10 MB."""
    path, _ = write(tmp_path, 600)
    empty, _ = write(tmp_path / "..", 10)
    assert (path.stat().st_size - empty.stat().st_size) / 590 < 500


def test_too_many_molecules_and_no_folder(tmp_path):
    many = molecules(20_001)
    with pytest.raises(UserError, match="20,001 molecules are too many"):
        write_map_page(many, {}, [], tmp_path / "map.html", title="")
    few = molecules(3)
    with pytest.raises(UserError, match="cannot be written"):
        write_map_page(few, {}, [], tmp_path / "no" / "map.html", title="")


PROBE = """<script>
addEventListener("error", e => document.body.append("FA" + "ILED " + e.message));
// The browser's clock jumps, so real work gives other threads their time.
async function until(done) {
  for (let k = 0; k < 400 && !done(); k++) {
    for (let i = 0, x = 0; i < 3e6; i++) x += Math.sqrt(i);
    await new Promise(r => setTimeout(r, 20));
  }
}
(async () => {
  await until(() => panels[0].width > 0);
  const p = panels[0], [x, y] = p.place(4), b = p.canvas.getBoundingClientRect();
  const at = {clientX: b.left + x, clientY: b.top + y, bubbles: true};
  p.canvas.dispatchEvent(new PointerEvent("pointermove", at));
  await until(() => !card.hidden);
  find("note 44");
  await until(() => byId("found").textContent);
})();
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium")
def test_the_structure_is_shown_under_the_pointer(tmp_path):
    path, _ = write(tmp_path)
    path.write_text(path.read_text().replace("</body>", PROBE))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
    command += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=20000",
    ]
    command += ["--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", "--dump-dom", f"file://{path}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    (card,) = re.findall(r'<div id="card".*?</table>', ran.stdout, re.DOTALL)
    assert "hidden" not in card.split(">")[0]
    assert "c1ccccc1C" in card
    assert "note 4<" in card
    assert '<path d="M' in card
    assert ">11 found<" in ran.stdout  # 44 and 440 to 449
    assert "FAILED" not in ran.stdout
