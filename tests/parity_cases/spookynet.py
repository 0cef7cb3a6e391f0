"""SpookyNet of its authors, with its long-range terms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chemscale_jax.interop import spookynet as interop
from chemscale_jax.models import spookynet
from chemscale_jax.models.energy import energy_and_forces
from tests.parity_cases.fixture import Fixture, Outputs, make_pack, take_inputs


def spookynet_outputs(fixture: Fixture, dtype: str) -> Outputs:
    """Energies, forces, their parts, charges, and features within the network."""
    config = interop.spookynet_config(fixture.config)
    species, positions, molecule, receivers, senders, charge, spin = take_inputs(
        fixture, ("z", "pos", "mol_idx", "idx_i", "idx_j", "Q", "S")
    )
    weights = interop.import_spookynet(fixture.params, config)
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), weights)
    distance = np.linalg.norm(positions[senders] - positions[receivers], axis=1)
    near = distance < config.cutoff_ang
    pack = make_pack(
        species,
        positions,
        molecule,
        receivers[near],
        senders[near],
        dtype,
        pairs=(receivers, senders),
        charge=charge,
        spin=spin,
    )
    model = spookynet.make_model_from(config)
    n = len(species)

    @jax.jit
    def run(params: Any, constants: Any) -> tuple[Any, ...]:
        energy_M, forces_N3 = energy_and_forces(model, params, constants, pack)
        return (
            energy_M[:-1],
            forces_N3[:n],
            *spookynet.outputs(config, params, constants, pack),
        )

    energy, forces, parts, inner = jax.device_get(
        run(variables["params"], variables["constants"])
    )
    charge_N = parts.charge_N[:n]
    molecules = np.arange(len(energy))[:, None] == molecule[None]
    nothing = np.zeros(n)
    found = {
        "energy": energy,
        "forces": forces,
        "dipole": molecules.astype(dtype) @ (charge_N[:, None] * positions),
        "features": parts.features_NF[:n],
        "charges": charge_N,
        "atom_energy_nn": parts.network_N[:n],
        "atom_energy_zbl": parts.zbl_N[:n],
        "atom_energy_coulomb": parts.coulomb_N[:n],
        "atom_energy_d4": parts.dispersion_N[:n],
        "polarizability": nothing,
        "c6": nothing,
        **{f"mid/{name}": inner[name][0][:n] for name in ("z_embed", "q_embed")},
        "mid/s_embed": inner["s_embed"][0][:n],
        "mid/rbf": _unsorted(inner["rbf"][0], receivers[near], senders[near]),
    }
    for layer in range(config.depth):
        of_layer = inner[f"module_{layer}"]
        for ours, theirs in (
            ("x", f"x_after_module{layer}"),
            ("y", f"y_module{layer}"),
            ("l", f"local{layer}"),
            ("n", f"nonlocal{layer}"),
        ):
            found[f"mid/{theirs}"] = of_layer[ours][0][:n]
    if config.d4:
        if fixture.config.get("compute_d4_atomic"):
            found |= {name: parts.d4[name][:n] for name in ("polarizability", "c6")}
        elements = np.unique(species)
        table = variables["constants"]["d4"]["casimir_polder_weights"]
        alpha = parts.d4["reference_alpha"][elements]
        weights_W = 3.0 / np.pi * np.asarray(table)
        found["mid/d4_elements"] = elements
        found["mid/d4_refc6"] = np.einsum(
            "iaw,jbw,w->ijab", alpha, alpha, weights_W, optimize=True
        )
    return found


def _unsorted(
    rows: np.ndarray, receivers: np.ndarray, senders: np.ndarray
) -> np.ndarray:
    """Edge values of a pack in the order of the lists it was made of."""
    order = np.lexsort((senders, receivers))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return rows[back]
