"""GFN2-xTB energies and forces by tblite.

GFN2-xTB: Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 2019, 15, 1652.
"""

import os

import numpy as np

from chemscale_jax.chem.units import BOHR_ANG, HARTREE_EV

METHOD = "GFN2-xTB"
# Labels are converged ten times tighter than tblite's default of 1.
LABEL_ACCURACY = 0.1


class ScfError(RuntimeError):
    """The self-consistent field did not converge at a geometry."""


def _calculator(numbers: np.ndarray, positions_ang: np.ndarray, accuracy: float):
    # One thread per process: more make molecules of this size slower, and a
    # sum over threads is not reproducible. tblite reads this when it is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        from tblite.interface import Calculator
    except ImportError as error:
        raise ImportError(
            "tblite is not installed, so there are no GFN2-xTB labels: "
            "pip install 'chemscale_jax[generate]'"
        ) from error
    calculator = Calculator(METHOD, np.asarray(numbers), positions_ang / BOHR_ANG)
    calculator.set("verbosity", 0)
    calculator.set("accuracy", accuracy)
    return calculator


def energy_and_forces(
    numbers: np.ndarray, positions_ang: np.ndarray, accuracy: float = LABEL_ACCURACY
) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (eV/angstrom, (N, 3)) of a neutral singlet.

    A fresh single point: nothing is carried over from another geometry.

    Args:
        numbers: atomic numbers, (N,).
        positions_ang: positions in angstrom, (N, 3).
        accuracy: tblite's convergence factor; smaller is tighter.

    Raises:
        ScfError: the self-consistent field did not converge.
        ImportError: tblite is not installed.
    """
    return Surface(numbers, accuracy)(positions_ang)


class Surface:
    """The potential energy surface of one molecule, called at many geometries.

    Each call starts the self-consistent field from the previous one, which about
    halves the cost along a path; so a value depends, within convergence, on what was
    asked before. Labels are therefore made by ``energy_and_forces``.
    """

    def __init__(self, numbers: np.ndarray, accuracy: float = 1.0) -> None:
        self._numbers = np.asarray(numbers)
        self._accuracy = accuracy
        self._calculator = None
        self._result = None

    def __call__(self, positions_ang: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy (eV) and forces (eV/angstrom, (N, 3)); ScfError as above."""
        positions_ang = np.asarray(positions_ang, np.float64)
        if self._calculator is None:
            self._calculator = _calculator(self._numbers, positions_ang, self._accuracy)
        try:
            self._calculator.update(positions=positions_ang / BOHR_ANG)
            self._result = self._calculator.singlepoint(self._result)
        except RuntimeError as error:
            self._result = None
            raise ScfError(str(error)) from error
        energy = float(self._result.get("energy")) * HARTREE_EV
        gradient = np.asarray(self._result.get("gradient"))
        return energy, -gradient * (HARTREE_EV / BOHR_ANG)
