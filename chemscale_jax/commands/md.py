"""``chemscale md``: relaxes a molecule, moves it, or finds its vibrations."""

import argparse
import csv
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from chemscale_jax.core.errors import UserError

TASKS = {
    "relax": "move to the nearest minimum of energy",
    "nve": "dynamics at constant energy, whose drift is reported",
    "nvt": "Langevin dynamics at constant temperature",
    "vibrations": "relax, then find harmonic frequencies",
}
EXAMPLE = """\
tasks:
{tasks}

examples:
  chemscale md relax CCO --workdir=runs/my-run
  chemscale md nve CCO --workdir=runs/my-run --steps=20000 --out=runs/nve
  chemscale md nvt molecule.xyz --workdir=runs/a --workdir=runs/b

Several workdirs, or one that has lanes/, are an ensemble, whose mean is taken. Ctrl-C
stops and keeps what was done; with runs/nve/trajectory.extxyz as the molecule and
--keep-velocities the run goes on from its last frame.
""".format(tasks="\n".join(f"  {name:<11} {text}" for name, text in TASKS.items()))
# Where --steps is not given.
_STEPS = {"relax": 500, "nve": 2000, "nvt": 2000, "vibrations": 500}
TRAJECTORY, SAMPLES, SUMMARY = "trajectory.extxyz", "samples.csv", "summary.json"


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    # What follows takes seconds to import, which --help should not.
    from absl import logging
    from tqdm import tqdm

    from chemscale_jax.core.workdir import write_json
    from chemscale_jax.inference import calculator, ensemble
    from chemscale_jax.training.signals import StopRequest

    logging.set_verbosity(logging.ERROR)  # Orbax says that it only reads
    atoms = read_molecule(args.molecule, args.seed)
    for name in ("charge", "spin"):
        if (given := getattr(args, name)) is not None:
            atoms.info[name] = given
    force_field = calculator.ForceFieldCalculator(
        args.workdir or ensemble.default_workdir(),
        skin_ang=args.skin_ang,
        dtype=args.dtype,
    )
    out = pathlib.Path(args.out or f"runs/md-{args.task}-{atoms.symbols}")
    out.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), StopRequest() as stop:
        warnings.showwarning = lambda message, *_: tqdm.write(
            f"warning: {message}", file=sys.stderr
        )
        common = {
            "trajectory": out / TRAJECTORY,
            "progress": True,
            "should_stop": lambda: stop.received,
        }
        summary = _RUN[args.task](args, atoms, force_field, out, common)
    summary = {
        "task": args.task,
        "molecule": str(atoms.symbols),
        "atoms": len(atoms),
        "members": len(force_field.members),
        **summary,
        "compilations": force_field.compilations,
        "neighbour_lists": force_field.list_builds,
    }
    write_json(out / SUMMARY, summary)
    print(table(summary))
    print(f"\nwritten to {out}")
    return 1 if summary["state"] == "failed" else 0


def read_molecule(text: str, seed: int) -> Any:
    """Atoms of the last frame of a file, or of a SMILES string.

    Raises:
        UserError: it is neither.
    """
    import ase
    import ase.io

    from chemscale_jax.chem import conformers

    path = pathlib.Path(text)
    if path.suffix and (path.exists() or len(path.suffix) > 3):
        try:
            atoms = ase.io.read(text)
        except Exception as error:  # each format has its own
            detail = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{text} cannot be read as a molecule: {detail}") from None
        assert isinstance(atoms, ase.Atoms), "without an index ASE reads one frame"
        return atoms
    try:
        found = conformers.embed(text, seed)
    except ValueError as error:
        raise UserError(f"{error} (nor is it a file)") from None
    return ase.Atoms(
        numbers=found.numbers,
        positions=found.positions_ang,
        info={"charge": found.charge, "spin": found.unpaired},
    )


def table(summary: Mapping[str, Any]) -> str:
    """The summary as lines of name and value."""
    lines = []
    for name, value in summary.items():
        if isinstance(value, float):
            value = f"{value:.6g}"
        elif isinstance(value, list):
            shown = [f"{x:.1f}" if isinstance(x, float) else str(x) for x in value]
            value = " ".join(shown) or "none"
        lines.append(f"{name.replace('_', ' '):<32} {value}")
    return "\n".join(lines)


def _relax(args: Any, atoms: Any, force_field: Any, out: Any, common: dict) -> dict:
    from chemscale_jax.inference import dynamics

    found = dynamics.relax(
        atoms,
        force_field,
        fmax_ev_per_ang=args.fmax,
        max_steps=_STEPS["relax"] if args.steps is None else args.steps,
        optimizer=args.optimizer,
        cell=args.cell,
        **common,
    )
    found.atoms.write(out / "relaxed.extxyz")
    return {
        "state": "finished" if found.converged else "interrupted",
        "converged": found.converged,
        "steps": found.steps,
        "energy_ev": found.energy_ev,
        "energy_change_ev": found.energy_change_ev,
        "largest_force_ev_per_ang": found.largest_force_ev_per_ang,
    }


def _vibrations(
    args: Any, atoms: Any, force_field: Any, out: Any, common: dict
) -> dict:
    import ase.io

    from chemscale_jax.inference.vibrations import vibrations

    summary = _relax(args, atoms, force_field, out, common)
    relaxed = ase.io.read(out / "relaxed.extxyz")
    assert isinstance(relaxed, ase.Atoms), "without an index ASE reads one frame"
    found = {
        method: vibrations(relaxed, force_field, method=method)
        for method in ("jax", "differences")
        if args.method in (method, "both")
    }
    shown = found.get("jax") or found["differences"]
    summary["wavenumber_cm1"] = shown.wavenumber_cm1.tolist()
    summary["zero_point_ev"] = shown.zero_point_ev
    if len(found) == 2:
        other = found["differences"].wavenumber_cm1
        summary["by_differences_cm1"] = other.tolist()
        difference = abs(shown.wavenumber_cm1 - other).max(initial=0.0)
        summary["largest_difference_cm1"] = float(difference)
    return summary


def _nve(args: Any, atoms: Any, force_field: Any, out: Any, common: dict) -> dict:
    from chemscale_jax.inference import dynamics

    found = dynamics.run_nve(
        atoms,
        force_field,
        steps=_STEPS["nve"] if args.steps is None else args.steps,
        timestep_fs=args.timestep_fs,
        temperature_k=None if args.keep_velocities else args.temperature_k,
        equilibration_steps=args.equilibration_steps,
        seed=args.seed,
        interval=args.interval,
        **common,
    )
    summary = _of_run(found, out)
    drift = found.drift
    return {
        **summary,
        "drift_mev_per_atom": drift.mev_per_atom,
        "drift_mev_per_atom_per_ps": drift.mev_per_atom_per_ps,
        "fluctuation_mev_per_atom": drift.fluctuation_mev_per_atom,
    }


def _nvt(args: Any, atoms: Any, force_field: Any, out: Any, common: dict) -> dict:
    from chemscale_jax.inference import dynamics

    found = dynamics.run_nvt(
        atoms,
        force_field,
        steps=_STEPS["nvt"] if args.steps is None else args.steps,
        timestep_fs=args.timestep_fs,
        temperature_k=args.temperature_k,
        friction_per_ps=args.friction_per_ps,
        fresh_velocities=not args.keep_velocities,
        seed=args.seed,
        interval=args.interval,
        **common,
    )
    return _of_run(found, out)


def _of_run(found: Any, out: pathlib.Path) -> dict:
    """What both kinds of dynamics report; writes every sample."""
    samples = found.samples
    with open(out / SAMPLES, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(samples._fields)
        writer.writerows(
            [f"{x:.9g}" for x in row] for row in zip(*samples, strict=True)
        )
    return {
        "state": found.state,
        "reason": found.reason,
        "steps": found.steps,
        "length_ps": float(samples.time_fs[-1] / 1e3),
        "steps_per_s": found.steps_per_s,
        "mean_temperature_k": found.mean_temperature_k,
        "total_energy_ev": float(samples.total_ev[-1]),
        "broken_bonds": list(found.broken_bonds),
    }


_RUN: Mapping[str, Callable[..., dict]] = {
    "relax": _relax,
    "nve": _nve,
    "nvt": _nvt,
    "vibrations": _vibrations,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale md",
        description="Run a molecule with a trained force field.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("task", choices=TASKS, help="see below")
    add("molecule", help="SMILES, or a file that ASE reads, such as xyz")
    add(
        "--workdir",
        action="append",
        help="folder of a run (default: the force field of the package)",
    )
    add("--out", help="folder to write to (default: runs/md-TASK-FORMULA)")
    add(
        "--steps",
        type=int,
        help=f"default: {_STEPS['nve']}; {_STEPS['relax']} to relax",
    )
    add("--timestep-fs", type=float, default=0.5, help="default: %(default)s")
    add("--temperature-k", type=float, default=300.0, help="default: %(default)s")
    add("--friction-per-ps", type=float, default=10.0, help="default: %(default)s")
    add(
        "--equilibration-steps",
        type=int,
        default=1000,
        help="Langevin dynamics before nve (default: %(default)s)",
    )
    add(
        "--keep-velocities",
        action="store_true",
        help="those of the file; no new ones, no equilibration",
    )
    add(
        "--interval",
        type=int,
        default=20,
        help="steps per frame (default: %(default)s)",
    )
    add("--fmax", type=float, default=0.001, help="eV/angstrom (default: %(default)s)")
    add("--optimizer", choices=("bfgs", "fire"), default="bfgs", help="to relax")
    add("--cell", action="store_true", help="relax the cell too")
    add(
        "--method",
        choices=("jax", "differences", "both"),
        default="both",
        help="of vibrations (default: %(default)s)",
    )
    add("--charge", type=float, help="elementary charges (default: as SMILES or file)")
    add("--spin", type=float, help="unpaired electrons (default: as SMILES or file)")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--skin-ang", type=float, default=0.5, help="of neighbours")
    add("--seed", type=int, default=0, help="default: %(default)s")
    return parser
