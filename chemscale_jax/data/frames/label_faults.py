"""Which mistake makes forces too large or too small by a factor, in words."""

import math

from chemscale_jax.chem import units

# A measured factor may be off by this much (natural logarithm) and still be named.
_TOLERANCE = 0.12
_PER_EV = {
    name: 1 / units.ENERGY_UNITS[name] for name in ("hartree", "kcal/mol", "kJ/mol")
}
# The nearest atom of a hydrogen is 0.74 to 1.5 angstrom away.
HYDROGEN_RANGE_ANG = (0.65, 1.6)
# Total energies over those of the neutral atoms; other kinds of energy are less.
_TOTAL_ENERGY = (0.97, 1.05)


def explain(
    factor: float, hydrogen_ang: float | None = None, depth: float | None = None
) -> str:
    """What may be wrong where forces are ``factor`` times what the energies ask for.

    Args:
        factor: far from 1, perhaps negative.
        hydrogen_ang: median distance from a hydrogen to its nearest atom.
        depth: median energy in units of that of the neutral atoms; the two tell whose
            unit is wrong.
    """
    reasons = []
    if factor < 0:
        reasons.append("the sign is that of gradients (force = -gradient)")
    if abs(math.log(max(abs(factor), 1e-300))) > _TOLERANCE:
        mistakes = _mistakes(hydrogen_ang, depth)
        apart = [(abs(math.log(abs(factor) / size)), why) for why, size in mistakes]
        nearest, why = min(apart) if factor else (math.inf, "")
        if nearest < _TOLERANCE:
            reasons.append(why)
    said = f"forces are {factor:.4g} times what energy differences ask for"
    return f"{said}: {' and '.join(reasons)}" if reasons else said


def _mistakes(
    hydrogen_ang: float | None, depth: float | None
) -> list[tuple[str, float]]:
    """Mistakes, and the factor by which each makes forces larger."""
    bohr = units.BOHR_ANG
    low, high = HYDROGEN_RANGE_ANG
    if hydrogen_ang is not None and hydrogen_ang > high:
        return [("positions in bohr were taken for angstrom", 1 / bohr)]
    if hydrogen_ang is not None and hydrogen_ang < low:
        return [("positions in angstrom were taken for bohr", bohr)]
    found = [
        ("forces per bohr were taken for forces per angstrom", bohr),
        ("forces per angstrom were taken for forces per bohr", 1 / bohr),
    ]
    for name, per_ev in _PER_EV.items():
        wrong_energies = [
            (f"energies in {name} were taken for eV", 1 / per_ev),
            (f"energies in eV were taken for {name}", per_ev),
        ]
        wrong_forces = [
            (f"forces in {name}/angstrom were taken for eV/angstrom", per_ev),
            (f"forces in eV/angstrom were taken for {name}/angstrom", 1 / per_ev),
        ]
        if name == "hartree":
            wrong_forces += [
                ("forces in hartree/bohr were taken for eV/angstrom", per_ev * bohr),
                (
                    "forces in eV/angstrom were taken for hartree/bohr",
                    1 / per_ev / bohr,
                ),
            ]
        if depth is not None and _TOTAL_ENERGY[0] < depth < _TOTAL_ENERGY[1]:
            found += wrong_forces
        elif depth is not None and depth > _TOTAL_ENERGY[1]:
            found += wrong_energies
        else:
            # Nothing tells which of the two it is.
            (e_name, e_eV), (f_name, f_eV) = wrong_energies, wrong_forces[:2]
            found += [
                (f"{f_name[0]}, or {e_eV[0]}", f_name[1]),
                (f"{f_eV[0]}, or {e_name[0]}", f_eV[1]),
                *wrong_forces[2:],
            ]
    return found


def impossible_sizes(hydrogen_ang: float | None, depth: float | None) -> str:
    """What is impossible about lengths or energies, in words; empty if nothing is.

    Args:
        hydrogen_ang: median distance from a hydrogen to its nearest atom.
        depth: median energy in units of that of the neutral atoms.
    """
    low, high = HYDROGEN_RANGE_ANG
    if hydrogen_ang is not None and not low < hydrogen_ang < high:
        guess = ""
        if abs(math.log(hydrogen_ang * units.BOHR_ANG)) < 0.25:
            guess = ", as if positions in bohr had been taken for angstrom"
        elif abs(math.log(hydrogen_ang / units.BOHR_ANG)) < 0.25:
            guess = ", as if positions in angstrom had been taken for bohr"
        return (
            f"the nearest atom of a hydrogen is {hydrogen_ang:.2f} angstrom away, "
            f"where about 1 is right{guess}"
        )
    if depth is None or depth < 1.5:
        return ""
    named = [
        (abs(math.log(depth / size)), why)
        for name, per_ev in _PER_EV.items()
        for size, why in (
            (per_ev, f", as if energies in {name} had been taken for eV"),
            (1 / per_ev, f", as if energies in eV had been taken for {name}"),
        )
    ]
    nearest, why = min(named)
    guess = why if nearest < 0.05 else ""
    return f"total energies are {depth:.4g} times those of the neutral atoms{guess}"
