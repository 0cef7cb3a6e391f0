"""Train chemical models over many orders of magnitude, and measure how they scale."""

__version__ = "0.1.0"
