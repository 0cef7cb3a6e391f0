"""Molecules with energies and forces: formats, checks, splits."""
