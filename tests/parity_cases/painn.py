"""PaiNN in the forms of NeuralForceField and schnetpack."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.interop import nff, schnetpack
from chemscale_jax.models import layers, painn
from chemscale_jax.models.energy import energy_and_forces
from tests.parity_cases.fixture import Fixture, Outputs, make_pack, take_inputs


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
