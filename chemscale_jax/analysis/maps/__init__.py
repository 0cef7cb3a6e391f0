"""Maps of molecules by their embeddings, and how much they show."""
