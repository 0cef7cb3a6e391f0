"""Files of SMILES to stores and rows of tokens."""
