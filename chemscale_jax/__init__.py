"""Train chemical models over many orders of magnitude, and measure how they scale."""

import os

__version__ = "0.1.0"

# XLA's loader of cached CPU programs prints pages of processor features as errors. It
# reads this when JAX is imported, which no file of this package does before this line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
