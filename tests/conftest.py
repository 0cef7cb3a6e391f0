"""Strict JAX settings, eight CPU devices and a compilation cache for every test."""

import os
import pathlib
import tempfile

from tests.xla_flags import EIGHT_DEVICES, QUICK

os.environ["JAX_PLATFORMS"] = os.environ.get("CHEMSCALE_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    (os.environ.get("XLA_FLAGS", ""), EIGHT_DEVICES, QUICK)
)

# The cache's loader reports CPU features in pages of text.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")
_CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(
    pathlib.Path(tempfile.gettempdir()) / "chemscale-test-cache"
)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
