"""Files of SMILES to stores of conformers, and batches of molecules from them."""
