"""A recorded run of a reference implementation, and the pack of its inputs."""

import hashlib
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
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
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
    charge: Sequence[float] | np.ndarray = (),
    spin: Sequence[float] | np.ndarray = (),
    pair_padding: int = 5,
) -> GraphPack:
    """A pack of the given graph with some atoms and edges of padding.

    Args:
        species: of each atom.
        positions: of each atom.
        molecule: index of each atom's molecule, ascending.
        receivers: of each edge.
        senders: of each edge.
        dtype: of all real numbers.
        padding: how many atoms and edges.
        pairs: receivers and senders of the second pair list, if there is one.
        charge: of each molecule; empty for none.
        spin: of each molecule; empty for none.
        pair_padding: how many pairs of the second list.
    """
    if np.any(np.diff(molecule) < 0):
        raise UserError("input mol_idx is not sorted")
    n_atoms, n_molecules = len(species), int(molecule.max()) + 1

    def padded(values: np.ndarray, rows: int, fill: float) -> np.ndarray:
        block = np.full((rows, *values.shape[1:]), fill, values.dtype)
        return np.concatenate([values, block])

    atoms, edges = padding
    N, M = n_atoms + atoms, n_molecules + 1

    def indices(
        receivers: np.ndarray, senders: np.ndarray, rows: int
    ) -> list[jax.Array]:
        order = np.lexsort((senders, receivers))
        return [
            jnp.asarray(padded(index[order], rows, N - 1).astype(np.int32))
            for index in (receivers, senders)
        ]

    def of_molecules(values: Sequence[float] | np.ndarray) -> jax.Array:
        given = np.asarray(values, dtype) if len(values) else np.zeros(n_molecules)
        return jnp.asarray(padded(given, 1, 0).astype(dtype))

    receivers_E, senders_E = indices(receivers, senders, edges)
    receivers_P, senders_P = indices(*pairs, pair_padding) if pairs else (None, None)
    return GraphPack(
        positions_N3=jnp.asarray(padded(positions, atoms, 0).astype(dtype)),
        species_N=jnp.asarray(padded(species, atoms, 0).astype(np.int32)),
        molecule_N=jnp.asarray(padded(molecule, atoms, M - 1).astype(np.int32)),
        senders_E=senders_E,
        receivers_E=receivers_E,
        molecule_mask_M=jnp.asarray(np.arange(M) < n_molecules),
        charge_M=of_molecules(charge),
        spin_M=of_molecules(spin),
        energy_M=jnp.asarray(np.zeros(M, dtype)),
        energy_mask_M=jnp.asarray(np.zeros(M, bool)),
        forces_N3=jnp.asarray(np.zeros((N, 3), dtype)),
        forces_mask_N=jnp.asarray(np.zeros(N, bool)),
        pair_senders_P=senders_P,
        pair_receivers_P=receivers_P,
    )
