"""Hyperparameters of Uni-Mol2, the published sizes, and what they cost."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from chemscale_jax.core.errors import UserError
from chemscale_jax.models import options as checks

PAIR_TYPES = ("element", "chirality")
LENGTHS = ("exact", "own", "batch")


@dataclasses.dataclass(frozen=True)
class Unimol2Options:
    """Hyperparameters. The defaults besides the sizes are those of `clean`.

    ``pair_type`` says what chooses the scale and shift of a distance. The published
    code means the elements of both atoms, but looks up their first atom feature,
    which is chirality: "chirality" does the same, "element" what was meant.

    ``length`` is the T by which outer products and triangles are scaled. "batch": the
    padded length of the batch, as in the published code, so that embeddings change
    with the company a molecule is in. "own": what the published code takes for the
    molecule alone, its atoms and the virtual one rounded up to a multiple of 4.
    "exact": without rounding.
    """

    width: int  # D
    depth: int  # layers
    heads: int  # H
    pair_width: int = 512  # Q
    pair_hidden: int = 64  # C, of outer products and triangles
    ffn_width: int = 0  # F of the atoms' feed-forward network; 0: D
    pair_type: str = "element"  # element, chirality
    length: str = "exact"  # exact, own, batch
    dropout: float = 0.1  # of what each part adds to atoms and pairs, but triangles
    attention_dropout: float = 0.1  # of attention weights, also of the movement head
    pair_dropout: float = 0.25  # of triangles; one mask for all rows of the pairs
    kernel_start: float = 0.0  # angstrom, centre of the first Gaussian of distances
    kernel_stop: float = 9.0  # angstrom, centre of the last one
    kernel_width: float = 1.0  # their deviation, in distances between centres
    dtype: str = "float32"  # of matrix products: float32, bfloat16
    remat: str = "none"  # what the backward pass computes again: none, full, dots
    attention: str = "auto"  # xla, cudnn; auto: cudnn on a GPU where it gains
    unroll: int = 1  # layers in one turn of the scan

    @property
    def hidden(self) -> int:
        """F, the width of the atoms' feed-forward network."""
        return self.ffn_width or self.width


# The six of Table 2 of Ji et al. 2024 ("Uni-Mol2"), whose names count parameters, and
# smaller ones of ours for processors, with 16 channels per head as those have.
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": dict(width=64, depth=4, heads=4, pair_width=32, pair_hidden=8),
    "1M": dict(width=128, depth=6, heads=8, pair_width=64, pair_hidden=16),
    "5M": dict(width=256, depth=7, heads=16, pair_width=128, pair_hidden=32),
    "42M": dict(width=768, depth=6, heads=48),
    "84M": dict(width=768, depth=12, heads=48),
    "164M": dict(width=768, depth=24, heads=48),
    "310M": dict(width=1024, depth=32, heads=64),
    "570M": dict(width=1536, depth=32, heads=96),
    "1.1B": dict(width=1536, depth=64, heads=96),
}


def faithful(size: str, **changes: Any) -> Unimol2Options:
    """A size as the published code computes it, in batches and alone.

    Raises:
        UserError: there is no such size or option.
    """
    return _sized(size, {"pair_type": "chirality", "length": "batch", **changes})


def clean(size: str, **changes: Any) -> Unimol2Options:
    """A size with pair types of elements, and independent of padding and batch.

    Raises:
        UserError: there is no such size or option.
    """
    return _sized(size, {"pair_type": "element", "length": "exact", **changes})


def _sized(size: str, changes: Mapping[str, Any]) -> Unimol2Options:
    if size not in SIZES:
        raise UserError(f"config.model.size is {size!r}, expected {tuple(SIZES)}")
    fields = {**SIZES[size], **changes}
    return checks.from_fields(Unimol2Options, "unimol2", fields)


def check(options: Unimol2Options) -> None:
    """Refuses options out of range.

    Raises:
        UserError: naming the option.
    """
    checks.check_choices(
        options,
        {
            "pair_type": PAIR_TYPES,
            "length": LENGTHS,
            "dtype": checks.DTYPES,
            "remat": ("none", "full", "dots"),
            "attention": ("auto", "xla", "cudnn"),
        },
    )
    sizes = ("width", "depth", "heads", "pair_width", "pair_hidden", "unroll")
    checks.check_least(
        options, {**dict.fromkeys(sizes, 1), "ffn_width": 0, "kernel_width": 1e-3}
    )
    for field in ("dropout", "attention_dropout", "pair_dropout"):
        if not 0 <= (value := getattr(options, field)) < 1:
            raise UserError(f"config.model.{field} is {value}, must be in [0, 1)")
    if options.width % options.heads:
        raise UserError(
            f"config.model.width {options.width} is not a multiple of "
            f"config.model.heads {options.heads}; make it one"
        )
    if options.kernel_stop <= options.kernel_start:
        raise UserError(
            f"config.model.kernel_stop is {options.kernel_stop}, must be above "
            f"config.model.kernel_start {options.kernel_start}"
        )


def forward_flops(options: Unimol2Options, length: int) -> int:
    """Operations of the layers' matrix products for one molecule, forward.

    Args:
        options: of the network.
        length: T, places of the molecule with the virtual atom, or of its padded row.
    """
    D, F, H = options.width, options.hidden, options.heads
    Q, C, T = options.pair_width, options.pair_hidden, length
    atoms = 2 * T * (4 * D * D + 2 * D * F) + 4 * T * T * D + 2 * T * T * Q * H
    outer = 4 * T * D * C + 2 * T * C * C * Q + 2 * T * T * C * Q
    triangle = 2 * T * T * Q * (4 * C + Q) + 4 * T**3 * C + 2 * T * T * C * Q
    pairs = 4 * T * T * Q * Q
    return options.depth * (atoms + outer + triangle + pairs)
