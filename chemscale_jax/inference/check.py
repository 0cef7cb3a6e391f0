"""Whether a force field has the physics it should have, measured on a few molecules.

Symmetry, conservation, forces against finite differences, smoothness at the cut-off and
independence of its batch are measured in float64, where they hold to rounding or not at
all; then float32 is compared with float64, and a short run of dynamics must keep its
energy. Each line has a value, a tolerance and a verdict.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.chem.elements import atomic_number, formula_of
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir, write_json
from chemscale_jax.data import STREAMS
from chemscale_jax.data.frames.ani1x import Ani1xSource, embedded_path
from chemscale_jax.data.frames.source import FrameSource
from chemscale_jax.data.packs.stream import GraphStream
from chemscale_jax.inference import check_lines
from chemscale_jax.inference.check_energies import make_evaluate
from chemscale_jax.inference.check_lines import Line
from chemscale_jax.inference.force_field import ForceField, open_force_field
from chemscale_jax.inference.neighbor_list import System

MOLECULES = 4
LARGEST_MOLECULE = 40  # atoms; larger ones are left out where there are smaller ones
DRIFT_MEV_PER_ATOM = 1.0
NVE_STEPS, NVE_STEP_FS, NVE_KELVIN = 500, 0.5, 300.0
RELAX_STEPS, RELAXED = 100, 0.05  # before it; eV/angstrom


class Check(NamedTuple):
    """What was measured, and on what."""

    lines: list[Line]
    molecules: list[str]  # formulas
    notes: list[str]  # what was left out, and why

    @property
    def ok(self) -> bool:
        """Whether every line is within its tolerance."""
        return all(line.ok for line in self.lines)


def write_check(workdir: Workdir, *, nve: bool = True, step: int | None = None) -> str:
    """Checks the force field of a run, writes check.json and returns the table.

    Args:
        workdir: of a run of the task "force_field" with a complete checkpoint.
        nve: whether to run dynamics, which needs ASE.
        step: of another checkpoint than the best.

    Raises:
        UserError: the run is of another task, or has no complete checkpoint.
    """
    field = open_force_field(workdir, step)
    check = check_force_field(field, systems_of(field), nve=nve)
    content = {
        "ok": check.ok,
        "molecules": check.molecules,
        "notes": check.notes,
        "lines": [
            # JSON has no infinities; None stands for a value that is not finite.
            {
                **dataclasses.asdict(line),
                "value": line.value if math.isfinite(line.value) else None,
                "ok": line.ok,
            }
            for line in check.lines
        ],
    }
    try:
        write_json(workdir.check_json, content)
    except OSError as error:
        raise UserError(
            f"workdir {workdir.path} cannot be written ({error.strerror})"
        ) from None
    return check_table(check)


def check_table(check: Check) -> str:
    """The lines as text, with a verdict each."""
    width = max(len(line.name) for line in check.lines)
    rows = [
        f"{line.name:<{width}}  {line.value:>9.2g}  {line.tolerance:>9.2g}  "
        f"{'ok' if line.ok else 'NOT OK':<6}  {line.unit}"
        for line in check.lines
    ]
    failed = [line.name for line in check.lines if not line.ok]
    verdict = f"not ok: {', '.join(failed)}" if failed else "all ok"
    return "\n".join(
        [
            f"checked on {', '.join(check.molecules)}: {verdict}",
            f"{'property':<{width}}  {'value':>9}  {'tolerance':>9}  verdict",
            *rows,
            *(f"left out: {note}" for note in check.notes),
        ]
    )


def check_force_field(
    field: ForceField, systems: Sequence[System], *, nve: bool = True
) -> Check:
    """Measures every property of a force field on some molecules.

    Args:
        field: the force field.
        systems: at least one molecule, of elements that it knows; without cells.
        nve: whether to run dynamics of the smallest molecule with three atoms or more.
    """
    probe = check_lines.with_probe(systems[0], field.model.cutoff_ang, 0.0)
    exact = make_evaluate(field, [*systems, probe], "float64")
    rough = make_evaluate(field, [*systems, probe], "float32")
    alone = [exact([system])[0] for system in systems]
    lines = [
        *check_lines.symmetries(exact, systems, alone),
        *check_lines.conservation(systems, alone),
        check_lines.finite_differences(exact, systems, alone),
        *check_lines.cutoff_jump(exact, systems[0], field.model.cutoff_ang),
        check_lines.companions(exact, systems, alone),
        *check_lines.precision(rough, systems, alone),
    ]
    notes = []
    if nve:
        try:
            lines.append(_nve(field, systems))
        except UserError as error:
            notes.append(f"NVE drift, {error}")
    else:
        notes.append("NVE drift, not asked for")
    formulas = [formula_of(system.species_N) for system in systems]
    return Check(lines, formulas, notes)


def systems_of(field: ForceField, count: int = MOLECULES) -> list[System]:
    """A handful of molecules to check a force field on.

    Frames of the validation set of its run; frames of the package's data set of
    elements that it knows, where the data are not there any more; a made-up chain of
    its elements, where there are none.
    """
    if field.artifacts.get("split"):
        try:
            stream = STREAMS[field.config.data.stream](field.config, 0, 1)
        except (UserError, OSError):
            stream = None
        if isinstance(stream, GraphStream) and not stream.source.periodic:
            found = _some(stream.source, stream.split.valid, count)
            if found:
                return found
    known = [atomic_number(symbol) for symbol in field.artifacts["elements"]]
    source = Ani1xSource(embedded_path())
    fits = [bool(np.isin(z, known).all()) for z in source.group_species]
    found = _some(source, np.flatnonzero(np.array(fits)[source.group]), count)
    if found:
        return found
    number = np.arange(6)
    zigzag_N3 = np.stack([1.3 * number, 0.8 * (number % 2), 0.3 * number**2 % 1], 1)
    return [System(np.resize(known, 6).astype(np.int64), zigzag_N3)]


def _some(source: FrameSource, indices: np.ndarray, count: int) -> list[System]:
    """Records of different size, small ones first."""
    if not len(indices):
        return []
    sizes = source.n_atoms[indices]
    least = 3 if (sizes >= 3).any() else 1
    usable = indices[(sizes >= least) & (sizes <= max(LARGEST_MOLECULE, sizes.min()))]
    ordered = usable[np.argsort(source.n_atoms[usable], kind="stable")]
    places = np.unique(np.linspace(0, len(ordered) - 1, count).astype(int))
    records = [source[int(ordered[place])] for place in places]
    return [
        System(
            np.asarray(record.species, np.int64),
            np.asarray(record.positions, np.float64),
            record.charge,
            record.spin,
        )
        for record in records
    ]


def _nve(field: ForceField, systems: Sequence[System]) -> Line:
    """A short run at constant energy; UserError where ASE is not installed."""
    # ASE is an extra, which only this line needs.
    try:
        import ase
    except ImportError:
        raise UserError(
            "ASE is not installed: pip install 'chemscale_jax[ase]'"
        ) from None
    from chemscale_jax.inference.calculator import ForceFieldCalculator
    from chemscale_jax.inference.dynamics import relax, run_nve
    from chemscale_jax.inference.training_range import TrainingRangeWarning

    several = [s for s in systems if len(s.species_N) >= 3] or list(systems)
    system = min(several, key=lambda s: len(s.species_N))
    atoms = ase.Atoms(system.species_N, system.positions_N3)
    drift, reason = math.inf, ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingRangeWarning)
        calculator = ForceFieldCalculator(field, charge=system.charge, spin=system.spin)
        try:
            # From a stretched bond, the molecule would be far hotter than was asked.
            near = relax(
                atoms, calculator, fmax_ev_per_ang=RELAXED, max_steps=RELAX_STEPS
            )
            run = run_nve(
                near.atoms,
                calculator,
                steps=NVE_STEPS,
                timestep_fs=NVE_STEP_FS,
                temperature_k=NVE_KELVIN,
                seed=0,
            )
        except UserError as error:
            reason = f"; failed: {error}"
        else:
            if run.state == "finished":
                drift = abs(run.drift.mev_per_atom)
            else:
                reason = f"; {run.state}: {run.reason}"
    length_fs = NVE_STEPS * NVE_STEP_FS
    return Line(
        "NVE drift",
        drift,
        DRIFT_MEV_PER_ATOM,
        "meV/atom",
        f"of total energy over {length_fs:g} fs at {NVE_KELVIN:g} K{reason}",
    )
