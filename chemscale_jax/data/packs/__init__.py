"""Frames as graphs in packs of fixed size, and epochs of them."""
