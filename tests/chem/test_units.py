import pytest

from chemscale_jax.chem import units


def test_factors_against_independent_figures():
    # Figures of the CODATA 2018 tables, to the digits given there.
    assert units.BOLTZMANN_EV == pytest.approx(8.617333262e-5, rel=1e-9)
    assert units.unit_factor("energy", "hartree") == 27.211386245988
    assert units.unit_factor("energy", "kcal/mol") == pytest.approx(1 / 23.0605, 1e-5)
    assert units.unit_factor("energy", "cm^-1") == pytest.approx(1 / 8065.544, 1e-7)
    assert units.unit_factor("force", "hartree/bohr") == pytest.approx(51.42206747)
    assert units.unit_factor("length", "nm") == 10.0
    assert units.DALTON_EV_FS2_PER_ANG2 == pytest.approx(103.642697, rel=1e-7)


def test_every_force_unit_is_an_energy_per_length():
    for name, factor in units.FORCE_UNITS.items():
        energy, length = name.rsplit("/", 1)
        expected = units.ENERGY_UNITS[energy] / units.LENGTH_UNITS[length]
        assert factor == pytest.approx(expected)


@pytest.mark.parametrize(
    ("quantity", "unit", "nearest"),
    [
        ("energy", "Hartrees", "hartree"),
        ("energy", "kcal_mol", "kcal/mol"),
        ("force", "hartree/ang", "hartree/angstrom"),
        ("length", "Angstroms", "angstrom"),
    ],
)
def test_unknown_unit_names_the_nearest(quantity, unit, nearest):
    with pytest.raises(ValueError, match=f"'{unit}': did you mean '{nearest}'"):
        units.unit_factor(quantity, unit)


def test_unknown_quantity():
    with pytest.raises(ValueError, match="unknown quantity 'mass'"):
        units.unit_factor("mass", "eV")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Hartree", "hartree"),
        ("kcal/mol/Ang", "kcal/mol/angstrom"),
        ("eV/Å", "eV/angstrom"),
        ("Ha/Bohr", "hartree/bohr"),
        ("cm-1", "cm^-1"),
        (" Ang ", "angstrom"),
        ("calories", "calories"),
    ],
)
def test_other_spellings(written, meant):
    assert units.spelled_out(written) == meant
