"""Meshes, and where arrays live on them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Params

MESH_AXES = ("data", "fsdp", "tensor")
# Rows of a batch are spread over both: fsdp shards parameters *and* rows.
ROW_AXES = ("data", "fsdp")

AxisRules = Sequence[tuple[str, tuple[str | None, ...]]]


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """The mesh of a run, the only place where one is made.

    Args:
        data: devices over which rows are spread; -1 takes all that remain.
        fsdp: devices over which rows and parameters are spread.
        tensor: devices over which the axes of one matrix are spread.
        devices: the devices to use; all of them by default.
    """
    devices = list(jax.devices() if devices is None else devices)
    if data == -1:
        data = max(len(devices) // (fsdp * tensor), 1)
    sizes = (data, fsdp, tensor)
    needed = data * fsdp * tensor
    if min(sizes) < 1 or needed > len(devices):
        raise UserError(
            f"mesh data={data}, fsdp={fsdp}, tensor={tensor} needs {needed} devices, "
            f"found {len(devices)}; lower config.mesh"
        )
    # JAX defaults to Explicit axes, under which Flax Linen's gathers fail.
    return jax.make_mesh(
        sizes,
        MESH_AXES,
        axis_types=(AxisType.Auto,) * len(MESH_AXES),
        devices=devices[:needed],
    )


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the data axes, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(ROW_AXES))


def rows_apart(x: Array) -> Array:
    """Activations whose rows stay where they are; the same array without a mesh.

    Where parameters are spread over devices that rows are spread over too, XLA would
    else spread activations as the parameters are, and sum them between devices after
    every product, instead of gathering the parameters, which are smaller. Takes effect
    under ``jax.set_mesh``.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp"] == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(ROW_AXES))


def rows_are_apart() -> bool:
    """Whether rows are all that the mesh spreads: each device has every parameter.

    The mesh is that of ``jax.set_mesh``; inside a `jax.shard_map` rows are spread
    already, and the answer is no.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or set(mesh.axis_types) != {AxisType.Auto}:
        return False
    return mesh.size == mesh.shape["data"] > 1


def in_host_memory(sharding: NamedSharding) -> NamedSharding:
    """The same share of an array for each device, in the memory of its host."""
    return sharding.with_memory_kind("pinned_host")


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_rows(rows: int, mesh: Mesh) -> None:
    """Raises unless a batch of ``rows`` rows can be spread over the mesh."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % parts:
        raise UserError(
            f"config.batch.rows is {rows}, which does not divide over {parts} devices "
            f"(data x fsdp); make it a multiple of {parts} or set config.mesh.data"
        )


def tree_paths(tree: Params) -> list[str]:
    """The path of each leaf, its keys joined by slashes, in leaf order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
    ]


def param_shardings(
    shapes: Params,
    axis_rules: AxisRules,
    mesh_rules: Mapping[str, str | None],
    mesh: Mesh,
) -> Params:
    """The sharding of every parameter: path -> logical axes -> mesh axes.

    Args:
        shapes: a tree with ``.shape`` at its leaves.
        axis_rules: (path regex, logical axes) pairs; the first that matches the whole
            path wins.
        mesh_rules: the mesh axis of each logical axis, or None to keep it whole.
        mesh: the mesh.

    Raises:
        UserError: for a leaf without a rule, a rule that matches nothing, a rule of
            the wrong rank, two axes of one array on the same mesh axis, or a size
            that does not divide.
    """
    leaves, treedef = jax.tree.flatten(shapes)
    used: set[str] = set()
    shardings = []
    for path, leaf in zip(tree_paths(shapes), leaves, strict=True):
        pattern, axes = _first_match(path, axis_rules)
        used.add(pattern)
        shardings.append(
            NamedSharding(mesh, _spec(path, leaf.shape, axes, mesh_rules, mesh))
        )
    dead = [pattern for pattern, _ in axis_rules if pattern not in used]
    if dead:
        raise UserError(f"param_axes rules match no parameter: {dead}; remove them")
    return jax.tree.unflatten(treedef, shardings)


def _first_match(
    path: str, axis_rules: AxisRules
) -> tuple[str, tuple[str | None, ...]]:
    for pattern, axes in axis_rules:
        if re.fullmatch(pattern, path):
            return pattern, axes
    raise UserError(f"parameter {path} has no rule in param_axes; add one")


def _spec(
    path: str,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    mesh_rules: Mapping[str, str | None],
    mesh: Mesh,
) -> PartitionSpec:
    if len(axes) != len(shape):
        raise UserError(
            f"parameter {path} has shape {shape}, its rule names {len(axes)} axes"
        )
    unknown = [axis for axis in axes if axis is not None and axis not in mesh_rules]
    if unknown:
        raise UserError(
            f"parameter {path} has logical axes {unknown} that config.mesh.rules "
            f"does not map; known: {sorted(mesh_rules)}"
        )
    entries = [None if axis is None else mesh_rules[axis] for axis in axes]
    named = [entry for entry in entries if entry is not None]
    if len(set(named)) != len(named):
        raise UserError(f"parameter {path}: two axes map to one mesh axis: {entries}")
    for size, entry in zip(shape, entries, strict=True):
        if entry is not None and size % mesh.shape[entry]:
            raise UserError(
                f"parameter {path} of shape {shape} does not divide over the "
                f"{mesh.shape[entry]} devices of mesh axis {entry}"
            )
    return PartitionSpec(*entries)
