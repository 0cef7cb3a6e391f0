"""Compares our models with recorded outputs of the reference implementations.

    python tests/parity.py FILE...          float64, to 1e-9 of the largest value
    python tests/parity.py --f32 FILE...    float32

A file is an ``.npz`` with weights (``param/NAME``), ``config``, ``meta``, inputs
(``in/NAME``) and outputs in float64 (``out/NAME``). The case is chosen by
``meta.family``. In float32 the listed files, known by their checksum, have absolute
tolerances for their main outputs; all else must agree to 3e-5 of the largest value, as
do outputs that were recorded in float32.
Exits with status 1 past a tolerance, 2 when a file cannot be compared.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# As a script, this file finds its neighbours from the root of the project.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from chemscale_jax.core.errors import UserError
from tests.parity_cases import allegro, gpt_neo, painn, schnet, spookynet, unimol2
from tests.parity_cases.fixture import Fixture, Outputs, read_fixture

F64_TOLERANCE = 1e-9
F32_TOLERANCE = 3e-5
# First digits of the SHA-256 of a listed file: absolute tolerances in float32, three
# times the spread of the reference itself.
F32_LISTED = {
    "6ba56969e373": {"energy": 2e-6, "forces": 4e-6},  # allegro2022_s0
    "9d4efad39448": {"energy": 3e-6, "forces": 9e-6},  # allegro_lmax1_3layers_s0
    "e28b3fb3bfdc": {"energy": 3e-6, "forces": 2e-5},  # allegro_parity_3layers_s0
    "6c6ceefac19a": {"energy": 4e-6, "forces": 5e-6},  # allegro_s0
    "7e2bb1f2c7b5": {"logits": 3e-5, "loss": 3e-6},  # gptneo_s0
    "77c4f269c84b": {"energy": 3e-5, "forces": 3e-4},  # nff_painn_s0
    "5adcc5a777c7": {"energy": 7e-6, "forces": 2e-5},  # nff_schnet_s0
    "0989bf83fb70": {"energy": 2e-5, "forces": 2e-5},  # spk_painn_s0
    "621076be200a": {"energy": 6e-6, "forces": 2e-6},  # spk_schnet_s0
    "af9d73386314": {"energy": 5e-6, "forces": 8e-7},  # spooky_bare_s0
    "d2fcb918781b": {"energy": 1e-5, "forces": 9e-7},  # spooky_exactattn_s0
    "35c6b7d5d5ca": {"energy": 4e-5, "forces": 5e-5},  # spooky_full_s0
    # unimol2_s0
    "b3b135251977": {"atom_repr": 2e-5, "pair_repr": 8e-5, "coord_pred": 6e-6},
}

# {meta.family: fixture, dtype -> outputs by the names of the file}
CASES: dict[str, Callable[[Fixture, str], Outputs]] = {
    "allegro": allegro.allegro_2025,
    "allegro_2022": allegro.allegro_2022,
    "gpt_neo": gpt_neo.gpt_neo_outputs,
    "nff_painn": painn.nff_painn,
    "schnetpack_painn": painn.schnetpack_painn,
    "nff_schnet": schnet.nff_schnet,
    "schnetpack_schnet": schnet.schnetpack_schnet,
    "spookynet": spookynet.spookynet_outputs,
    "unimol2": unimol2.unimol2_outputs,
}

# What a file of the family has to hold; of the others, energies and forces.
MAIN_OUTPUTS = {
    "gpt_neo": {"logits", "loss"},
    "unimol2": {"atom_repr", "pair_repr", "token_logits", "coord_pred"},
}


def compare(path: pathlib.Path, f32: bool) -> bool:
    """Prints the errors of every output of a file; True if all are within tolerance."""
    fixture = read_fixture(path)
    if fixture.family not in CASES:
        raise UserError(f"meta.family is {fixture.family!r}, known: {sorted(CASES)}")
    with jax.enable_x64(not f32):
        dtype = "float32" if f32 else "float64"
        found = CASES[fixture.family](fixture, dtype)
    main_outputs = MAIN_OUTPUTS.get(fixture.family, {"energy", "forces"})
    if absent := sorted(main_outputs - set(fixture.outputs)):
        raise UserError(f"the file has no outputs {absent}")
    print(f"{path} ({fixture.family}, {dtype})")
    good = True
    for name, reference in fixture.outputs.items():
        if name not in found:
            print(f"  {name:16s} not compared: our model has no such output")
            continue
        ours = np.asarray(found[name])
        if ours.shape != reference.shape:
            raise UserError(
                f"output {name} has shape {ours.shape}, the file {reference.shape}"
            )
        largest = float(np.max(np.abs(reference), initial=0.0))
        error = float(np.max(np.abs(ours.astype(np.float64) - reference), initial=0.0))
        narrow = f32 or reference.dtype == np.float32
        tolerance = (F32_TOLERANCE if narrow else F64_TOLERANCE) * largest
        if f32:
            tolerance = F32_LISTED.get(fixture.digest, {}).get(name, tolerance)
        within = error <= tolerance  # False for NaN
        good &= within
        relative = error / largest if largest else error
        print(
            f"  {name:16s} max abs {error:9.3e}  max rel {relative:9.3e}  "
            f"tolerance {tolerance:9.3e}  {'ok' if within else 'FAIL'}"
        )
    return good


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--f32", action="store_true", help="compare in float32")
    args = parser.parse_args(argv)
    jax.config.update("jax_default_matmul_precision", "highest")
    status = 0
    for path in args.files:
        try:
            if not compare(path, args.f32):
                status = max(status, 1)
        except UserError as error:
            print(f"error: {path.name}: {error}", file=sys.stderr)
            status = 2
    return status


if __name__ == "__main__":
    sys.exit(main())
