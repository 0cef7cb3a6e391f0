"""The TFDS builder against a server on loopback, without TensorFlow."""

import functools
import hashlib
import http.server
import sys
import threading

import jax
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.ani1x import Ani1xSource
from chemscale_jax.data.frames.splits import split_records
from chemscale_jax.data.packs.stream import GraphStream
from tests.data.ani_files import write_ani1x

tfds_ani1x = pytest.importorskip("chemscale_jax.data.frames.tfds_ani1x")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Says nothing."""


@pytest.fixture
def served(tmp_path):
    """A file in the official layout, and its address."""
    (tmp_path / "www").mkdir()
    path = write_ani1x(tmp_path / "www" / "ani1x-release.h5", frames=6)
    handler = functools.partial(_Quiet, directory=str(path.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield path, f"http://127.0.0.1:{server.server_port}/ani1x-release.h5"
    server.shutdown()
    thread.join()
    server.server_close()


def _config(path, url, **changes):
    content = path.read_bytes()
    fields = {
        "name": "served",
        "url": url,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return tfds_ani1x.Ani1xConfig(**(fields | changes))


def test_download_prepare_read_and_stream(served, tmp_path):
    path, url = served
    tfds_ani1x.prepare(tmp_path / "tfds", _config(path, url))
    source = tfds_ani1x.open_prepared(tmp_path / "tfds")
    direct = Ani1xSource(path)
    assert len(source) == len(direct) == 24
    for i in range(24):
        for left, right in zip(source[i], direct[i], strict=True):
            np.testing.assert_array_equal(left, right)
    batches = [
        GraphStream(
            s, split_records(s, seed=0), cutoff_ang=3.0, molecules=4
        ).train_epoch(0)[0]
        for s in (source, direct)
    ]
    jax.tree.map(np.testing.assert_array_equal, *batches)
    assert "tensorflow" not in sys.modules
    # The second time nothing is downloaded.
    tfds_ani1x.prepare(tmp_path / "tfds", _config(path, url.replace("h5", "gone")))


def test_a_wrong_file_is_refused(served, tmp_path):
    path, url = served
    with pytest.raises(UserError, match="not the expected file"):
        tfds_ani1x.prepare(tmp_path / "tfds", _config(path, url, sha256="0" * 64))
    with pytest.raises(UserError, match=r"cannot download.*404.*5.6 GB"):
        tfds_ani1x.prepare(tmp_path / "tfds", _config(path, url + "x"))


def test_the_official_file_is_pinned():
    config = tfds_ani1x.Ani1xConfig(name="wb97x_dz")
    assert config.url.endswith("figshare.com/files/18112775")
    assert (len(config.sha256), config.size) == (64, 5_590_846_027)


def test_folders_without_a_data_set(tmp_path):
    with pytest.raises(UserError, match=r"found none.*prepare"):
        tfds_ani1x.open_prepared(tmp_path)
    with pytest.raises(UserError, match="found none"):
        tfds_ani1x.open_prepared("")
