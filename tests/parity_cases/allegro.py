"""Allegro in the forms of 2022 and of nequip-allegro 0.8."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop.allegro import import_allegro
from chemscale_jax.interop.allegro_options import config_2022, config_2025
from chemscale_jax.models import allegro
from chemscale_jax.models.energy import energy_and_forces
from tests.parity_cases.fixture import Fixture, Outputs, make_pack, take_inputs


def _run(
    fixture: Fixture, config: allegro.AllegroConfig, dtype: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Outputs of real atoms, and values on the way in the file's order of edges."""
    names = ("z", "pos", "mol_idx", "idx_i", "idx_j", "atom_types")
    species, positions, molecule, centres, others, types = take_inputs(fixture, names)
    if not np.array_equal(np.array(config.elements)[types], species):
        raise UserError("input atom_types contradicts z")
    weights = import_allegro(fixture.params, config)
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), weights)
    pack = make_pack(species, positions, molecule, centres, others, dtype)
    model = allegro.make_model_from(config)
    n_atoms, n_edges = len(species), len(centres)
    place_E = np.argsort(np.lexsort((others, centres)))

    @jax.jit
    def run(params: Any, constants: Any, pack: Any) -> tuple[Any, Any]:
        energy_M, forces_N3 = energy_and_forces(model, params, constants, pack)
        found = {
            "energy": energy_M[:-1],
            "atom_energy": model.energy(params, constants, pack)[:n_atoms],
            "forces": forces_N3[:n_atoms],
        }
        return found, allegro.intermediates(config, params, constants, pack)

    found, inner = jax.device_get(
        run(variables["params"], variables["constants"], pack)
    )
    atoms = pack.species_N.shape[0]
    return found, {
        name: value[:n_atoms] if len(value) == atoms else value[:n_edges][place_E]
        for name, value in inner.items()
    }


def _channel_first(columns: np.ndarray, channels: int) -> np.ndarray:
    """Columns (irrep, channel) as (channel, irrep)."""
    blocks = columns.reshape(len(columns), -1, channels)
    return np.swapaxes(blocks, 1, 2).reshape(columns.shape)


def allegro_2022(fixture: Fixture, dtype: str) -> Outputs:
    """The code of 2022."""
    config = config_2022(fixture.config)
    found, inner = _run(fixture, config, dtype)
    U = config.channels
    for theirs, ours in (
        ("radial_basis", "basis"),
        ("edge_sh", "Y"),
        ("edge_features", "x"),
        ("edge_energy", "edge_energy"),
        ("final_latent_precutoff", f"new_{config.depth}"),
    ):
        found[f"mid/{theirs}"] = inner[ours]
    for layer in range(config.depth):
        found[f"mid/latent{layer}_precutoff"] = inner[f"new_{layer}"]
        found[f"mid/env{layer}"] = inner[f"Gamma_{layer}"]
        found[f"mid/tp{layer}_out"] = inner[f"T_{layer}"]
        found[f"mid/linear{layer}_out"] = inner[f"V_{layer}"]
        weights = np.split(inner[f"weights_{layer}"], 1 if layer else 2, axis=1)
        found[f"mid/env_weights{layer}"] = np.concatenate(
            [_channel_first(block, U) for block in weights], axis=1
        )
    return found


def allegro_2025(fixture: Fixture, dtype: str) -> Outputs:
    """nequip-allegro 0.8."""
    config = config_2025(fixture.config)
    found, inner = _run(fixture, config, dtype)
    U, F = config.channels, config.latent[-1]
    for theirs, ours in (
        ("bessel/edge_embedding", "basis"),
        ("bessel/edge_cutoff", "envelope"),
        ("radial_chemical/edge_embedding", "pair"),
        ("two_body_scalar/edge_embedding", "two_body"),
        ("tensor_embed/edge_attrs", "Y"),
        ("tensor_embed/edge_features", "V"),
        ("allegro/edge_features", "x"),
        ("edge_readout/edge_energy", "edge_energy"),
        ("edge_sum/atomic_energy", "unscaled"),
    ):
        found[f"mid/{theirs}"] = inner[ours]

    def scalars_and_weights(columns: np.ndarray) -> np.ndarray:
        weights = _channel_first(columns[:, F:], U)
        return np.concatenate([columns[:, :F], weights], axis=1)

    found["mid/proj0"] = scalars_and_weights(inner["first"])
    for layer in range(config.depth):
        found[f"mid/tp{layer}_in2"] = inner[f"Gamma_{layer}"]
        found[f"mid/tp{layer}_out"] = inner[f"V_{layer}"]
        found[f"mid/latent{layer}"] = scalars_and_weights(inner[f"latent_{layer}"])
    return found
