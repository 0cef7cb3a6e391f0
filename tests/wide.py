"""Runs in float64, which no config offers: to tell the order of sums from mistakes."""

import dataclasses

import jax
import numpy as np


def wide_lane(lane):
    """A run whose parameters and batches are float64; needs JAX's x64 mode."""
    task = dataclasses.replace(lane.task, init=lambda key: _wide(lane.task.init(key)))
    return lane._replace(task=task, stream=_WideStream(lane.stream))


class _WideStream:
    """A stream whose batches hold float64 where they held float32."""

    def __init__(self, stream):
        self._stream = stream
        self.batch_specs = tuple(_wide(spec, _wide_spec) for spec in stream.batch_specs)

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def iterate(self, epoch, start):
        return (_wide(batch) for batch in self._stream.iterate(epoch, start))


def _wide_array(x):
    return x.astype(np.float64) if x.dtype == np.float32 else x


def _wide_spec(x):
    wide = np.float64 if x.dtype == np.float32 else x.dtype
    return jax.ShapeDtypeStruct(x.shape, wide)


def _wide(tree, change=_wide_array):
    return jax.tree.map(change, tree)
