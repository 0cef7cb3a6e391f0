"""Reference energies: planted values come back; undetermined ones stay small."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.reference import (
    fit_reference_energies,
    isolated_atoms,
    reference_energies,
)
from chemscale_jax.data.frames.source import ArraySource
from tests.data.ani_files import SELF_ENERGIES, array_source, geometry


def test_planted_energies_come_back():
    source = array_source(4000)
    fit = fit_reference_energies(source, np.arange(len(source)))
    assert fit.symbols == ("H", "C", "N", "O")
    expected = [27.2 * e for e in SELF_ENERGIES.values()]
    np.testing.assert_allclose(fit.energies_ev, expected, atol=0.02)
    assert fit.statistics["residual_std_ev"] == pytest.approx(0.1, rel=0.1)
    assert fit.statistics["rank"] == 4


def test_equals_least_squares_over_records():
    """Five compositions, unevenly frequent, of two elements: no exact solution."""
    species = [[1] * h + [6] * c for h, c in ((4, 1), (6, 2), (2, 2), (2, 1), (1, 0))]
    chosen = [species[i] for i in (0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 0)]
    rng = np.random.default_rng(0)
    x = [geometry(rng, len(z)) for z in chosen]
    energies = rng.normal(0, 5, len(chosen)).tolist()
    source = ArraySource(chosen, x, energies, [None] * len(chosen))
    rows = np.arange(1, 13)
    expected, *_ = np.linalg.lstsq(
        source.composition(rows), source.total_energy[rows], rcond=None
    )
    fit = fit_reference_energies(source, rows)
    np.testing.assert_allclose(fit.energies_ev, expected, rtol=1e-9)
    np.testing.assert_allclose(
        fit.total(source.composition(rows)), source.composition(rows) @ expected
    )
    assert list(fit.as_dict()) == ["H", "C"]


def test_one_molecule_gives_the_smallest_solution():
    x = np.array([[0.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    source = ArraySource([[8, 1, 1]] * 2, [x, x + 1], [9.0, 11.0], [None, None])
    fit = fit_reference_energies(source, np.arange(2))
    np.testing.assert_allclose(fit.energies_ev, [4.0, 2.0])
    assert fit.statistics["rank"] == 1


def test_unlabelled_records_are_ignored():
    x = np.array([[0.0, 0, 0]])
    source = ArraySource([[6]] * 3, [x, x, x], [5.0, None, 7.0], [None] * 3)
    assert fit_reference_energies(source, np.arange(3)).energies_ev == [6.0]
    assert fit_reference_energies(source, np.array([1])).energies_ev == [0.0]


def test_isolated_atoms_of_the_method():
    source = array_source(8)
    source.report["method"] = "wb97x_dz"
    atoms = reference_energies(source, np.arange(8), "atoms")
    # wB97X, not wB97, whose hydrogen is at -0.5006 hartree.
    assert atoms.as_dict()["H"] == pytest.approx(-0.49932123 * 27.211386, rel=1e-7)
    expected = np.array([-13.58722278, -1029.48899999, -1484.98145686, -2041.98160039])
    # Of the 3BPA set, by another program; the values of wB97 differ by 7e-5.
    np.testing.assert_allclose(atoms.energies_ev, expected, rtol=3e-5)
    source.report["method"] = "pbe"
    with pytest.raises(UserError, match=r"isolated atom of H, C, N, O by method 'pbe'"):
        isolated_atoms(source)
    # What the reader set apart comes before the table.
    source.report["isolated_atoms_ev"] = {"H": -1.0, "C": -2.0, "N": -3.0, "O": -4.0}
    assert isolated_atoms(source).energies_ev.tolist() == [-1, -2, -3, -4]
    with pytest.raises(UserError, match="'linear' is unknown: use fit or atoms"):
        reference_energies(source, np.arange(8), "linear")
    fit = reference_energies(source, np.arange(8), "fit")
    assert fit.statistics["records"] == 8


def test_isolated_atoms_among_the_frames():
    x = np.array([[0.0, 0, 0]])
    pair = np.array([[0.0, 0, 0], [0, 0, 1]])
    source = ArraySource(
        [[1], [9], [9, 1]], [x, x, pair], [-13.0, -99.0, -120.0], [None] * 3
    )
    assert isolated_atoms(source).as_dict() == {"H": -13.0, "F": -99.0}
