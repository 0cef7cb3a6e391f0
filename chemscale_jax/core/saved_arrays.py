"""Arrays that belong together, and the one file they are kept in.

NumPy only, since reports do without JAX.
"""

import dataclasses
import os
import pathlib
import tempfile
import zipfile
from typing import Self

import numpy as np

from chemscale_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class SavedArrays:
    """Base of dataclasses of predictions, whose fields are arrays.

    A field with a default may be None, and is left out of the file then.
    """

    def save(self, path: pathlib.Path) -> None:
        """Writes an ``.npz`` in one piece; arrays that are None are left out."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self._arrays())
        os.chmod(draft, 0o644)
        os.replace(draft, path)

    @classmethod
    def load(cls, path: pathlib.Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            UserError: the file cannot be read or lacks an array.
        """
        anew = "delete it and give the command of the run again, which writes it anew"
        fields = dataclasses.fields(cls)
        try:
            # NumPy does not close a file whose end is missing.
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {f.name: file[f.name] for f in fields if f.name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is not a file of predictions ({error}); {anew}"
            ) from None
        needed = [f.name for f in fields if f.default is dataclasses.MISSING]
        if lacking := [name for name in needed if name not in arrays]:
            raise UserError(f"{path} has no {', '.join(lacking)}; {anew}")
        return cls(**arrays)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) is not None
        }
