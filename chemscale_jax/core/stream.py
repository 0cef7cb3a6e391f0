"""What the trainer asks of data: epochs of batches, each a pure function of a seed."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from chemscale_jax.core.types import Batch


class Epoch(Protocol):
    """A finite sequence of batches with random access."""

    def __len__(self) -> int:
        """How many batches there are."""
        ...

    def __getitem__(self, index: int) -> Batch:
        """The rows of batch ``index`` that belong to this process, as NumPy arrays."""
        ...

    def record_ids(self, index: int) -> list[str]:
        """Names of the records in batch ``index``, for error messages."""
        ...


class Stream(Protocol):
    """Training epochs, named evaluation sets, and facts the run has to remember."""

    # Host-side facts that later readers need (reference energies, units, splits);
    # JSON-serialisable, stored beside every checkpoint as artifacts.json.
    artifacts: Mapping[str, Any]
    # {split name: its batches}; "valid" steers plateau, early stop and best checkpoint.
    evals: Mapping[str, Epoch]

    # Shapes and dtypes of the batches of all processes together, one per bucket.
    batch_specs: tuple[Batch, ...]

    @property
    def summary(self) -> str:
        """One line for a person: how many records there are, and in what."""
        ...

    def iterate(self, epoch: Epoch, start: int) -> Iterator[Batch]:
        """``epoch[start]``, ``epoch[start + 1]``, ... fetched ahead."""
        ...

    def train_epoch(self, epoch: int) -> Epoch:
        """The batches of one pass over the training set, in that epoch's order."""
        ...
