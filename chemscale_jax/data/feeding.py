"""The order of epochs, the share of a process, and batches made ahead of time."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.stream import Epoch
from chemscale_jax.core.types import Config


class Feeding(NamedTuple):
    """How a stream feeds one of the processes that share each batch.

    Attributes:
        seed: of the order of epochs.
        process_index: which of the processes this is.
        process_count: how many processes share each batch.
        workers: processes that read ahead; 0 for a thread.
        prefetch: batches read ahead, for each worker; 0 makes each when it is asked
            for, which is quicker where batches are small.
    """

    seed: int = 0
    process_index: int = 0
    process_count: int = 1
    workers: int = 0
    prefetch: int = 2

    @classmethod
    def of(cls, config: Config, process_index: int, process_count: int) -> "Feeding":
        """As a config says.

        Args:
            config: its ``seed`` and ``batch`` are read.
            process_index: which of the processes this is.
            process_count: how many processes share each batch.
        """
        batch = config.batch
        args = process_index, process_count, batch.workers, batch.prefetch
        return cls(config.seed, *args)

    def local(self, rows: int) -> slice:
        """Those of a batch's rows that belong to this process.

        Raises:
            UserError: the processes cannot share them.
        """
        if rows < 1 or rows % self.process_count:
            raise UserError(
                f"config.batch.rows={rows} cannot be shared by {self.process_count} "
                "processes: use a multiple of their number"
            )
        share = rows // self.process_count
        return slice(share * self.process_index, share * (self.process_index + 1))

    def rng(self, epoch: int) -> np.random.Generator:
        """Random numbers that depend on the seed and the epoch only."""
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch]))

    def iterate(self, epoch: Epoch, start: int) -> Iterator[Any]:
        """The batches of an epoch from ``start`` on, made ahead of time by grain.

        Order and content are those of plain indexing.
        """
        if self.prefetch == 0 and self.workers == 0:
            return (epoch[index] for index in range(start, len(epoch)))
        # Costs a second to import, so only training pays it.
        import grain

        ahead = max(1, self.prefetch)
        batches = grain.MapDataset.source(epoch)[start:].to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
        )
        if self.workers > 0:
            # grain asks absl for flags, also in programs that do not use them.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(
                self.workers, per_worker_buffer_size=ahead
            )
            batches = batches.mp_prefetch(options)
        return iter(batches)


ALONE = Feeding()
