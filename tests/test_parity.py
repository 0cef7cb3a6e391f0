"""The parity script, on the reference fixtures and on files made here."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from tests import parity
from tests.interop import nff_reference
from tests.xla_flags import QUICK

PLAIN = {
    "activation": "swish",
    "cutoff": 3.0,
    "feat_dim": 6,
    "n_rbf": 4,
    "num_conv": 2,
    "output_keys": ["energy"],
    "grad_keys": ["energy_grad"],
}
EVERY_OPTION = {
    **PLAIN,
    "activation": "Tanh",
    "learnable_k": True,
    "skip_connection": {"energy": True},
    "means": {"energy": -0.7},
    "stddevs": {"energy": 1.3},
    "readout_dropout": 0.1,
}


@pytest.mark.shared
@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_recorded_references(precision):
    """In float32 as a user runs it: rounding depends on how the compiler optimises."""
    folder = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "parity"
    files = [
        str(path)
        for path in sorted(folder.glob("*.npz"))
        if parity.read_fixture(path).family in parity.CASES
    ]
    assert len(files) >= 2
    script = pathlib.Path(parity.__file__)
    flags = ["--f32"] if precision == "f32" else []
    environ = {**os.environ, "XLA_FLAGS": "" if precision == "f32" else QUICK}
    done = subprocess.run(
        [sys.executable, str(script), *flags, *files],
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("float32" if flags else "float64") == len(files)


@pytest.mark.parametrize(
    ("modelparams", "directed"), [(PLAIN, False), (EVERY_OPTION, True)]
)
def test_equations_in_numpy(tmp_path, capsys, modelparams, directed):
    path = tmp_path / "any_name.npz"
    nff_reference.write(path, modelparams, directed=directed)
    assert parity.main([str(path)]) == 0, capsys.readouterr()
    assert capsys.readouterr().out.count(" ok\n") == 3
    assert parity.main(["--f32", str(path)]) == 0


def test_a_changed_output_fails(tmp_path, capsys):
    path = tmp_path / "painn.npz"
    nff_reference.write(path, PLAIN)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["out/energy"] *= 1 + 2e-9
    np.savez(path, **arrays)
    assert parity.main([str(path)]) == 1
    assert capsys.readouterr().out.count("FAIL") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta": json.dumps({"family": "magic"})}, "meta.family is 'magic'"),
        ({"config": json.dumps({**PLAIN, "heads": 2})}, r"options \['heads'\]"),
        ({"in__cell": np.eye(3)}, "inputs are .*'cell'"),
        ({"param__extra": np.eye(3)}, r"hold \['extra'\]"),
    ],
)
def test_files_that_cannot_be_compared_are_refused(tmp_path, capsys, changes, message):
    path = tmp_path / "painn.npz"
    nff_reference.write(path, PLAIN, **changes)
    assert parity.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_other_files_are_refused(tmp_path, capsys):
    path = tmp_path / "notes.npz"
    path.write_text("not an archive")
    assert parity.main([str(path)]) == 2
    assert "not a parity file" in capsys.readouterr().err
