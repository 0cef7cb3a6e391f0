"""Chemical symbols, atomic numbers and masses."""

import numpy as np

# The symbol at index Z belongs to atomic number Z; index 0 is padding.
SYMBOLS: tuple[str, ...] = tuple(
    """
    X
    H He
    Li Be B C N O F Ne
    Na Mg Al Si P S Cl Ar
    K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
    Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
    Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu
    Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
    Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr
    Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
    """.split()
)
MAX_ATOMIC_NUMBER = len(SYMBOLS) - 1

_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}


def atomic_number(symbol: str) -> int:
    """The atomic number of an element symbol, e.g. 6 for ``"C"``.

    Raises:
        ValueError: no element has this symbol.
    """
    if symbol not in _NUMBERS:
        raise ValueError(
            f"unknown element symbol {symbol!r}: write it as in the periodic table, "
            "e.g. 'C' or 'Cl'"
        )
    return _NUMBERS[symbol]


def symbol_of(number: int) -> str:
    """The symbol of an atomic number, e.g. ``"C"`` for 6.

    Raises:
        ValueError: the number is not in 1..118.
    """
    if not 1 <= number <= MAX_ATOMIC_NUMBER:
        raise ValueError(
            f"atomic number {number} is not an element: use 1 to {MAX_ATOMIC_NUMBER}"
        )
    return SYMBOLS[number]


def formula_of(numbers: np.ndarray) -> str:
    """Elements and counts in the order of Hill: C, H, then the alphabet ("C2H6O")."""
    found, counts = np.unique(np.asarray(numbers), return_counts=True)
    amounts = {symbol_of(int(z)): int(n) for z, n in zip(found, counts, strict=True)}
    first = [s for s in ("C", "H") if s in amounts and "C" in amounts]
    rest = sorted(set(amounts) - set(first))
    return "".join(f"{s}{n if (n := amounts[s]) > 1 else ''}" for s in first + rest)


def masses_of(numbers: np.ndarray) -> np.ndarray:
    """Standard atomic weights in dalton, float64, one for each atomic number.

    Raises:
        ValueError: a number is not in 1..118.
    """
    # Here, because training reads symbols only and RDKit is slow to import.
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    symbols = [symbol_of(int(number)) for number in np.ravel(numbers)]
    weights = [table.GetAtomicWeight(symbol) for symbol in symbols]
    return np.array(weights, np.float64).reshape(np.shape(numbers))
