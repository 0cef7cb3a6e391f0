"""Compares our models with recorded outputs of the reference implementations.

    python tests/parity.py FILE...          float64, to 1e-9 of the largest value
    python tests/parity.py --f32 FILE...    float32

A file is an ``.npz`` with weights (``param/NAME``), ``config``, ``meta``, inputs
(``in/NAME``) and outputs in float64 (``out/NAME``). The case is chosen by
``meta.family``. In float32 the listed files, known by their checksum, have absolute
tolerances for energies and forces; all else must agree to 3e-5 of the largest value.
Exits with status 1 past a tolerance, 2 when a file cannot be compared.
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import nff, schnetpack
from chemscale_jax.models import layers, painn
from chemscale_jax.models.energy import energy_and_forces

F64_TOLERANCE = 1e-9
F32_TOLERANCE = 3e-5
# First digits of the SHA-256 of a listed file: absolute tolerances in float32, three
# times the spread of the reference itself.
F32_LISTED = {
    "77c4f269c84b": {"energy": 3e-5, "forces": 3e-4},
    "0989bf83fb70": {"energy": 2e-5, "forces": 2e-5},
}

Outputs = Mapping[str, np.ndarray]


class Fixture(NamedTuple):
    """One file, read."""

    family: str
    config: dict[str, Any]
    params: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    digest: str


def read_fixture(path: pathlib.Path) -> Fixture:
    """Reads a file of the layout above."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        config = json.loads(str(arrays.get("config", "{}")))
        family = json.loads(str(arrays["meta"]))["family"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"not a parity file: {error!r}") from error

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }

    return Fixture(family, config, part("param/"), part("in/"), part("out/"), digest)


def take_inputs(fixture: Fixture, names: Sequence[str]) -> list[np.ndarray]:
    """The named inputs; any other input would go unused, which is an error."""
    if set(fixture.inputs) != set(names):
        raise UserError(
            f"inputs are {sorted(fixture.inputs)}, this case takes {sorted(names)}"
        )
    return [fixture.inputs[name] for name in names]


def make_pack(
    species: np.ndarray,
    positions: np.ndarray,
    molecule: np.ndarray,
    receivers: np.ndarray,
    senders: np.ndarray,
    dtype: str,
    padding: tuple[int, int] = (3, 5),
) -> GraphPack:
    """A pack of the given graph with some atoms and edges of padding."""
    if np.any(np.diff(molecule) < 0):
        raise UserError("input mol_idx is not sorted")
    n_atoms, n_molecules = len(species), int(molecule.max()) + 1
    order = np.lexsort((senders, receivers))

    def padded(values: np.ndarray, rows: int, fill: float) -> np.ndarray:
        block = np.full((rows, *values.shape[1:]), fill, values.dtype)
        return np.concatenate([values, block])

    atoms, edges = padding
    N, M = n_atoms + atoms, n_molecules + 1
    return GraphPack(
        positions_N3=jnp.asarray(padded(positions, atoms, 0).astype(dtype)),
        species_N=jnp.asarray(padded(species, atoms, 0).astype(np.int32)),
        molecule_N=jnp.asarray(padded(molecule, atoms, M - 1).astype(np.int32)),
        senders_E=jnp.asarray(padded(senders[order], edges, N - 1).astype(np.int32)),
        receivers_E=jnp.asarray(
            padded(receivers[order], edges, N - 1).astype(np.int32)
        ),
        molecule_mask_M=jnp.asarray(np.arange(M) < n_molecules),
        charge_M=jnp.asarray(np.zeros(M, dtype)),
        spin_M=jnp.asarray(np.zeros(M, dtype)),
        energy_M=jnp.asarray(np.zeros(M, dtype)),
        energy_mask_M=jnp.asarray(np.zeros(M, bool)),
        forces_N3=jnp.asarray(np.zeros((N, 3), dtype)),
        forces_mask_N=jnp.asarray(np.zeros(N, bool)),
    )


def painn_outputs(
    config: painn.PaiNNConfig, weights: Any, pack: GraphPack, dtype: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Energies and forces of real atoms, and the features after each block."""
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), weights)
    model = painn.make_model_from(config)

    @jax.jit
    def run(params: Any, constants: Any, pack: GraphPack) -> tuple[Any, Any]:
        energy_M, forces_N3 = energy_and_forces(model, params, constants, pack)
        found = {
            "energy": energy_M[:-1],
            "atom_energy": model.energy(params, constants, pack)[:n],
            "forces": forces_N3[:n],
        }
        inner = painn.intermediates(config, params, constants, pack)
        return found, jax.tree.map(lambda x: x[:n], inner)

    n = int(np.sum(np.asarray(pack.species_N) > 0))
    outputs = run(variables["params"], variables["constants"], pack)
    return jax.tree.map(np.asarray, outputs)


def nff_painn(fixture: Fixture, dtype: str) -> Outputs:
    """NeuralForceField's PaiNN; ``v`` is (atom, feature, xyz)."""
    config = nff.painn_config(fixture.config)
    species, positions, molecule, pairs = take_inputs(
        fixture, ("z", "pos", "mol_idx", "nbr_list")
    )
    first, second = pairs[:, 0], pairs[:, 1]
    # Lists that point one way only stand for both.
    if not (np.any(first > second) and np.any(second > first)):
        first, second = np.concatenate([first, second]), np.concatenate([second, first])
    (key,) = nff.options_of(fixture.config).get("output_keys", ["energy"])
    weights = nff.import_painn(fixture.params, config, key)
    pack = make_pack(species, positions, molecule, first, second, dtype)
    found, inner = painn_outputs(config, weights, pack, dtype)
    found["s_embed"] = inner["s_embed"]
    for layer in range(config.depth):
        for ours, theirs in (("message", "msg"), ("update", "upd")):
            s_NF, v_N3F = inner[f"after_{ours}_{layer}"]
            found[f"s_after_{theirs}{layer}"] = s_NF
            found[f"v_after_{theirs}{layer}"] = np.swapaxes(v_N3F, 1, 2)
    return found


def schnetpack_painn(fixture: Fixture, dtype: str) -> Outputs:
    """schnetpack's PaiNN; ``v`` is (atom, xyz, feature)."""
    config = schnetpack.painn_config(fixture.config)
    species, positions, molecule, receivers, senders = take_inputs(
        fixture, ("z", "pos", "mol_idx", "idx_i", "idx_j")
    )
    weights = schnetpack.import_painn(fixture.params, config)
    pack = make_pack(species, positions, molecule, receivers, senders, dtype)
    found, inner = painn_outputs(config, weights, pack, dtype)
    found["s_embed"] = inner["s_embed"]
    for layer in range(config.depth):
        for ours, theirs in (("message", "inter"), ("update", "mix")):
            s_NF, v_N3F = inner[f"after_{ours}_{layer}"]
            found[f"s_after_{theirs}{layer}"] = s_NF
            found[f"v_after_{theirs}{layer}"] = v_N3F
            found |= {"s_final": s_NF, "v_final": v_N3F}
    disp = (positions[senders] - positions[receivers]).astype(dtype)
    distance = layers.safe_norm(jnp.asarray(disp))
    if config.basis == "gaussian":
        radial = jax.tree.map(
            lambda x: jnp.asarray(x, dtype), weights["constants"]["radial"]
        )
        basis = layers.gaussian_basis(distance, radial["centres"], radial["widths"])
    else:
        n_R = jnp.arange(1, config.n_rbf + 1)
        basis = layers.sinc_basis(distance, n_R, config.cutoff_ang)
    found["rbf"] = np.asarray(basis)[:, None]
    return found


# {meta.family: fixture, dtype -> outputs by the names of the file}
CASES: dict[str, Callable[[Fixture, str], Outputs]] = {
    "nff_painn": nff_painn,
    "schnetpack_painn": schnetpack_painn,
}


def compare(path: pathlib.Path, f32: bool) -> bool:
    """Prints the errors of every output of a file; True if all are within tolerance."""
    fixture = read_fixture(path)
    if fixture.family not in CASES:
        raise UserError(f"meta.family is {fixture.family!r}, known: {sorted(CASES)}")
    with jax.enable_x64(not f32):
        dtype = "float32" if f32 else "float64"
        found = CASES[fixture.family](fixture, dtype)
    if absent := sorted({"energy", "forces"} - set(fixture.outputs)):
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
        tolerance = (F32_TOLERANCE if f32 else F64_TOLERANCE) * largest
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
