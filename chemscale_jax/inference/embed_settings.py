"""What to read from a model: which layer, of what, and pooled how."""

import dataclasses
from collections.abc import Sequence
from typing import NoReturn

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.inputs.conformed_rows import GEOMETRIES

LEVELS = ("molecule", "atom", "pair")
POOLS = ("auto", "cls", "mean", "sum", "last")
FEATURES = ("auto", "keep", "drop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """What to read from a model; what a model does not have, it refuses.

    Attributes:
        layer: 0 for what comes before the first layer, up to the depth for the last;
            -1 for the last, -2 for the one before; "all" for each one from 0 on.
        level: "molecule", "atom" (heavy ones, in the order of the canonical SMILES) or
            "pair" (all ordered pairs of them, each atom with itself too; Uni-Mol2).
        pool: of molecules: "mean" or "sum" over atoms, or over the symbols of a
            language model; "cls", the virtual atom of Uni-Mol2; "last", the last
            symbol; "auto": as the published tools take it, "cls" for Uni-Mol2 and
            "mean" for all others.
        conformers: of each molecule, for models that read coordinates.
        seed: of the conformers.
        geometry: "given" (where the input has any, else conformers), "conformers" of
            all molecules, or "flat" for drawings, which take no time to make. Force
            fields always take conformers, which have hydrogens.
        features: of atoms and bonds of Uni-Mol2: "keep", "drop" (withheld), or "auto":
            as the network was finetuned, kept where it was not.

    Raises:
        UserError: a value is unknown.
    """

    layer: int | str = -1
    level: str = "molecule"
    pool: str = "auto"
    conformers: int = 1
    seed: int = 0
    geometry: str = "given"
    features: str = "auto"

    def __post_init__(self):
        choices = {
            "level": LEVELS,
            "pool": POOLS,
            "geometry": tuple(GEOMETRIES),
            "features": FEATURES,
        }
        for name, allowed in choices.items():
            if (found := getattr(self, name)) not in allowed:
                raise UserError(f"{name} is {found!r}, expected one of {allowed}")
        if self.level != "molecule" and self.pool not in ("auto", "cls"):
            raise UserError(
                f"pool={self.pool!r} is for level='molecule': leave it out for "
                f"level={self.level!r}"
            )


LAST_LAYER = EmbedSettings()


def pooled(
    settings: EmbedSettings, model: str, pools: Sequence[str], levels: Sequence[str]
) -> EmbedSettings:
    """The settings with a pool of the model's in place of "auto".

    Args:
        settings: as the user gave them.
        model: what it is, for errors.
        pools: that it has, the default first.
        levels: that it has.

    Raises:
        UserError: it has no such pool or level.
    """
    if settings.level not in levels:
        raise UserError(
            f"level is {settings.level!r}: {model} has {' and '.join(levels)}"
        )
    if settings.level != "molecule":
        return dataclasses.replace(settings, pool="auto")
    if settings.pool == "auto":
        return dataclasses.replace(settings, pool=pools[0])
    if settings.pool not in pools:
        raise UserError(f"pool is {settings.pool!r}: {model} has {', '.join(pools)}")
    return settings


def numbered_layers(layer: int | str, depth: int) -> list[int]:
    """Numbers of the layers that a setting asks of a network of some depth.

    Raises:
        UserError: there is none.
    """
    if layer == "all":
        return list(range(depth + 1))
    number = layer + depth + 1 if isinstance(layer, int) and layer < 0 else layer
    if not isinstance(number, int) or not 0 <= number <= depth:
        raise UserError(
            f"layer is {layer!r}: this network has {depth}; give 0 to {depth}, "
            f"-{depth + 1} to -1, or 'all'"
        )
    return [number]


def refuse_empty() -> NoReturn:
    """Refuses an input without a row."""
    raise UserError("the input has no row, so there is nothing to do")
