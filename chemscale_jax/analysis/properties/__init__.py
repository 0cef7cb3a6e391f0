"""How well properties of molecules are predicted, beside simpler models."""
