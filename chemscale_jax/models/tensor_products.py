"""Tensor products of irreps, channel by channel, as sparse sums of arrays.

A feature is a list of its components: for irreps ``0e + 1o`` four arrays, each with the
channels as last axis. On a CPU that is far faster than one array with an irreps axis:
of the Clebsch-Gordan coefficients only those that are not zero cost anything, every
product is elementwise on contiguous rows, and XLA fuses whole sums of them.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import e3nn_jax as e3nn
import numpy as np

from chemscale_jax.core.types import Array

# Each irrep at most once; the number of channels is that of the arrays.
Kinds = tuple[e3nn.Irrep, ...]

PARITIES = ("o3_full", "o3_restricted", "so3")
_SCALAR = e3nn.Irrep(0, 1)
_ZERO = 1e-9  # coefficients are of order 0.1 to 1, the others rounding errors


class Path(NamedTuple):
    """One product ``left x right -> out``, by the places in the lists of irreps."""

    out: int
    left: int
    right: int
    # For each component of ``out``: (component of the left feature, of the right
    # feature, coefficient) triples.
    terms: tuple[tuple[tuple[int, int, float], ...], ...]


def spherical_kinds(l_max: int, parity: str) -> Kinds:
    """The irreps of spherical harmonics; all even if mirror images may differ."""
    sign = 1 if parity == "so3" else -1
    return tuple(e3nn.Irrep(l, sign**l) for l in range(l_max + 1))


def layer_kinds(l_max: int, parity: str, depth: int) -> list[Kinds]:
    """The irreps of edge features before each of ``depth`` products and after the last.

    Each product is with spherical harmonics. Only scalars are needed after the last;
    what cannot be made from the first or cannot reach the last is left out, as in
    Allegro's code.
    """
    sphere = spherical_kinds(l_max, parity)
    allowed = sphere
    if parity == "o3_full":
        allowed = tuple(e3nn.Irrep(l, p) for l in range(l_max + 1) for p in (1, -1))
    kinds = [sphere]
    for layer in range(depth):
        wanted = (_SCALAR,) if layer == depth - 1 else allowed
        kinds.append(tuple(ir for ir in wanted if _makes(kinds[-1], sphere, (ir,))))
    for layer in reversed(range(depth)):
        after = kinds[layer + 1]
        kinds[layer] = tuple(ir for ir in kinds[layer] if _makes((ir,), sphere, after))
    return kinds


def _makes(left: Kinds, right: Kinds, out: Kinds) -> bool:
    return any(ir in out for a in left for b in right for ir in a * b)


@functools.cache
def paths(left: Kinds, right: Kinds, out: Kinds) -> tuple[Path, ...]:
    """Every product into ``out``, ordered by out, left and right.

    Coefficients are those of Clebsch and Gordan, times ``sqrt(2 l + 1)``: components of
    variance 1 on both sides give components of variance 1 on each path.
    """
    return tuple(
        Path(o, a, b, _terms(left, right, a, b, ir_o))
        for o, ir_o in enumerate(out)
        for a, ir_a in enumerate(left)
        for b, ir_b in enumerate(right)
        if ir_o in ir_a * ir_b
    )


def _terms(
    left: Kinds, right: Kinds, a: int, b: int, out: e3nn.Irrep
) -> tuple[tuple[tuple[int, int, float], ...], ...]:
    first_a, first_b = offsets(left)[a], offsets(right)[b]
    table = np.asarray(e3nn.clebsch_gordan(left[a].l, right[b].l, out.l), np.float64)
    table = table * np.sqrt(2 * out.l + 1)
    return tuple(
        tuple(
            (first_a + int(i), first_b + int(j), float(table[i, j, k]))
            for i, j in np.argwhere(np.abs(table[:, :, k]) > _ZERO)
        )
        for k in range(out.dim)
    )


def offsets(kinds: Kinds) -> list[int]:
    """The place of the first component of each irrep, and the number of all."""
    return [0, *(int(n) for n in np.cumsum([ir.dim for ir in kinds]))]


def kind_of_component(kinds: Kinds) -> list[int]:
    """For each component the place of its irrep."""
    return [place for place, ir in enumerate(kinds) for _ in range(ir.dim)]


def product(path: Path, left: Sequence[Array], right: Sequence[Array]) -> list[Array]:
    """The components of one path's output."""
    return [
        _sum([coefficient * (left[i] * right[j]) for i, j, coefficient in component])
        for component in path.terms
    ]


def _sum(parts: Sequence[Array]) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
