"""Strict JAX settings, eight CPU devices and a compilation cache for every test."""

import os
import pathlib
import tempfile

os.environ["JAX_PLATFORMS"] = os.environ.get("CHEMSCALE_TEST_PLATFORM", "cpu")
# Tests compile for longer than they compute: without LLVM's optimisation they take a
# fifth less.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=0"
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
