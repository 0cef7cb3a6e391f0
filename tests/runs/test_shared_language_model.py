"""The packaged language model on public molecules, where they are at hand."""

import csv
import gzip
import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from chemscale_jax import __main__ as console
from chemscale_jax.core.likelihoods import Likelihoods
from chemscale_jax.core.workdir import Workdir

pytestmark = pytest.mark.shared


def mean_log_likelihood(path, *flags):
    out = path.with_suffix(".csv")
    assert console.load("score").main([f"--input={path}", f"--out={out}", *flags]) == 0
    with out.open() as file:
        return np.mean([float(row["log_likelihood"]) for row in csv.DictReader(file)])


def test_fine_tuning_on_a_thousand_molecules(tmp_path, monkeypatch):
    moses = pathlib.Path(os.environ["CHEMSCALE_SHARED"], "data/smiles/moses")
    with gzip.open(moses / "dataset_v1_test.csv.gz", "rt") as file:
        rows = itertools.islice(csv.DictReader(file), 1000)
        smiles = [row["SMILES"] for row in rows]
    mine, held_out = tmp_path / "mine.smi", tmp_path / "held_out.smi"
    mine.write_text("".join(f"{line}\n" for line in smiles))
    monkeypatch.chdir(console.__file__.rsplit("/", 2)[0])
    arguments = [
        "--config=configs/chemgpt.py:finetune,width=64",
        f"--config.data.path={mine}",
        "--config.train.epochs=1",
        # One length of rows, for which less is compiled.
        "--config.batch.buckets=(64,)",
        "--config.train.rows_at_once=32",
        "--config.sample.molecules=0",
    ]
    run = Workdir(tmp_path / "tuned")
    # As a user runs it: this computes for longer than it compiles.
    subprocess.run(
        [
            *(sys.executable, "-m", "chemscale_jax.main"),
            *arguments,
            f"--workdir={run.path}",
        ],
        env={**os.environ, "XLA_FLAGS": ""},
        check=True,
    )
    lines = Likelihoods.load(run.predictions / "valid.npz").line
    assert len(lines) == 50
    held_out.write_text("".join(f"{smiles[line - 1]}\n" for line in lines))
    before = mean_log_likelihood(held_out)
    after = mean_log_likelihood(held_out, f"--workdir={run.path}")
    # In nats per molecule.
    assert after > before + 1
