"""Molecules that a user hands over, one row after the other."""
