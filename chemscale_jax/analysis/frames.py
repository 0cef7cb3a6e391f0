"""Predictions of one split as the reports need them, read without JAX."""

import dataclasses
import pathlib
import zipfile

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir

# In `kind`: a frame with a stretched bond (FrameKind.STRETCHED of chem/geometries.py,
# which is not imported because it brings RDKit along).
STRETCHED = 2


@dataclasses.dataclass(frozen=True)
class Frames:
    """True and predicted labels of the frames of a split.

    Frames have one entry per frame (F), atoms one per atom (A); ``frame`` says which
    frame an atom belongs to. The file has more arrays; see `inference.predict`.
    """

    n_atoms: np.ndarray  # (F,) int
    energy_true: np.ndarray  # (F,) eV, without the reference energies of the elements
    energy_pred: np.ndarray  # (F,) eV, likewise
    energy_mask: np.ndarray  # (F,) bool, True where the energy is labelled
    frame: np.ndarray  # (A,) int
    species: np.ndarray  # (A,) atomic numbers
    forces_true: np.ndarray  # (A, 3) eV/angstrom
    forces_pred: np.ndarray  # (A, 3) eV/angstrom
    forces_mask: np.ndarray  # (A,) bool, True where the forces are labelled
    kind: np.ndarray | None = None  # (F,) uint8, how the frame was made

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def stretched(self) -> np.ndarray:
        """(F,) bool; False for all frames where kinds are unknown."""
        if self.kind is None:
            return np.zeros(len(self), bool)
        return self.kind == STRETCHED

    def mean_abs_force(self) -> np.ndarray:
        """Mean absolute true force component of each frame: (F,) eV/angstrom.

        NaN for frames without labelled forces.
        """
        labelled = self.forces_mask
        frame = self.frame[labelled]
        absolute = np.abs(self.forces_true[labelled].astype(np.float64)).sum(1)
        total = np.bincount(frame, absolute, len(self))
        components = 3 * np.bincount(frame, minlength=len(self))
        return np.where(components > 0, total / np.maximum(components, 1), np.nan)


def read_frames(path: pathlib.Path) -> Frames:
    """Reads a predictions file.

    Raises:
        UserError: the file cannot be read or lacks an array.
    """
    fields = dataclasses.fields(Frames)
    try:
        # NumPy does not close a file whose end is missing.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {f.name: file[f.name] for f in fields if f.name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not a file of predictions ({error}); delete it and give the "
            "command of the run again, which writes it anew"
        ) from None
    lacking = [
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.name not in arrays
    ]
    if lacking:
        raise UserError(
            f"{path} has no {', '.join(lacking)}; delete it and give the command of "
            "the run again, which writes it anew"
        )
    return Frames(**arrays)


def read_splits(workdir: Workdir) -> dict[str, Frames]:
    """The predictions of a run, {split: frames}, seen molecules before held-out ones.

    Raises:
        UserError: there are none.
    """
    paths = {path.stem: path for path in sorted(workdir.predictions.glob("*.npz"))}
    if not paths:
        raise UserError(
            f"{workdir.path} has no predictions yet; they are written at the end of a "
            "run, so give its command again and let it finish"
        )
    return {split: read_frames(paths[split]) for split in in_order(paths)}


def in_order(splits) -> list[str]:
    """Names of splits as reports list them: valid, heldout, then the others."""
    first = ("valid", "heldout")
    return sorted(
        splits, key=lambda s: (first.index(s) if s in first else len(first), s)
    )
