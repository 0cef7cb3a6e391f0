"""SchNet in the forms of NeuralForceField and schnetpack."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import nff, schnetpack
from chemscale_jax.models import layers, schnet
from chemscale_jax.models.energy import energy_and_forces
from tests.parity_cases.fixture import Fixture, Outputs, make_pack, take_inputs


def schnet_outputs(
    config: schnet.SchNetConfig, weights: Any, pack: GraphPack, dtype: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Energies and forces of real atoms, and features and filters of each layer."""
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), weights)
    model = schnet.make_model_from(config)
    n = int(np.sum(np.asarray(pack.species_N) > 0))

    @jax.jit
    def run(params: Any, constants: Any, pack: GraphPack) -> tuple[Any, Any]:
        energy_M, forces_N3 = energy_and_forces(model, params, constants, pack)
        found = {
            "energy": energy_M[:-1],
            "atom_energy": model.energy(params, constants, pack)[:n],
            "forces": forces_N3[:n],
        }
        return found, schnet.intermediates(config, params, constants, pack)

    found, inner = run(variables["params"], variables["constants"], pack)
    features = {k: v[:n] for k, v in inner.items() if not k.startswith("filters_")}
    return jax.tree.map(np.asarray, (found, {**inner, **features}))


def nff_schnet(fixture: Fixture, dtype: str) -> Outputs:
    """NeuralForceField's SchNet; filters are those of its pairs within the cut-off."""
    config = nff.schnet_config(fixture.config)
    species, positions, molecule, pairs = take_inputs(
        fixture, ("z", "pos", "mol_idx", "nbr_list")
    )
    low, high = pairs.min(1), pairs.max(1)
    order = np.lexsort((low, high))
    if np.any((np.diff(low[order]) == 0) & (np.diff(high[order]) == 0)):
        raise UserError(
            "input nbr_list has a pair twice, which the reference then counts twice"
        )
    first, second = np.concatenate([low, high]), np.concatenate([high, low])
    key = nff.schnet_output_key(fixture.config)
    weights = nff.import_schnet(fixture.params, config, key)
    pack = make_pack(species, positions, molecule, first, second, dtype)
    found, inner = schnet_outputs(config, weights, pack, dtype)
    found["s_embed"] = inner["s_embed"]
    place = np.empty(len(pairs), int)  # of each pair among ours
    place[order] = np.arange(len(pairs))
    length = np.linalg.norm(positions[high] - positions[low], axis=1)
    near = place[length <= config.cutoff_ang]
    for layer in range(config.depth):
        found[f"s_after_conv{layer}"] = inner[f"after_interaction_{layer}"]
        found[f"edge_filter{layer}"] = inner[f"filters_{layer}"][near]
    return found


def schnetpack_schnet(fixture: Fixture, dtype: str) -> Outputs:
    """schnetpack's SchNet."""
    config = schnetpack.schnet_config(fixture.config)
    species, positions, molecule, receivers, senders = take_inputs(
        fixture, ("z", "pos", "mol_idx", "idx_i", "idx_j")
    )
    weights = schnetpack.import_schnet(fixture.params, config)
    pack = make_pack(species, positions, molecule, receivers, senders, dtype)
    found, inner = schnet_outputs(config, weights, pack, dtype)
    found["s_embed"] = inner["s_embed"]
    for layer in range(config.depth):
        found[f"s_after_inter{layer}"] = inner[f"after_interaction_{layer}"]
    found["s_final"] = inner[f"after_interaction_{config.depth - 1}"]
    disp = (positions[senders] - positions[receivers]).astype(dtype)
    radial = jax.tree.map(
        lambda x: jnp.asarray(x, dtype), weights["constants"]["radial"]
    )
    distance = layers.safe_norm(jnp.asarray(disp))
    basis = layers.gaussian_basis(distance, radial["centres"], radial["widths"])
    found["rbf"] = np.asarray(basis)
    return found
