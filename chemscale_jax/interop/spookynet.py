"""SpookyNet of its authors (OUnke/SpookyNet); eV, angstrom and elementary charges."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop.weights import (
    Entry,
    check_shapes,
    export_weights,
    import_weights,
)
from chemscale_jax.models import radial_bases, spookynet
from chemscale_jax.models.dispersion import START as D4_SCALARS
from chemscale_jax.models.dispersion import TABLES
from chemscale_jax.models.electron_configuration import electron_table

_RENAMED = {
    "num_features": "width",
    "num_basis_functions": "n_rbf",
    "num_modules": "depth",
    "cutoff": "cutoff_ang",
    "lr_cutoff": "lr_cutoff_ang",
    "basis_functions": "basis",
    "exp_weighting": "exp_weighting",
    "use_zbl_repulsion": "zbl",
    "use_electrostatics": "electrostatics",
    "use_d4_dispersion": "d4",
    **{
        f"num_residual_{part}": f"residual_{part}"
        for part in (
            "electron pre local_x local_s local_p local_d local nonlocal_q nonlocal_k "
            "nonlocal_v post output"
        ).split()
    },
}
_ACTIVATIONS = {"swish": "swish", "ssp": "shifted_softplus"}
# Stands for the residual blocks that are joined in one array.
_PARTS = "module.{layer}.*"
_ALPHA = "radial_basis_functions._alpha"
# Options with one supported value.
_FIXED = {
    "use_irreps": True,
    "use_nonlinear_embedding": False,
    "Zmax": spookynet.N_SPECIES,
}
# Options that change training, or which values are reported, but not an energy.
_INERT = ("compute_d4_atomic", "module_keep_prob", "zero_init")


def spookynet_config(config: Mapping[str, Any]) -> spookynet.SpookyNetConfig:
    """Our hyperparameters for the reference's constructor arguments.

    ``_exact_attention`` stands for its attention without random features, which no
    argument of its constructor reaches.

    Raises:
        UserError: for an option that is unknown or has no counterpart here.
    """
    known = {*_RENAMED, *_FIXED, *_INERT, "activation", "_exact_attention"}
    if missing := sorted({"cutoff", "num_features", "num_modules"} - set(config)):
        raise UserError(f"config lacks {missing}")
    if unknown := sorted(set(config) - known):
        raise UserError(
            f"config options {unknown} are not known; known: {sorted(known)}"
        )
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise UserError(
                f"config option {name} is {config[name]!r}, supported: {value!r}"
            )
    activation = config.get("activation", "swish")
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"config option activation is {activation!r}, "
            f"supported: {sorted(_ACTIVATIONS)}"
        )
    # The defaults of the reference where they differ from ours.
    defaults = {"use_d4_dispersion": True}
    fields = {
        _RENAMED[k]: v for k, v in {**defaults, **config}.items() if k in _RENAMED
    }
    return spookynet.SpookyNetConfig(
        **fields,
        **spookynet.FAITHFUL,
        activation=_ACTIVATIONS[activation],
        attention="exact" if config.get("_exact_attention") else "favor",
    )


def import_spookynet(
    state: Mapping[str, np.ndarray], config: spookynet.SpookyNetConfig
) -> dict[str, Any]:
    """Our ``{"params", "constants"}`` from the reference's state dict.

    Raises:
        UserError: unless every name is used exactly once and every shape fits.
    """
    state = dict(state)
    for name, expected in _buffers(config).items():
        if name not in state:
            raise UserError(f"weights lack {name}; is the config the one they fit?")
        found = np.asarray(state.pop(name))
        # It may have been rounded to float32 once.
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-6):
            raise UserError(f"weights have {name} = {found}, expected {expected}")
    # How often a module is kept in training; its power differs between versions.
    if "keep_prob" not in state:
        raise UserError("weights lack keep_prob; are they those of SpookyNet?")
    state.pop("keep_prob")
    for whole, parts in _joined(config).items():
        if missing := sorted(set(filter(None, parts)) - set(state)):
            raise UserError(f"weights lack {missing}; is the config the one they fit?")
        given = [np.asarray(state.pop(part)) if part else None for part in parts]
        shape = next(array.shape for array in given if array is not None)
        # A part with fewer blocks than another has no use for the rest.
        filled = [np.zeros(shape, np.float32) if x is None else x for x in given]
        if len({array.shape for array in filled}) > 1:
            raise UserError(f"weights have {parts} of different shapes")
        state[whole] = np.stack(filled)
    tree = import_weights(state, _entries(config))
    check_shapes(tree, _shapes(config))
    return tree


def export_spookynet(
    tree: Mapping[str, Any], config: spookynet.SpookyNetConfig
) -> dict[str, np.ndarray]:
    """The reference's state dict of our ``{"params", "constants"}``."""
    state = export_weights(tree, _entries(config))
    for whole, parts in _joined(config).items():
        arrays = zip(parts, state.pop(whole), strict=True)
        state.update((part, array) for part, array in arrays if part)
    scalars = [_ALPHA] if _ALPHA in state else []
    if config.d4:
        scalars += [f"d4_dispersion_energy._{part}" for part in D4_SCALARS]
        name = "d4_dispersion_energy.refsys"
        state[name] = state[name].astype(np.int64)
    for name in scalars:
        state[name] = state[name].reshape(())
    return {**state, **_buffers(config), "keep_prob": np.array(1.0, np.float32)}


def _shapes(config: spookynet.SpookyNetConfig) -> Any:
    """Our tree's shapes; D4's tables are those of the package's declaration."""
    return jax.eval_shape(spookynet.initializer(config), jax.random.key(0))


def _buffers(config: spookynet.SpookyNetConfig) -> dict[str, np.ndarray]:
    """Buffers that the config determines."""
    radial, K = "radial_basis_functions", config.n_rbf
    v_K = np.arange(K, dtype=np.float64)
    cutoff = np.array(config.cutoff_ang)
    bernstein = {
        f"{radial}.logc": radial_bases.log_binomials(K),
        f"{radial}.n": v_K[::-1].copy(),
        f"{radial}.v": v_K,
    }
    buffers = {
        "exp-bernstein": bernstein,
        "bernstein": {**bernstein, f"{radial}.cutoff": cutoff},
        "exp-gaussian": {
            f"{radial}.center": np.linspace(1.0, 0.0, K),
            f"{radial}.width": np.array(float(K)),
        },
        "gaussian": {
            f"{radial}.cutoff": cutoff,
            f"{radial}.center": np.linspace(0.0, cutoff, K),
            f"{radial}.width": K / cutoff,
        },
        "sinc": {f"{radial}.factor": (v_K + 1) / cutoff},
    }[config.basis]
    if config.attention == "exact":
        for layer in range(config.depth):
            name = f"module.{layer}.nonlocal_interaction.attention.omega"
            buffers[name] = np.zeros(0)
    return {"nuclear_embedding.electron_config": electron_table(), **buffers}


def _joined(config: spookynet.SpookyNetConfig) -> dict[str, list[str]]:
    """What we keep in one array and the reference in several; "" where it has none."""
    joined = {}
    if config.zbl:
        name = "zbl_repulsion_energy"
        for letter in "ca":
            names = [f"{name}._{letter}{place}" for place in range(1, 5)]
            joined[f"{name}._{letter}"] = names
    counts = _part_blocks(config)
    for layer in range(config.depth):
        whole = _mlp(_PARTS.format(layer=layer), max(counts))
        for entry in whole:
            head, _, rest = entry.name.partition(".*.")
            names = []
            for part, count in zip(spookynet.PARTS, counts, strict=True):
                kind, letter = part.split("_")
                block = rest.split("stack.")[-1].split(".")[0]
                absent = "stack." in rest and int(block) >= count
                name = f"{head}.{kind}_interaction.resblock_{letter}.{rest}"
                names.append("" if absent else name)
            joined[entry.name] = names
    return joined


def _part_blocks(config: spookynet.SpookyNetConfig) -> tuple[int, ...]:
    return tuple(getattr(config, f"residual_{part}") for part in spookynet.PARTS)


def _swapped(array: np.ndarray) -> np.ndarray:
    return np.swapaxes(array, -1, -2)


def _column(array: np.ndarray) -> np.ndarray:
    return array[:, None]


def _transposed(name: str, *path: str) -> Entry:
    return Entry(name, path, _swapped, _swapped)


def _dense(name: str, *path: str, bias: bool = True) -> list[Entry]:
    entries = [_transposed(f"{name}.weight", *path, "kernel")]
    return entries + ([Entry(f"{name}.bias", (*path, "bias"))] if bias else [])


def _scalar(name: str, *path: str) -> Entry:
    # An array of one number here, of no axes there.
    return Entry(name, path, np.ravel)


def _as_real(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32)


def _activation(name: str, *path: str) -> list[Entry]:
    return [Entry(f"{name}.{part}", (*path, part)) for part in ("alpha", "beta")]


def _stack(name: str, blocks: int, *path: str, bias: bool = True) -> list[Entry]:
    entries = []
    for block in range(blocks):
        for place in "12":
            theirs, ours = f"{name}.stack.{block}", f"block_{block}"
            entries += _activation(
                f"{theirs}.activation{place}", *path, f"{ours}_act{place}"
            )
            entries += _dense(
                f"{theirs}.linear{place}", *path, f"{ours}_dense{place}", bias=bias
            )
    return entries


def _mlp(name: str, blocks: int, *path: str, bias: bool = True) -> list[Entry]:
    return [
        *_stack(f"{name}.residual", blocks, *path, "stack", bias=bias),
        *_activation(f"{name}.activation", *path, "act"),
        *_dense(f"{name}.linear", *path, "out", bias=bias),
    ]


def _entries(config: spookynet.SpookyNetConfig) -> list[Entry]:
    top = "params"
    entries = [
        Entry("element_bias", (top, "element_bias")),
        Entry("nuclear_embedding.element_embedding", (top, "nuclear", "element")),
        _transposed(
            "nuclear_embedding.config_linear.weight", top, "nuclear", "configuration"
        ),
        *_dense("output", top, "output", bias=False),
    ]
    for theirs, ours in (("charge_embedding", "charge"), ("magmom_embedding", "spin")):
        entries += _dense(f"{theirs}.linear_q", top, ours, "query")
        entries += _dense(f"{theirs}.linear_k", top, ours, "key", bias=False)
        entries += _dense(f"{theirs}.linear_v", top, ours, "value", bias=False)
        entries += _mlp(
            f"{theirs}.resblock", config.residual_electron, top, ours, "mlp", bias=False
        )
    if config.basis in radial_bases.EXPONENTIAL:
        entries.append(_scalar(_ALPHA, top, "radial", "alpha"))
    for layer in range(config.depth):
        theirs, ours = f"module.{layer}", f"module_{layer}"
        entries += _stack(
            f"{theirs}.residual_pre", config.residual_pre, top, ours, "pre"
        )
        entries += _stack(
            f"{theirs}.residual_post", config.residual_post, top, ours, "post"
        )
        entries += _mlp(f"{theirs}.resblock", config.residual_output, top, ours, "out")
        blocks = max(_part_blocks(config))
        entries += _mlp(_PARTS.format(layer=layer), blocks, top, ours, "parts")
        inner, path = f"{theirs}.local_interaction", (top, ours, "local")
        for kind in "spd":
            name = f"radial_{kind}"
            entries.append(_transposed(f"{inner}.{name}.weight", *path, name))
        for kind in "pd":
            name = f"{inner}.projection_{kind}"
            entries += _dense(name, *path, f"project_{kind}", bias=False)
        entries += _mlp(f"{inner}.resblock", config.residual_local, *path, "mlp")
        inner = f"{theirs}.nonlocal_interaction"
        if config.attention == "favor":
            place = ("constants", ours, "nonlocal", "omega")
            entries.append(Entry(f"{inner}.attention.omega", place))
    if config.zbl:
        name, place = "zbl_repulsion_energy", (top, "zbl")
        entries.append(Entry(f"{name}._adiv", (*place, "inverse_length")))
        entries.append(Entry(f"{name}._apow", (*place, "power")))
        for theirs, ours in (("_c", "weights"), ("_a", "decays")):
            entries.append(Entry(f"{name}.{theirs}", (*place, ours), np.ravel, _column))
    if config.d4:
        name = "d4_dispersion_energy"
        for part in D4_SCALARS:
            kind = "constants" if part == "s6" else top
            entries.append(_scalar(f"{name}._{part}", kind, "d4", part))
        entries += [
            Entry(f"{name}.{part}", ("constants", "d4", part)) for part in TABLES
        ]
    return entries
