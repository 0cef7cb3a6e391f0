"""Simple models of frozen embeddings, and what they predict."""
