"""Molecules, units and labels, without JAX."""
