"""Labelled molecules: columns, splits, batches."""
