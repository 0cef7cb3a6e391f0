"""Vectors and fingerprints: indices, neighbours, and what is alike in them."""
