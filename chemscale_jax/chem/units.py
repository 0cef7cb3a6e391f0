"""Factors that turn other people's units into eV, angstrom and elementary charges.

Constants are the CODATA 2018 recommended values; the calorie is the thermochemical one
(4.184 J). Units are converted in dataset readers and in reports, nowhere else.
"""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

HARTREE_EV = 27.211386245988
BOHR_ANG = 0.529177210903
# Exact in the SI: e (C), N_A (1/mol), k_B (J/K), h (J s), c (m/s).
ELEMENTARY_CHARGE_C = 1.602176634e-19
AVOGADRO_PER_MOL = 6.02214076e23
BOLTZMANN_EV = 1.380649e-23 / ELEMENTARY_CHARGE_C  # per kelvin
KJ_PER_MOL_EV = 1e3 / (AVOGADRO_PER_MOL * ELEMENTARY_CHARGE_C)
KCAL_PER_MOL_EV = 4.184 * KJ_PER_MOL_EV
CM1_EV = 6.62607015e-34 * 299792458.0 * 100.0 / ELEMENTARY_CHARGE_C
# One dalton in eV fs^2 / angstrom^2, the mass unit that goes with eV, angstrom and fs.
DALTON_EV_FS2_PER_ANG2 = 1.66053906660e-27 / ELEMENTARY_CHARGE_C * 1e10

# {unit: its size in our unit}; multiply a value in that unit by the factor.
ENERGY_UNITS: Mapping[str, float] = MappingProxyType(
    {
        "eV": 1.0,
        "meV": 1e-3,
        "hartree": HARTREE_EV,
        "kcal/mol": KCAL_PER_MOL_EV,
        "kJ/mol": KJ_PER_MOL_EV,
        "cm^-1": CM1_EV,
    }
)
LENGTH_UNITS: Mapping[str, float] = MappingProxyType(
    {"angstrom": 1.0, "bohr": BOHR_ANG, "nm": 10.0}
)
FORCE_UNITS: Mapping[str, float] = MappingProxyType(
    {
        f"{energy}/{length}": energy_factor / length_factor
        for energy, energy_factor in ENERGY_UNITS.items()
        for length, length_factor in LENGTH_UNITS.items()
    }
)

# Other spellings in lower case, as data files and their authors write them.
_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {
        "ev": "eV",
        "mev": "meV",
        "ha": "hartree",
        "eh": "hartree",
        "kcal mol-1": "kcal/mol",
        "kj mol-1": "kJ/mol",
        "cm-1": "cm^-1",
        "1/cm": "cm^-1",
        "a": "angstrom",
        "å": "angstrom",
        "ang": "angstrom",
        "a0": "bohr",
        "au": "bohr",
    }
)

_TABLES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"energy": ENERGY_UNITS, "force": FORCE_UNITS, "length": LENGTH_UNITS}
)


def unit_factor(quantity: str, unit: str) -> float:
    """What a value in ``unit`` is multiplied by to be in eV, eV/angstrom or angstrom.

    Args:
        quantity: ``"energy"``, ``"force"`` or ``"length"``.
        unit: a name from ``ENERGY_UNITS``, ``FORCE_UNITS`` or ``LENGTH_UNITS``.

    Raises:
        ValueError: the quantity or the unit is unknown; the message names the nearest
            valid unit.
    """
    if quantity not in _TABLES:
        raise ValueError(
            f"unknown quantity {quantity!r}: use one of {', '.join(_TABLES)}"
        )
    table = _TABLES[quantity]
    if unit in table:
        return table[unit]
    lowered = {name.lower(): name for name in table}
    # An abbreviation is nearer to what it abbreviates than to a shorter unit.
    longer = [name for name in lowered if unit and name.startswith(unit.lower())]
    near = longer or difflib.get_close_matches(unit.lower(), lowered, n=1, cutoff=0.0)
    raise ValueError(
        f"unknown {quantity} unit {unit!r}: did you mean {lowered[near[0]]!r}? "
        f"Known units: {', '.join(table)}"
    )


def spelled_out(unit: str) -> str:
    """A unit as this module names it: "kcal/mol/Ang" becomes "kcal/mol/angstrom".

    A unit that is not recognised comes back as it is.
    """
    text = unit.strip()
    lowered = {n.lower(): n for table in _TABLES.values() for n in table}
    lowered.update(_SPELLINGS)
    if text.lower() in lowered:
        return lowered[text.lower()]
    energy, slash, length = text.lower().rpartition("/")
    if slash and energy in lowered and length in lowered:
        return f"{lowered[energy]}/{lowered[length]}"
    return text
