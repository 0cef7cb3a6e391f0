"""Moves arrays between a foreign state dict and a tree of parameters, strictly."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from chemscale_jax.core.errors import UserError


def _as_is(array: np.ndarray) -> np.ndarray:
    return array


class Entry(NamedTuple):
    """One array: its foreign name, its path in our tree, and how the two relate."""

    name: str
    path: tuple[str, ...]  # starts with "params" or "constants"
    to_ours: Callable[[np.ndarray], np.ndarray] = _as_is
    to_theirs: Callable[[np.ndarray], np.ndarray] = _as_is


def dense(
    name: str, *path: str, bias: bool = True, blocks: Sequence[int] = ()
) -> list[Entry]:
    """The entries of a torch ``Linear``, whose weight is (out, in).

    Args:
        name: of the layer.
        path: of the layer in our tree.
        bias: whether it has one.
        blocks: the order in which we keep equal blocks of its outputs, if not theirs.
    """

    def reorder(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
        parts = np.split(array, len(order), axis=-1)
        return np.concatenate([parts[block] for block in order], axis=-1)

    order = tuple(blocks) or (0,)
    back = tuple(int(place) for place in np.argsort(order))
    entries = [
        Entry(
            f"{name}.weight",
            (*path, "kernel"),
            lambda array: reorder(array.T, order),
            lambda array: reorder(array, back).T,
        )
    ]
    if bias:
        entries.append(
            Entry(
                f"{name}.bias",
                (*path, "bias"),
                lambda array: reorder(array, order),
                lambda array: reorder(array, back),
            )
        )
    return entries


def import_weights(
    state: Mapping[str, np.ndarray], entries: Sequence[Entry]
) -> dict[str, Any]:
    """The tree ``{"params": ..., "constants": ...}`` of a foreign state dict.

    Raises:
        UserError: unless every name of the state dict is used exactly once.
    """
    wanted = [entry.name for entry in entries]
    if missing := sorted(set(wanted) - set(state)):
        raise UserError(
            f"weights lack {missing}; is the config the one they belong to?"
        )
    if unused := sorted(set(state) - set(wanted)):
        raise UserError(f"weights hold {unused}, for which the config has no place")
    tree: dict[str, Any] = {"params": {}, "constants": {}}
    for entry in entries:
        *folders, leaf = entry.path
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = np.ascontiguousarray(entry.to_ours(np.asarray(state[entry.name])))
    return tree


def export_weights(
    tree: Mapping[str, Any], entries: Sequence[Entry]
) -> dict[str, np.ndarray]:
    """The foreign state dict of a tree ``{"params": ..., "constants": ...}``."""
    state = {}
    for entry in entries:
        node: Any = tree
        for key in entry.path:
            node = node[key]
        state[entry.name] = np.ascontiguousarray(entry.to_theirs(np.asarray(node)))
    return state


def check_shapes(tree: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises a UserError naming the first array whose shape or place differs."""
    found, wanted = _shapes(tree), _shapes(expected)
    for path in sorted(set(found) | set(wanted)):
        if found.get(path) != wanted.get(path):
            raise UserError(
                f"imported weights have {path} of shape {found.get(path)}, "
                f"the config asks for {wanted.get(path)}"
            )


def _shapes(tree: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[int, ...]]:
    shapes = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            shapes |= _shapes(value, f"{prefix}{key}/")
        else:
            shapes[f"{prefix}{key}"] = tuple(value.shape)
    return shapes
