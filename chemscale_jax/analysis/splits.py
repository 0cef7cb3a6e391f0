"""The splits a run has predictions for, in the order of reports."""

from collections.abc import Iterable

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.predictions import Predictions
from chemscale_jax.core.workdir import Workdir


def read_splits(workdir: Workdir) -> dict[str, Predictions]:
    """The predictions of a run by split, seen molecules before held-out ones.

    Raises:
        UserError: there are none.
    """
    paths = {path.stem: path for path in sorted(workdir.predictions.glob("*.npz"))}
    if not paths:
        raise UserError(
            f"{workdir.path} has no predictions yet; they are written at the end of a "
            "run, so give its command again and let it finish"
        )
    return {split: Predictions.load(paths[split]) for split in in_order(paths)}


def in_order(splits: Iterable[str]) -> list[str]:
    """Names of splits as reports list them: valid, heldout, then the others."""
    first = ("valid", "heldout")
    return sorted(
        splits, key=lambda s: (first.index(s) if s in first else len(first), s)
    )
