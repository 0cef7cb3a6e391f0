"""Batches made ahead of time."""

from collections.abc import Iterator
from typing import Any

from absl import flags

from chemscale_jax.core.stream import Epoch


def prefetched(epoch: Epoch, start: int, workers: int, prefetch: int) -> Iterator[Any]:
    """The batches of an epoch from ``start`` on, made ahead of time by grain.

    Order and content are those of plain indexing.

    Args:
        epoch: the batches.
        start: the first batch.
        workers: processes that make them; 0 for one thread.
        prefetch: how many batches may wait, for each worker; 0 makes each when it is
            asked for, which is quicker where batches are small.
    """
    if prefetch == 0 and workers == 0:
        return (epoch[index] for index in range(start, len(epoch)))
    # Costs a second to import, so only training pays it.
    import grain

    ahead = max(1, prefetch)
    batches = grain.MapDataset.source(epoch)[start:].to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
    )
    if workers > 0:
        # grain asks absl for flags, also in programs that do not use them.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=ahead)
        batches = batches.mp_prefetch(options)
    return iter(batches)
