"""Allegro of mir-group: the code of 2022 (with nequip 0.5) and nequip-allegro 0.8.

Both keep the columns of environment weights as (channel, irrep) and of scalars as
(channel, path); ours have the channel last. What follows from the config, such as
Clebsch-Gordan coefficients, is checked and not kept.
"""

from collections.abc import Mapping, Sequence
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
from chemscale_jax.models import allegro
from chemscale_jax.models.allegro_parts import Sizes, sizes
from chemscale_jax.models.tensor_products import (
    Kinds,
    kind_of_component,
    layer_kinds,
    offsets,
    paths,
    spherical_kinds,
)


def import_allegro(
    state: Mapping[str, np.ndarray], config: allegro.AllegroConfig
) -> dict[str, Any]:
    """Our ``{"params", "constants"}`` from the reference's state dict.

    Raises:
        UserError: unless every name is used exactly once, every shape fits and what
            follows from the config has the values that it should.
    """
    state = dict(state)
    for name, expected in _structure(config).items():
        if name not in state:
            raise UserError(f"weights lack {name}; is the config theirs?")
        found = np.asarray(state.pop(name))
        # It may have been rounded to float32 once.
        if found.shape != expected.shape or not np.allclose(
            found, expected, 1e-6, 1e-6
        ):
            raise UserError(f"weights have another {name} than the config gives")
    if config.form == "2022":
        for layer in range(config.depth):
            _split_mix(state, config, layer)
    tree = import_weights(state, _entries(config))
    tree["constants"] |= _not_in_state(config)
    model = allegro.make_model_from(config)
    check_shapes(tree, jax.eval_shape(model.init, jax.random.key(0)))
    return tree


def export_allegro(
    tree: Mapping[str, Any], config: allegro.AllegroConfig
) -> dict[str, np.ndarray]:
    """The reference's state dict of our ``{"params", "constants"}``.

    Raises:
        UserError: if it has no place for the scales and shifts of form 2022, which are
            in other parts of the reference's models.
    """
    for name, expected in _not_in_state(config).items():
        if not np.allclose(tree["constants"][name], expected):
            raise UserError(
                f"{name} is {tree['constants'][name]}, a state dict of this form can "
                f"only stand for {expected}"
            )
    state = export_weights(tree, _entries(config))
    if config.form == "2022":
        for layer in range(config.depth):
            names = _mix_names(config, layer)
            blocks = [state.pop(name).ravel() for name in names]
            state[f"func.allegro.linears.{layer}.w"] = np.concatenate(blocks)
    return state | _structure(config)


def _entries(config: allegro.AllegroConfig) -> list[Entry]:
    return _entries_2022(config) if config.form == "2022" else _entries_2025(config)


def _entries_2022(config: allegro.AllegroConfig) -> list[Entry]:
    size, kinds, sphere = _layout(config)
    U, F = size.channels, size.two_body[-1]
    kind = "params" if config.learnable_bessel else "constants"
    basis, core = "func.radial_basis.basis", "func.allegro"
    entries = [
        Entry(f"{basis}.basis.bessel_weights", (kind, "radial", "roots")),
        Entry(f"{basis}._mean", ("constants", "radial", "mean")),
        Entry(f"{basis}._inv_std", ("constants", "radial", "inverse_deviation")),
        Entry(
            f"{core}._latent_resnet_update_params",
            ("params" if config.learnable_mixing else "constants", "mixing"),
        ),
    ]

    def mlp(name: str, ours: str, count: int) -> list[Entry]:
        return [
            Entry(f"{name}._forward._weight_{i}", ("params", ours, f"kernel_{i}"))
            for i in range(count)
        ]

    entries += mlp(f"{core}.latents.0", "two_body", len(size.two_body))
    entries += mlp("func.edge_eng._module", "readout", len(config.readout) + 1)
    for layer in range(config.depth):
        (env,) = mlp(f"{core}.env_embed_mlps.{layer}", f"weights_{layer}", 1)
        blocks = [(len(sphere), U)] * (1 if layer else 2)
        entries.append(_reordered(env, 1, [0], blocks))
        last = layer == config.depth - 1
        name = f"{core}.final_latent" if last else f"{core}.latents.{layer + 1}"
        first, *rest = mlp(name, f"latent_{layer}", len(size.latent))
        ways = paths(kinds[layer], sphere, kinds[layer + 1])
        count = sum(way.out == 0 for way in ways)
        entries += [_reordered(first, 0, [F], [(count, U)]), *rest]
        for name, ir in zip(_mix_names(config, layer), kinds[layer + 1], strict=True):
            entries.append(
                Entry(
                    name,
                    ("params", f"mix_{layer}_{ir}", "kernel"),
                    lambda w: w.transpose(2, 1, 0).reshape(-1, U),
                    lambda w: w.reshape(-1, U, U).transpose(2, 1, 0),
                )
            )
    return entries


def _entries_2025(config: allegro.AllegroConfig) -> list[Entry]:
    size, kinds, sphere = _layout(config)
    U, F, I = size.channels, size.two_body[-1], len(sphere)
    kind = "params" if config.learnable_bessel else "constants"
    func = "model.func"
    embed = f"{func}.radial_chemical_embed"
    row = (lambda w: w[0], lambda w: w[None])
    column = (lambda w: w[:, 0], lambda w: w[:, None])
    scale_shift = f"{func}.per_type_energy_scale_shift"

    def mlp(name: str, ours: str, count: int = 1) -> list[Entry]:
        return [
            Entry(f"{name}.mlp.{2 * i}.weight", ("params", ours, f"kernel_{i}"))
            for i in range(count)
        ]

    (weights,) = mlp(f"{func}.tensor_embed.env_embed_linear", "weights")
    core = f"{func}.allegro"
    (first,) = mlp(f"{core}.first_layer_env_embed_projection", "first")
    type_embed = f"{embed}.type_embed"
    entries = [
        Entry(f"{embed}.bessel_encode.bessel_weights", (kind, "radial", "roots"), *row),
        Entry(f"{type_embed}.center_embed.weight", ("params", "centre")),
        Entry(f"{type_embed}.neighbor_embed.weight", ("params", "neighbour")),
        *mlp(f"{type_embed}.basis_linear", "pair_radial"),
        *mlp(f"{func}.scalar_embed_mlp.mlp_module", "two_body", len(size.two_body)),
        _reordered(weights, 1, [0], [(I, U)]),
        _reordered(first, 1, [F], [(I, U)]),
        *mlp(f"{func}.edge_readout.mlp_module", "readout", len(config.readout) + 1),
        Entry(f"{scale_shift}.scales", ("constants", "energy_scales"), *column),
        Entry(f"{scale_shift}.shifts", ("constants", "energy_shifts"), *column),
    ]
    for layer in range(config.depth):
        *most, last = mlp(
            f"{core}.latents.{layer}", f"latent_{layer}", len(size.latent)
        )
        more = [(I, U)] if layer < config.depth - 1 else []
        entries += [*most, _reordered(last, 1, [F], more)]
        count = len(paths(kinds[layer], sphere, kinds[layer + 1]))
        entries.append(
            Entry(
                f"{core}.tps.{layer}.weights",
                ("params", f"product_{layer}"),
                lambda w: w.reshape(U, -1).T,
                # One path alone has no axis there.
                lambda w, one=count == 1: w[0] if one else w.T,
            )
        )
    return entries


def _reordered(
    entry: Entry, axis: int, before: Sequence[int], blocks: Sequence[tuple[int, int]]
) -> Entry:
    """Along one axis, blocks of (n, U) here are (U, n) there.

    Args:
        entry: of the array.
        axis: of the array.
        before: sizes of what comes first and stays as it is.
        blocks: n and U of each block after that.
    """
    order = list(range(sum(before)))
    for n, U in blocks:
        order += (len(order) + np.arange(n * U).reshape(U, n).T.ravel()).tolist()
    back = np.argsort(order)
    return entry._replace(
        to_ours=lambda w: np.take(w, order, axis),
        to_theirs=lambda w: np.take(w, back, axis),
    )


def _mix_names(config: allegro.AllegroConfig, layer: int) -> list[str]:
    _, kinds, _ = _layout(config)
    return [f"func.allegro.linears.{layer}.w/{ir}" for ir in kinds[layer + 1]]


def _split_mix(
    state: dict[str, np.ndarray], config: allegro.AllegroConfig, layer: int
) -> None:
    """Replaces the one array of a layer's linear map by those of each irrep."""
    size, kinds, sphere = _layout(config)
    U = size.channels
    ways = paths(kinds[layer], sphere, kinds[layer + 1])
    counts = [
        sum(way.out == out for way in ways) for out in range(len(kinds[layer + 1]))
    ]
    name = f"func.allegro.linears.{layer}.w"
    if name not in state:
        raise UserError(f"weights lack {name}; is the config theirs?")
    whole = np.asarray(state.pop(name))
    if whole.shape != (sum(counts) * U * U,):
        raise UserError(
            f"weights have {name} of shape {whole.shape}, the config asks for "
            f"{(sum(counts) * U * U,)}"
        )
    parts = np.split(whole, np.cumsum(counts)[:-1] * U * U)
    names = _mix_names(config, layer)
    for part_name, part, count in zip(names, parts, counts, strict=True):
        state[part_name] = part.reshape(U, U, count)


def _structure(config: allegro.AllegroConfig) -> dict[str, np.ndarray]:
    """What a state dict holds besides weights."""
    _, kinds, sphere = _layout(config)
    depth, cutoff = config.depth, config.cutoff_ang
    tables = [
        _coupling(kinds[layer], sphere, kinds[layer + 1], config.form)
        for layer in range(depth)
    ]
    if config.form == "2025":
        names = {f"model.func.allegro.tps.{i}.w3j": t for i, t in enumerate(tables)}
        return names | {
            "model._empty": np.zeros(0, np.float32),
            "model.func.edge_norm._rmax_recip": np.array(1.0 / cutoff),
        }
    core = "func.allegro"
    names = {f"{core}.tps.{i}._big_w3j": t for i, t in enumerate(tables)}
    return names | {
        f"{core}._zero": np.zeros((), np.float32),
        f"{core}.env_sum_normalizations": np.full(
            depth, config.avg_num_neighbors**-0.5
        ),
        f"{core}.per_layer_cutoffs": np.full(depth + 1, cutoff, np.float32),
        f"{core}._env_weighter._w_index": np.array(kind_of_component(sphere)),
        "func.edge_eng_sum.per_edge_scales": np.zeros(0, np.float32),
    }


def _coupling(left: Kinds, right: Kinds, out: Kinds, form: str) -> np.ndarray:
    """The reference's dense table of coefficients.

    2022: (component of any path, left, right). 2025: (path, left, right, out). Where
    all terms have left = right, one of the two axes is left out; and that of one path.
    """
    ways = paths(left, right, out)
    I, J, K = (offsets(kinds)[-1] for kinds in (left, right, out))
    table = np.zeros((len(ways), I, J, K))
    blocks = []
    for place, way in enumerate(ways):
        first = offsets(out)[way.out]
        for k, terms in enumerate(way.terms):
            for i, j, coefficient in terms:
                table[place, i, j, first + k] = coefficient
        blocks.append(table[place, :, :, first : first + len(way.terms)])
    i, j = np.nonzero(np.abs(table).sum((0, 3)))
    diagonal = I == J and np.array_equal(i, j)
    if form == "2022":
        table = np.moveaxis(np.concatenate(blocks, axis=2), 2, 0)
        return np.einsum("kii->ki", table) if diagonal else table
    table = np.einsum("piik->pik", table) if diagonal else table
    return table[0] if len(ways) == 1 else table


def _not_in_state(config: allegro.AllegroConfig) -> dict[str, np.ndarray]:
    """Constants that a state dict of this form does not hold."""
    n = np.array(config.avg_num_neighbors)
    if config.form == "2025":
        return {"avg_num_neighbors": n}
    T = len(config.elements)
    return {
        "avg_num_neighbors": n,
        "energy_scales": np.full(T, config.energy_scale),
        "energy_shifts": np.full(T, config.energy_shift),
    }


def _layout(config: allegro.AllegroConfig) -> tuple[Sizes, list[Kinds], Kinds]:
    kinds = layer_kinds(config.l_max, config.parity, config.depth)
    return sizes(config), kinds, spherical_kinds(config.l_max, config.parity)
