import numpy as np
import pytest
from rdkit import Chem

from chemscale_jax.chem import elements


def test_symbols_agree_with_rdkit():
    table = Chem.GetPeriodicTable()
    assert len(elements.SYMBOLS) == 119
    for number in range(1, 119):
        symbol = table.GetElementSymbol(number)
        assert elements.symbol_of(number) == symbol
        assert elements.atomic_number(symbol) == number


def test_masses_keep_the_shape():
    masses = elements.masses_of(np.array([[1, 6], [7, 8]], np.uint8))
    np.testing.assert_allclose(masses, [[1.008, 12.011], [14.007, 15.999]], atol=1e-3)


@pytest.mark.parametrize("symbol", ["X", "c", "CL", "Xx", ""])
def test_unknown_symbol(symbol):
    with pytest.raises(ValueError, match=f"unknown element symbol '{symbol}'"):
        elements.atomic_number(symbol)


@pytest.mark.parametrize("number", [0, 119, -1])
def test_unknown_number(number):
    with pytest.raises(ValueError, match=f"atomic number {number} is not an element"):
        elements.symbol_of(number)
