"""``chemscale train``: the same as ``python -m chemscale_jax.main``."""

from chemscale_jax import main as trainer


def main(argv: list[str]) -> int:
    """Runs the trainer on command-line arguments."""
    return trainer.main(["chemscale train", *argv])
