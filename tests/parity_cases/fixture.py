"""A recorded run of a reference implementation, and the pack of its inputs."""

import hashlib
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError

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
