"""A config file whose sweep() has three cells."""

CONFIG = """
from chemscale_jax.configs import common

def get_config(arg=""):
    config = common.base()
    config.name = "fake"
    config.train.epochs = 4
    return config

def sweep():
    for lr in (1e-2, 1e-3, 1e-4):
        yield {"optimizer.lr": lr}
"""
