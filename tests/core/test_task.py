import jax.numpy as jnp

from chemscale_jax.core.selftest import check_arithmetic
from chemscale_jax.core.task import Mean, loss_of, merge


def test_merged_means_are_the_mean_over_both():
    left = {"a": Mean(jnp.asarray(6.0), jnp.asarray(2.0))}
    right = {"a": Mean(jnp.asarray(3.0), jnp.asarray(1.0))}
    assert float(merge(left, right)["a"].value()) == 3.0
    assert float(loss_of(merge(left, right), {"a": 2.0})) == 6.0


def test_a_mean_over_nothing_is_zero():
    assert float(Mean(jnp.zeros(()), jnp.zeros(())).value()) == 0.0


def test_installed_jax_passes_the_self_test():
    check_arithmetic()
