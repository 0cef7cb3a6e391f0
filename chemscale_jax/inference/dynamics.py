"""Molecular dynamics and relaxation with a force field, and how well energy is kept.

Every function works on a copy of the atoms, takes any ASE calculator, and returns what
it has when it is asked to stop.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.io import extxyz
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from tqdm import tqdm

from chemscale_jax.core.errors import UserError
from chemscale_jax.inference.motion import (
    Bonds,
    Drift,
    draw_velocities,
    energy_drift,
    internal_freedom,
    kinetic_temperature,
    remove_rigid_motion,
)

OPTIMIZERS = {"bfgs": BFGS, "fire": FIRE}
# A run whose temperature is above this many times that asked for has exploded.
_EXPLODED = 50.0
_LOG_INTERVAL = 30.0


class Samples(NamedTuple):
    """What was measured at every step; the first entry is the start."""

    time_fs: np.ndarray
    potential_ev: np.ndarray
    kinetic_ev: np.ndarray
    temperature_k: np.ndarray

    @property
    def total_ev(self) -> np.ndarray:
        """Potential plus kinetic energy."""
        return self.potential_ev + self.kinetic_ev


@dataclasses.dataclass(frozen=True, kw_only=True)
class MdResult:
    """What a run of molecular dynamics gave."""

    atoms: Atoms  # at the end, with momenta
    samples: Samples
    steps: int  # done, of those asked for
    state: str  # "finished", "interrupted" or "failed"
    reason: str  # why it ended early, or empty
    broken_bonds: tuple[str, ...]  # such as "C0-H4 at 120.5 fs"
    steps_per_s: float

    @property
    def drift(self) -> Drift:
        """Of the total energy, which only a run without a thermostat keeps."""
        total_ev = self.samples.total_ev
        return energy_drift(self.samples.time_fs, total_ev, len(self.atoms))

    @property
    def mean_temperature_k(self) -> float:
        """Over the second half of the run."""
        kelvin = self.samples.temperature_k
        return float(kelvin[len(kelvin) // 2 :].mean())


class NveResult(MdResult):
    """A run at constant energy."""


class NvtResult(MdResult):
    """A run at constant temperature."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelaxResult:
    """What a relaxation gave."""

    atoms: Atoms  # at the end, with the calculator
    converged: bool
    steps: int
    energy_ev: float
    energy_change_ev: float
    largest_force_ev_per_ang: float


def run_nve(
    atoms: Atoms,
    calculator: Calculator,
    *,
    steps: int,
    timestep_fs: float = 0.5,
    temperature_k: float | None = 300.0,
    seed: int = 0,
    equilibration_steps: int = 0,
    interval: int = 20,
    trajectory: str | os.PathLike | None = None,
    progress: bool = False,
    should_stop: Callable[[], object] = lambda: False,
) -> NveResult:
    """Velocity Verlet at constant energy.

    Args:
        atoms: the start; not changed.
        calculator: gives energy and forces.
        steps: how many.
        timestep_fs: femtoseconds.
        temperature_k: of fresh velocities, see `draw_velocities`; None keeps the
            momenta of the atoms.
        seed: of the velocities and of equilibration.
        equilibration_steps: of Langevin dynamics at that temperature before the run.
        interval: steps between frames of the trajectory and updates of the bar.
        trajectory: an extxyz file that is written anew.
        progress: shows a bar.
        should_stop: asked after every step.
    """
    atoms = atoms.copy()
    if temperature_k is not None:
        draw_velocities(atoms, temperature_k, seed)
        if equilibration_steps:
            warm = run_nvt(
                atoms,
                calculator,
                steps=equilibration_steps,
                timestep_fs=timestep_fs,
                temperature_k=temperature_k,
                seed=seed,
                fresh_velocities=False,
                progress=progress,
                should_stop=should_stop,
            )
            atoms = warm.atoms
            remove_rigid_motion(atoms)
    atoms.calc = calculator
    dynamics = VelocityVerlet(atoms, timestep_fs * units.fs)
    return NveResult(
        **_run(
            dynamics,
            atoms,
            steps=steps,
            timestep_fs=timestep_fs,
            temperature_k=temperature_k or kinetic_temperature(atoms),
            freedom=internal_freedom(atoms),
            interval=interval,
            trajectory=trajectory,
            bar=_bar("nve", steps, progress),
            should_stop=should_stop,
        )
    )


def run_nvt(
    atoms: Atoms,
    calculator: Calculator,
    *,
    steps: int,
    timestep_fs: float = 0.5,
    temperature_k: float = 300.0,
    friction_per_ps: float = 10.0,
    seed: int = 0,
    fresh_velocities: bool = True,
    interval: int = 20,
    trajectory: str | os.PathLike | None = None,
    progress: bool = False,
    should_stop: Callable[[], object] = lambda: False,
) -> NvtResult:
    """Langevin dynamics at constant temperature.

    Args:
        friction_per_ps: the inverse of the time after which a velocity is forgotten.
        fresh_velocities: draws velocities; else the atoms keep their momenta.
        atoms: see `run_nve`, also for all other arguments.
        calculator: see `run_nve`.
        steps: see `run_nve`.
        timestep_fs: see `run_nve`.
        temperature_k: of velocities and thermostat.
        seed: of velocities and thermostat.
        interval: see `run_nve`.
        trajectory: see `run_nve`.
        progress: see `run_nve`.
        should_stop: see `run_nve`.
    """
    atoms = atoms.copy()
    if fresh_velocities:
        draw_velocities(atoms, temperature_k, seed)
    atoms.calc = calculator
    dynamics = Langevin(
        atoms,
        timestep_fs * units.fs,
        temperature_K=temperature_k,
        friction=friction_per_ps / (1e3 * units.fs),
        # Of its own kind, so that noise and velocities of one seed differ.
        rng=np.random.default_rng([seed, 1]),
        fixcm=False,  # it would disturb the distribution; drifting away is harmless
    )
    return NvtResult(
        **_run(
            dynamics,
            atoms,
            steps=steps,
            timestep_fs=timestep_fs,
            temperature_k=temperature_k,
            freedom=3 * len(atoms),  # the thermostat also moves the whole
            interval=interval,
            trajectory=trajectory,
            bar=_bar("nvt", steps, progress),
            should_stop=should_stop,
        )
    )


def relax(
    atoms: Atoms,
    calculator: Calculator,
    *,
    fmax_ev_per_ang: float = 0.005,
    max_steps: int = 500,
    optimizer: str = "bfgs",
    cell: bool = False,
    trajectory: str | os.PathLike | None = None,
    progress: bool = False,
    should_stop: Callable[[], object] = lambda: False,
) -> RelaxResult:
    """Moves atoms, and the cell if asked to, to a minimum of energy.

    Args:
        atoms: the start; not changed.
        calculator: gives energy and forces, and stress for ``cell``.
        fmax_ev_per_ang: no force is larger at the end.
        max_steps: after which it ends without being converged.
        optimizer: "bfgs" or "fire".
        cell: moves the cell too.
        trajectory: an extxyz file of all steps, written anew.
        progress: shows a bar.
        should_stop: asked after every step.
    """
    if optimizer not in OPTIMIZERS:
        raise UserError(f"optimizer is {optimizer!r}, expected {sorted(OPTIMIZERS)}")
    atoms = atoms.copy()
    atoms.calc = calculator
    start_ev = atoms.get_potential_energy()
    moving = FrechetCellFilter(atoms) if cell else atoms
    search = OPTIMIZERS[optimizer](moving, logfile=None)
    converged, steps = False, 0
    with _bar("relax", max_steps, progress) as bar, _Frames(trajectory) as frames:
        for below in search.irun(fmax=fmax_ev_per_ang, steps=max_steps):
            converged, steps = bool(below), search.get_number_of_steps()
            frames.write(atoms, step=steps)
            bar.update(steps - bar.n)
            bar.set_postfix_str(
                f"largest force {_largest(atoms):.4f} eV/A", refresh=False
            )
            if should_stop():
                break
    energy_ev = atoms.get_potential_energy()
    return RelaxResult(
        atoms=atoms,
        converged=converged,
        steps=steps,
        energy_ev=energy_ev,
        energy_change_ev=energy_ev - start_ev,
        largest_force_ev_per_ang=_largest(atoms),
    )


def _run(
    dynamics: VelocityVerlet | Langevin,
    atoms: Atoms,
    *,
    steps: int,
    timestep_fs: float,
    temperature_k: float,
    freedom: int,
    interval: int,
    trajectory: str | os.PathLike | None,
    bar: tqdm,
    should_stop: Callable[[], object],
) -> dict[str, Any]:
    """The fields of an `MdResult`; atoms that fly apart end the run."""
    if steps < 0 or interval < 1 or not timestep_fs > 0:
        raise UserError(
            f"steps={steps}, interval={interval}, timestep_fs={timestep_fs}: steps "
            "must be >= 0, interval >= 1 and the time step positive"
        )
    bonds = Bonds(atoms)
    # What cannot be calculated at all is refused here, not reported as a failed run.
    forces = atoms.get_forces(md=True)
    measured = np.zeros((steps + 1, 2))  # potential and kinetic energy
    measured[0] = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    to_kelvin = 2 / (freedom * units.kB)
    hottest_ev = _EXPLODED * max(temperature_k, 300.0) / to_kelvin
    state, reason, done = "finished", "", 0
    started = time.perf_counter()
    with bar, _Frames(trajectory) as frames:
        frames.write(atoms, step=0, time_fs=0.0)
        while done < steps:
            try:
                forces = dynamics.step(forces)
            except UserError as error:
                state, reason = "failed", str(error)
                break
            done += 1
            kinetic_ev = atoms.get_kinetic_energy()
            measured[done] = atoms.get_potential_energy(), kinetic_ev
            bonds.look(atoms, done * timestep_fs)
            if done % interval == 0 or done == steps:
                frames.write(atoms, step=done, time_fs=done * timestep_fs)
                bar.set_postfix_str(f"{to_kelvin * kinetic_ev:.0f} K", refresh=False)
                bar.update(done - bar.n)
            if kinetic_ev > hottest_ev:
                state = "failed"
                reason = (
                    f"{to_kelvin * kinetic_ev:.0f} K after {done} steps: the molecule "
                    "flies apart; take a smaller time step or train longer"
                )
                break
            if should_stop():
                state, reason = "interrupted", "asked to stop"
                break
        if state == "interrupted" and done % interval:
            frames.write(atoms, step=done, time_fs=done * timestep_fs)
    seconds = time.perf_counter() - started
    measured = measured[: done + 1]
    return {
        "atoms": atoms,
        "samples": Samples(
            time_fs=timestep_fs * np.arange(done + 1),
            potential_ev=measured[:, 0],
            kinetic_ev=measured[:, 1],
            temperature_k=to_kelvin * measured[:, 1],
        ),
        "steps": done,
        "state": state,
        "reason": reason,
        "broken_bonds": tuple(f"{b} at {t:g} fs" for b, t in bonds.broken.items()),
        "steps_per_s": done / seconds if done else 0.0,
    }


class _Frames:
    """An extxyz file that grows frame by frame; without a path, nothing."""

    def __init__(self, path: str | os.PathLike | None) -> None:
        self._file = None if path is None else open(path, "w")

    def __enter__(self) -> "_Frames":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, atoms: Atoms, **info: Any) -> None:
        """Appends a frame with momenta, energy and forces."""
        if self._file is None:
            return
        frame = atoms.copy()
        frame.set_constraint()
        frame.info.update(info)
        frame.calc = SinglePointCalculator(
            frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces()
        )
        extxyz.write_xyz(self._file, [frame])
        self._file.flush()  # a kill leaves what was written


def _bar(name: str, total: int, shown: bool) -> tqdm:
    return tqdm(
        total=total,
        desc=name,
        unit="step",
        dynamic_ncols=True,
        disable=not shown,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL,
    )


def _largest(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())
