"""Readers and streams: records in our units, batches of static shape."""

from collections.abc import Callable

from chemscale_jax.core.stream import Stream
from chemscale_jax.core.types import Config


def _graphs(config: Config, process_index: int, process_count: int) -> Stream:
    # Imported when asked for: HDF5 and grain cost start-up time.
    from chemscale_jax.data.packs import stream

    return stream.make_stream(
        config,
        config.model.cutoff_ang,
        process_index=process_index,
        process_count=process_count,
    )


def _tokens(config: Config, process_index: int, process_count: int) -> Stream:
    # Likewise: RDKit comes with the corpora.
    from chemscale_jax.data.text import token_stream

    return token_stream.make_token_stream(config, process_index, process_count)


def _molecules(config: Config, process_index: int, process_count: int) -> Stream:
    # Likewise.
    from chemscale_jax.data.conformers import molecule_stream

    return molecule_stream.make_molecule_stream(config, process_index, process_count)


def _properties(config: Config, process_index: int, process_count: int) -> Stream:
    # Likewise.
    from chemscale_jax.data.labels import property_stream

    return property_stream.make_property_stream(config, process_index, process_count)


# Name in config.data.stream: a function of config, process index and process count.
STREAMS: dict[str, Callable[[Config, int, int], Stream]] = {
    "graphs": _graphs,
    "molecules": _molecules,
    "properties": _properties,
    "tokens": _tokens,
}
