"""Electron configurations of neutral atoms in their ground state, as features."""

import numpy as np

# Subshells in the order in which they fill (Madelung's rule), with their capacity.
SHELLS = tuple("1s 2s 2p 3s 3p 4s 3d 4p 5s 4d 5p 6s 4f 5d 6p".split())
CAPACITY = {"s": 2, "p": 6, "d": 10, "f": 14}
# {atomic number: electrons moved (from, to, how many)} where the rule fails.
EXCEPTIONS = {
    24: ("4s", "3d", 1),  # Cr
    29: ("4s", "3d", 1),  # Cu
    41: ("5s", "4d", 1),  # Nb
    42: ("5s", "4d", 1),  # Mo
    44: ("5s", "4d", 1),  # Ru
    45: ("5s", "4d", 1),  # Rh
    46: ("5s", "4d", 2),  # Pd
    47: ("5s", "4d", 1),  # Ag
    57: ("4f", "5d", 1),  # La
    58: ("4f", "5d", 1),  # Ce
    64: ("4f", "5d", 1),  # Gd
    78: ("6s", "5d", 1),  # Pt
    79: ("6s", "5d", 1),  # Au
}
MAX_ATOMIC_NUMBER = 86
# Of valence electrons, the subshells s, p, d, f of each period (row of the table).
_VALENCE = (
    ("1s",),
    ("2s", "2p"),
    ("3s", "3p"),
    ("4s", "4p", "3d"),
    ("5s", "5p", "4d"),
    ("6s", "6p", "5d", "4f"),
)
_NOBLE = (0, 2, 10, 18, 36, 54, 86)


def occupation(number: int) -> dict[str, int]:
    """Electrons in each subshell of the neutral atom, e.g. ``{"1s": 2, "2s": 1}``."""
    left, filled = number, {}
    for shell in SHELLS:
        filled[shell] = min(left, CAPACITY[shell[1]])
        left -= filled[shell]
    if number in EXCEPTIONS:
        donor, acceptor, count = EXCEPTIONS[number]
        filled[donor] -= count
        filled[acceptor] += count
    return filled


def electron_table() -> np.ndarray:
    """Features of the atomic numbers 0 to 86, each column divided by its maximum.

    Returns:
        (87, 20): the atomic number, the electrons of each of the 15 subshells, and the
        valence electrons in s, p, d and f: those outside the last noble gas, in the
        subshells of the period.
    """
    rows = np.zeros((MAX_ATOMIC_NUMBER + 1, 1 + len(SHELLS) + 4))
    for number in range(1, MAX_ATOMIC_NUMBER + 1):
        filled = occupation(number)
        period = int(np.searchsorted(_NOBLE, number)) - 1
        valence = {shell[1]: filled[shell] for shell in _VALENCE[period]}
        rows[number] = [
            number,
            *filled.values(),
            *(valence.get(kind, 0) for kind in CAPACITY),
        ]
    return rows / rows.max(axis=0)
