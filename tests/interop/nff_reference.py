"""NeuralForceField's PaiNN written out in NumPy, and files in the parity layout.

It follows the printed equations edge by edge and shares no code with the package.
"""

import json

import numpy as np

PAIRS = [(i, j) for i in range(5) for j in range(i + 1, 5)] + [(5, 6), (5, 7), (6, 7)]
SPECIES = np.array([6, 8, 1, 7, 1, 8, 1, 1])
MOLECULE = np.repeat([0, 1], [5, 3])


def state_dict(modelparams, seed=0):
    """Random weights under the reference's names."""
    F, R = modelparams["feat_dim"], modelparams["n_rbf"]
    depth = modelparams["num_conv"]
    rng = np.random.default_rng(seed)
    state = {"embed_block.atom_embed.weight": rng.normal(size=(100, F))}

    def linear(name, fan_in, fan_out, bias=True):
        state[f"{name}.weight"] = rng.normal(size=(fan_out, fan_in)) / np.sqrt(fan_in)
        if bias:
            state[f"{name}.bias"] = 0.2 * rng.normal(size=fan_out)

    for layer in range(depth):
        name = f"message_blocks.{layer}.inv_message"
        linear(f"{name}.inv_dense.layers.0", F, F)
        linear(f"{name}.inv_dense.layers.1", F, 3 * F)
        linear(f"{name}.dist_embed.block.1", R, 3 * F)
        if modelparams.get("learnable_k"):
            n = np.arange(1, R + 1) + 0.1 * rng.normal(size=R)
            state[f"{name}.dist_embed.block.0.n"] = n
        name = f"update_blocks.{layer}"
        linear(f"{name}.u_mat", F, F, bias=False)
        linear(f"{name}.v_mat", F, F, bias=False)
        linear(f"{name}.s_dense.0", 2 * F, F)
        linear(f"{name}.s_dense.1", F, 3 * F)
    skip = modelparams.get("skip_connection", {}).get("energy", False)
    for readout in range(depth if skip else 1):
        name = f"readout_blocks.{readout}.readoutdict.energy"
        linear(f"{name}.0", F, F // 2)
        linear(f"{name}.1", F // 2, 1)
    return {name: array.astype(np.float32) for name, array in state.items()}


def atom_energies(state, modelparams, positions):
    """Energy of each atom, in float64."""
    state = {name: array.astype(np.float64) for name, array in state.items()}
    F, cutoff = modelparams["feat_dim"], modelparams["cutoff"]

    def linear(name, x):
        y = state[f"{name}.weight"] @ x
        return y + state[f"{name}.bias"] if f"{name}.bias" in state else y

    def mlp(first, second, x):
        hidden = linear(first, x)
        if modelparams["activation"] == "Tanh":
            return linear(second, np.tanh(hidden))
        return linear(second, hidden / (1 + np.exp(-hidden)))

    s = [state["embed_block.atom_embed.weight"][z] for z in SPECIES]
    v = [np.zeros((3, F)) for _ in SPECIES]
    total = np.zeros(len(SPECIES))
    skip = modelparams.get("skip_connection", {}).get("energy", False)
    for layer in range(modelparams["num_conv"]):
        name = f"message_blocks.{layer}.inv_message"
        k = state.get(
            f"{name}.dist_embed.block.0.n", np.arange(1, modelparams["n_rbf"] + 1)
        )
        ds = [np.zeros(F) for _ in s]
        dv = [np.zeros((3, F)) for _ in s]
        for pair in PAIRS:
            for i, j in (pair, pair[::-1]):
                r = positions[j] - positions[i]
                if np.sqrt(r @ r) > cutoff:
                    continue
                d = np.sqrt(np.sum(r**2 + 1e-15))
                basis = np.sin(k * np.pi / cutoff * d) / d
                envelope = (np.cos(np.pi * d / cutoff) + 1) / 2
                w = linear(f"{name}.dist_embed.block.1", basis) * envelope
                inner = f"{name}.inv_dense.layers"
                gate = mlp(f"{inner}.0", f"{inner}.1", s[j]) * w
                ds[i] += gate[F : 2 * F]
                dv[i] += gate[:F] * v[j] + gate[2 * F :] * (r / d)[:, None]
        s = [a + b for a, b in zip(s, ds, strict=True)]
        v = [a + b for a, b in zip(v, dv, strict=True)]
        name = f"update_blocks.{layer}"
        for i in range(len(s)):
            Uv = v[i] @ state[f"{name}.u_mat.weight"].T
            Vv = v[i] @ state[f"{name}.v_mat.weight"].T
            stacked = np.concatenate([s[i], np.sqrt(np.sum(Vv**2 + 1e-15, axis=0))])
            out = mlp(f"{name}.s_dense.0", f"{name}.s_dense.1", stacked)
            s[i] = s[i] + np.sum(Uv * Vv, axis=0) * out[F : 2 * F] + out[2 * F :]
            v[i] = v[i] + Uv * out[:F]
        if skip or layer == modelparams["num_conv"] - 1:
            name = f"readout_blocks.{layer if skip else 0}.readoutdict.energy"
            new = np.array([mlp(f"{name}.0", f"{name}.1", s_i)[0] for s_i in s])
            total += new * modelparams.get("stddevs", {}).get("energy", 1.0)
            total += modelparams.get("means", {}).get("energy", 0.0)
    return total


def write(path, modelparams, *, directed=False, family="nff_painn", **changes):
    """A file in the parity layout; returns its weights.

    Args:
        path: of the file.
        modelparams: the reference's options.
        directed: whether the pair list holds both directions.
        family: for ``meta``.
        changes: arrays to put in place of others, by key with ``__`` for ``/``.
    """
    state = state_dict(modelparams)
    rng = np.random.default_rng(3)
    positions = np.concatenate([rng.normal(size=(5, 3)), rng.normal(size=(3, 3))])
    positions = (1.5 * positions).astype(np.float32).astype(np.float64)

    def totals(x):
        energies = atom_energies(state, modelparams, x)
        return np.array([energies[MOLECULE == m].sum() for m in (0, 1)])

    forces = np.zeros_like(positions)
    step = 1e-4
    for index in np.ndindex(*positions.shape):
        for sign, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            moved = positions.copy()
            moved[index] += sign * step
            forces[index] -= weight * totals(moved).sum() / (12 * step)
    pairs = np.array(PAIRS)
    arrays = {
        **{f"param/{name}": array for name, array in state.items()},
        "config": json.dumps({"model": "painn", "modelparams": modelparams}),
        "meta": json.dumps({"family": family}),
        "in/z": SPECIES,
        "in/pos": positions,
        "in/mol_idx": MOLECULE,
        "in/nbr_list": np.concatenate([pairs, pairs[:, ::-1]]) if directed else pairs,
        "out/energy": totals(positions),
        "out/atom_energy": atom_energies(state, modelparams, positions),
        "out/forces": forces,
    }
    arrays |= {key.replace("__", "/"): value for key, value in changes.items()}
    np.savez(path, **arrays)
    return state
