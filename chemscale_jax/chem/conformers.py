"""Geometries of molecules that are given as SMILES.

Conformers are a function of the canonical SMILES and the settings: not of the order in
which molecules come, nor of the process that makes them, nor of how many are made.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import Descriptors, rdDistGeom, rdForceFieldHelpers

from chemscale_jax.chem.conformer_cache import read_geometry, write_geometry
from chemscale_jax.chem.molecule_record import (
    MoleculeRecord,
    first_line,
    heavy_atoms,
    molecule_of,
)
from chemscale_jax.chem.smiles import molecule_key, quiet_rdkit
from chemscale_jax.core.errors import UserError

# Between the boxes around molecules that are not bonded, such as the ions of a salt.
# RDKit puts them all in one place.
FRAGMENT_GAP_ANG = 3.0
# Relaxing takes about 50 ns for each iteration and pair of atoms, so a conformer takes
# some seconds at most; molecules of up to 316 atoms, hydrogens included, may take 1000
# iterations, with which 299 of 300 drug-like molecules come to rest (287 with 500).
RELAX_WORK = 100_000_000
# Seeds of RDKit are 31 bits, and every attempt at a molecule takes the next one.
_SEEDS = 2**31 - 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConformerSettings:
    """How conformers are made.

    Attributes:
        count: conformers of a molecule; fewer where some attempts fail, one of a
            single atom.
        seed: another one gives other conformers.
        attempts: at embedding each one, and as many again from random coordinates if
            there is none.
        relax_iterations: at most, and fewer for large molecules (`RELAX_WORK`); 0
            leaves conformers as embedded.
        embed_s: wall seconds for embedding, after which a molecule stays flat. Far
            more than most need: what depends on the clock is not reproducible. An
            attempt that has begun is finished, which takes seconds where there are
            hundreds of atoms.

    Raises:
        UserError: a number is out of range.
    """

    count: int = 1
    seed: int = 0
    attempts: int = 10
    relax_iterations: int = 1000
    embed_s: int = 60

    def __post_init__(self):
        least = {"count": 1, "attempts": 1, "relax_iterations": 0, "embed_s": 1}
        for name, smallest in least.items():
            found = getattr(self, name)
            if found < smallest:
                raise UserError(
                    f"{name} of conformers is {found}: it must be {smallest} or more"
                )


class Geometry(NamedTuple):
    """Conformers of a molecule, its hydrogens left out."""

    positions_KN3: np.ndarray  # float32, angstrom; K is 0 for the status "2d"
    status: str  # "3d", "unconverged" or "2d"
    reason: str  # why not "3d", else ""


class WholeGeometry(NamedTuple):
    """Conformers of a molecule with its hydrogens, and what SMILES tell of electrons.

    Attributes:
        numbers_N: uint8, atomic numbers.
        heavy: places among them of the atoms of the molecule's record, in its order.
        positions_KN3: float32, angstrom; K is 0 where no geometry was found.
        charge: elementary charges.
        unpaired: electrons.
        status: "3d", "unconverged", or "failed".
        reason: why not "3d", else "".
    """

    numbers_N: np.ndarray
    heavy: np.ndarray
    positions_KN3: np.ndarray
    charge: int
    unpaired: int
    status: str
    reason: str


def conform(
    record: MoleculeRecord,
    settings: ConformerSettings,
    cache: str | os.PathLike | None = None,
) -> MoleculeRecord:
    """The record with conformers; a pure function, but for the cache.

    Records that failed, or came with coordinates, stay as they are. Where no geometry
    is found, the status is "2d" and the drawing stands in for a conformer.

    Args:
        record: with its atoms in canonical order.
        settings: how to make them.
        cache: file of finished conformers, read and extended; safe for several
            processes.

    Raises:
        ValueError: the atoms are not in canonical order.
        UserError: the cache cannot be used.
    """
    if record.status in ("failed", "given"):
        return record
    try:
        mol = molecule_of(record.smiles)
    except ValueError as error:
        return flat(record, str(error))
    _check_order(record, mol)
    key = cache_key(record.smiles, settings)
    found = read_geometry(cache, key) if cache else None
    if found is None:
        geometry, lasting = _geometry(mol, record.smiles, settings)
        if cache and lasting:
            write_geometry(cache, key, *geometry)
    else:
        geometry = Geometry(*found)
    if geometry.status == "2d":
        return flat(record, geometry.reason)
    return record._replace(**geometry._asdict())


def whole_geometry(
    smiles: str,
    settings: ConformerSettings,
    cache: str | os.PathLike | None = None,
) -> WholeGeometry:
    """Conformers with all hydrogens, made as those of `conform` are.

    Args:
        smiles: of a `MoleculeRecord`.
        settings: how to make them.
        cache: see `conform`.

    Raises:
        ValueError: RDKit cannot read the SMILES.
        UserError: the cache cannot be used.
    """
    mol = molecule_of(smiles)
    with quiet_rdkit():
        whole = Chem.AddHs(mol)
    key = f"whole|{cache_key(smiles, settings)}"
    found = read_geometry(cache, key) if cache else None
    if found is None:
        geometry, lasting = _geometry(mol, smiles, settings, whole=True)
        if cache and lasting:
            write_geometry(cache, key, *geometry)
    else:
        geometry = Geometry(*found)
    return WholeGeometry(
        np.array([atom.GetAtomicNum() for atom in whole.GetAtoms()], np.uint8),
        np.array(heavy_atoms(whole), np.int64),
        geometry.positions_KN3,
        Chem.GetFormalCharge(mol),
        Descriptors.NumRadicalElectrons(mol),
        "failed" if geometry.status == "2d" else geometry.status,
        geometry.reason,
    )


def conform_some(
    records: Sequence[MoleculeRecord],
    given_up: Mapping[int, str],
    at: Callable[[int], None],
    settings: ConformerSettings,
    cache: str | os.PathLike | None = None,
) -> list[MoleculeRecord]:
    """`conform` for a job of a pool of processes that outlives crashes.

    Args:
        records: the job.
        given_up: places in it that must not be touched, and why: a molecule whose
            process crashed, or came to no end, stays flat.
        at: called with each place before it is touched.
        settings: how to make conformers.
        cache: see `conform`.
    """
    done = []
    for place, record in enumerate(records):
        at(place)
        if place in given_up and record.status not in ("failed", "given"):
            done.append(flat(record, f"making a conformer failed: {given_up[place]}"))
        else:
            done.append(conform(record, settings, cache))
    return done


def flat(record: MoleculeRecord, reason: str) -> MoleculeRecord:
    """The record with its drawing as the one conformer."""
    return record._replace(
        positions_KN3=record.flat_N3[None], status="2d", reason=reason
    )


def cache_key(smiles: str, settings: ConformerSettings) -> str:
    """What conformers depend on: the molecule, the settings, and RDKit's version."""
    fields = dataclasses.astuple(settings)
    return f"{smiles}|{fields}|{RELAX_WORK}|{rdBase.rdkitVersion}"


def _check_order(record: MoleculeRecord, mol: Chem.Mol) -> None:
    """Refuses a record whose atoms are not those of its SMILES in their order."""
    heavy = heavy_atoms(mol)
    place = {atom: i for i, atom in enumerate(heavy)}
    ends = ((b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds())
    bonds = sorted(
        tuple(sorted((place[i], place[j])))
        for i, j in ends
        if i in place and j in place
    )
    numbers = [mol.GetAtomWithIdx(i).GetAtomicNum() for i in heavy]
    same = numbers == record.species_N.tolist()
    if not same or bonds != [tuple(bond) for bond in record.bonds_E2.tolist()]:
        raise ValueError(
            f"the atoms of the record {record.name or record.smiles!r} are not in "
            "canonical order: make it with canonical=True"
        )


def _geometry(
    mol: Chem.Mol, smiles: str, settings: ConformerSettings, whole: bool = False
) -> tuple[Geometry, bool]:
    """Conformers, and whether another run would find the same.

    Args:
        mol: without most of its hydrogens.
        smiles: of the molecule.
        settings: how to make them.
        whole: with all hydrogens, in RDKit's order, which puts added ones last.
    """
    heavy = heavy_atoms(mol)
    if whole:
        heavy = list(range(Chem.AddHs(mol).GetNumAtoms()))
    nothing = np.zeros((0, len(heavy), 3), np.float32)
    if len(heavy) == 1:
        return Geometry(np.zeros((1, 1, 3), np.float32), "3d", ""), True
    with quiet_rdkit():
        mol = Chem.AddHs(mol)
        try:
            in_time = _embed(mol, smiles, settings)
            if mol.GetNumConformers():
                status, reason = _relax(mol, settings)
        except (RuntimeError, ValueError) as error:
            return Geometry(nothing, "2d", first_line(error)), True
    if not mol.GetNumConformers():
        limit = f"{2 * settings.attempts} attempts"
        if not in_time:
            limit = f"{settings.embed_s} seconds"
        return Geometry(nothing, "2d", f"no geometry was found in {limit}"), in_time
    _spread_fragments(mol)
    positions = np.array([c.GetPositions() for c in mol.GetConformers()])[:, heavy]
    positions = positions[np.isfinite(positions).all((1, 2))].astype(np.float32)
    if not len(positions):
        return Geometry(nothing, "2d", "relaxing led to coordinates of NaN"), True
    return Geometry(positions, status, reason), True


def _embed(mol: Chem.Mol, smiles: str, settings: ConformerSettings) -> bool:
    """Adds conformers by distance geometry (ETKDGv3); False if time was up."""
    params = rdDistGeom.ETKDGv3()
    params.randomSeed = 1 + molecule_key(f"{settings.seed} {smiles}") % _SEEDS
    params.enableSequentialRandomSeeds = True
    params.maxIterations = settings.attempts
    end = time.monotonic() + settings.embed_s
    for params.useRandomCoords in (False, True):
        params.timeout = max(1, round(end - time.monotonic()))  # 0 is for ever
        found = rdDistGeom.EmbedMultipleConfs(mol, settings.count, params)
        if mol.GetNumConformers():
            return True
        if -1 in found:  # RDKit's sign of a timeout
            return False
    return True


def _relax(mol: Chem.Mol, settings: ConformerSettings) -> tuple[str, str]:
    """Moves all conformers towards minima of MMFF94, else UFF; status and reason."""
    most = max(1, RELAX_WORK // mol.GetNumAtoms() ** 2)
    iterations = min(settings.relax_iterations, most)
    if not iterations:
        return "unconverged", "conformers are as embedded"
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        field, relax = "MMFF94", rdForceFieldHelpers.MMFFOptimizeMoleculeConfs
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
        field, relax = "UFF", rdForceFieldHelpers.UFFOptimizeMoleculeConfs
    else:
        return "unconverged", "neither MMFF94 nor UFF knows all of its atoms"
    outcomes = [state for state, _ in relax(mol, maxIters=iterations)]
    open_ones = sum(state != 0 for state in outcomes)
    if not open_ones:
        return "3d", ""
    return "unconverged", (
        f"{field} was not at rest after {iterations} iterations for {open_ones} of "
        f"{len(outcomes)} conformers"
    )


def _spread_fragments(mol: Chem.Mol) -> None:
    """Puts the molecules of a salt or mixture side by side along x."""
    fragments = [list(atoms) for atoms in Chem.GetMolFrags(mol)]
    if len(fragments) < 2:
        return
    for conformer in mol.GetConformers():
        positions = np.array(conformer.GetPositions())
        right = None
        for atoms in fragments:
            part = positions[atoms]
            shift = -part.mean(0)
            left = part[:, 0].min() if right is None else right + FRAGMENT_GAP_ANG
            shift[0] = left - part[:, 0].min()
            positions[atoms] = part + shift
            right = positions[atoms, 0].max()
        conformer.SetPositions(positions)


class Conformer(NamedTuple):
    """A geometry, and the electrons that SMILES tell."""

    numbers: np.ndarray  # (N,) int, atomic numbers
    positions_ang: np.ndarray  # (N, 3)
    charge: int  # elementary charges
    unpaired: int  # electrons


def embed(smiles: str, seed: int = 0) -> Conformer:
    """A conformer by distance geometry (ETKDG), relaxed with MMFF94 where it applies.

    Args:
        smiles: hydrogens need not be written.
        seed: equal seeds give equal geometries.

    Raises:
        ValueError: it is no SMILES, or no geometry was found.
    """
    with rdBase.BlockLogs():  # what is wrong is said below
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise ValueError(f"{smiles!r} is not a SMILES string; ethanol, say, is 'CCO'")
    mol = Chem.AddHs(mol)
    params = rdDistGeom.ETKDGv3()
    params.randomSeed = seed
    if rdDistGeom.EmbedMolecule(mol, params) < 0:
        params.useRandomCoords = True
        if rdDistGeom.EmbedMolecule(mol, params) < 0:
            raise ValueError(f"no geometry was found for {smiles!r}; give an xyz file")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=500)
    return Conformer(
        np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()]),
        np.array(mol.GetConformer().GetPositions()),
        Chem.GetFormalCharge(mol),
        Descriptors.NumRadicalElectrons(mol),
    )
