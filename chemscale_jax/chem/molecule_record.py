"""One molecule as arrays: heavy atoms in canonical order, bonds, coordinates, a status.

A record is made from a SMILES string or an RDKit molecule and is a function of the
molecule, not of how it was written: its atoms stand in the order of the canonical
SMILES. Whatever cannot be read gives a record too, with the status "failed".
"""

from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDepictor
from scipy.spatial.distance import pdist

from chemscale_jax.chem.raw_features import raw_atoms, raw_bonds
from chemscale_jax.chem.smiles import quiet_rdkit, read_molecule

MAX_ATOMS = 256
# Atoms are never so close, nor a molecule so large, in coordinates that mean anything.
CLOSEST_ANG = 0.3
FARTHEST_ANG = 1e4
STATUSES = {
    "3d": "conformers by distance geometry, relaxed to convergence",
    "unconverged": "conformers by distance geometry that are not fully relaxed",
    "2d": "a flat drawing in place of conformers",
    "given": "coordinates that came with the molecule",
    "failed": "nothing that a model can read",
}
# Drawings have hydrogens, which turn the chains of a molecule, up to so many atoms.
# Differs from the reference: it has no such limit, though the time grows with the cube.
DRAWN_ATOMS = 200
NOT_MADE = "no conformer was made yet"
# RDKit's canonical SMILES are not always a fixed point of reading and writing.
_ROUNDS = 4
_READER = Chem.SmilesParserParams()
_READER.parseName = _READER.allowCXSMILES = _READER.removeHs = False


class MoleculeRecord(NamedTuple):
    """What is known of one molecule of N heavy atoms.

    A molecule without bonds (``has_bonds`` is false) has coordinates and elements
    only: its features are unknown, and its atoms stand as they were given.

    Attributes:
        name: as given, or "".
        smiles: canonical, with stereo and isotopes; "" where bonds are unknown.
        species_N: uint8 atomic numbers; hydrogens of every mass are left out.
        atoms_N8: uint8, `raw_features.raw_atoms`.
        bonds_E2: uint16, each bond once, lower atom first, sorted.
        bond_features_E3: uint8, `raw_features.raw_bonds`.
        positions_KN3: float32, angstrom, K conformers; K is 0 for failed records only.
        flat_N3: float32, angstrom, a drawing with z = 0.
        status: one of `STATUSES`.
        reason: why the status is neither "3d" nor "given", or what a record with this
            status lacks; else "".
    """

    name: str
    smiles: str
    species_N: np.ndarray
    atoms_N8: np.ndarray
    bonds_E2: np.ndarray
    bond_features_E3: np.ndarray
    positions_KN3: np.ndarray
    flat_N3: np.ndarray
    status: str
    reason: str

    @property
    def has_bonds(self) -> bool:
        """Whether bonds and features are known."""
        return bool(self.smiles)


def failed_record(name: str, reason: str, smiles: str = "") -> MoleculeRecord:
    """The record of what could not be read."""
    return MoleculeRecord(
        name=name,
        smiles=smiles,
        species_N=np.zeros(0, np.uint8),
        atoms_N8=np.zeros((0, 8), np.uint8),
        bonds_E2=np.zeros((0, 2), np.uint16),
        bond_features_E3=np.zeros((0, 3), np.uint8),
        positions_KN3=np.zeros((0, 0, 3), np.float32),
        flat_N3=np.zeros((0, 3), np.float32),
        status="failed",
        reason=reason,
    )


def record_of_smiles(
    text: str, name: str = "", *, max_atoms: int = MAX_ATOMS
) -> MoleculeRecord:
    """A record of status "2d" or "failed" from a SMILES string; never an exception.

    Args:
        text: SMILES; salts, charges, radicals and isotopes stay, atom-map numbers go.
        name: of the molecule.
        max_atoms: larger molecules, by heavy atoms, are refused.
    """
    parsed = read_molecule(text, max_heavy_atoms=max_atoms)
    if parsed.reason:
        return failed_record(name, parsed.message)
    with quiet_rdkit():
        try:
            return _from_canonical(name, parsed.canonical)
        except (RuntimeError, ValueError) as error:
            return failed_record(name, first_line(error), parsed.canonical)


def record_of(
    mol: Chem.Mol | None,
    name: str = "",
    *,
    canonical: bool = True,
    own_coordinates: bool = False,
    max_atoms: int = MAX_ATOMS,
) -> MoleculeRecord:
    """A record of status "2d", "given" or "failed" from a molecule of RDKit.

    Args:
        mol: with or without hydrogens as atoms; left as it is.
        name: of the molecule.
        canonical: atoms in the order of the canonical SMILES, else as given. Atoms
            that symmetry makes equal may change places with the order of the input,
            which shows in coordinates that were given and nowhere else.
        own_coordinates: take the geometries of the molecule, all of them, if they are
            three-dimensional; the status is "given" then.
        max_atoms: larger molecules, by heavy atoms, are refused.
    """
    if mol is None or not mol.GetNumAtoms():
        return failed_record(name, "the molecule has no atom")
    if fault := size_fault(mol.GetNumHeavyAtoms(), mol.GetNumAtoms(), max_atoms):
        return failed_record(name, fault)
    with quiet_rdkit():
        try:
            return _from_molecule(mol, name, canonical, own_coordinates)
        except (RuntimeError, ValueError) as error:
            return failed_record(name, first_line(error))


def most_atoms(max_atoms: int) -> int:
    """How many atoms, with hydrogens, molecules of so many heavy atoms may have."""
    return 10 * max_atoms


def size_fault(heavy: int, atoms: int, max_atoms: int) -> str:
    """Why a molecule of this size is refused, or ""."""
    if heavy > max_atoms:
        return f"{heavy} heavy atoms; the limit is {max_atoms}"
    if atoms > most_atoms(max_atoms):
        return f"{atoms} atoms with hydrogens; the limit is {most_atoms(max_atoms)}"
    return ""


def molecule_of(smiles: str) -> Chem.Mol:
    """The molecule of a record: its heavy atoms stand in the order of the record.

    Hydrogens that the SMILES writes as atoms (isotopes, for one) stand among them.

    Raises:
        ValueError: RDKit cannot read its own SMILES.
    """
    with quiet_rdkit():
        mol = Chem.MolFromSmiles(smiles, _READER)
    if mol is None:
        raise ValueError(f"RDKit wrote the SMILES {smiles!r} but cannot read it")
    return mol


def heavy_atoms(mol: Chem.Mol) -> list[int]:
    """Indices of the atoms that are not hydrogen."""
    return [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() != 1]


def _from_molecule(
    mol: Chem.Mol, name: str, canonical: bool, own_coordinates: bool
) -> MoleculeRecord:
    mol = Chem.Mol(mol)
    if any(not atom.GetAtomicNum() or atom.HasQuery() for atom in mol.GetAtoms()):
        return failed_record(name, "an atom is left open (*, R, a list of elements)")
    if any(bond.HasQuery() for bond in mol.GetBonds()):
        return failed_record(name, "a bond is left open, as in a search pattern")
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
        atom.SetIntProp("_place", atom.GetIdx())
    Chem.SanitizeMol(mol)
    bare = Chem.RemoveHs(mol)
    places = np.array([atom.GetIntProp("_place") for atom in bare.GetAtoms()], int)
    geometries, doubt = _own_geometries(mol) if own_coordinates else ([], "")
    smiles, ordered, order = _canonical(*_written(bare), bare)
    if not canonical:
        ordered, order = bare, np.arange(len(places))
    positions = np.stack(geometries)[:, places[order]] if geometries else None
    made = _record(name, smiles, ordered, positions)
    if doubt and made.status == "2d":
        made = made._replace(reason=f"{doubt}, so they are not used; {NOT_MADE}")
    return made


def _own_geometries(mol: Chem.Mol) -> tuple[list[np.ndarray], str]:
    """Positions of all atoms in each geometry, and what is wrong if there is none."""
    geometries = []
    doubt = "it has no coordinates"
    for conformer in mol.GetConformers():
        positions = np.array(conformer.GetPositions())
        if not conformer.Is3D():
            doubt = "its coordinates are a drawing"
        elif fault := coordinate_fault(positions):
            doubt = f"of its coordinates, {fault}"
        else:
            geometries.append(positions)
    return geometries, doubt


def coordinate_fault(positions_N3: np.ndarray) -> str:
    """What makes coordinates unusable, or ""."""
    if not np.isfinite(positions_N3).all():
        return "some are not finite"
    if np.abs(positions_N3).max(initial=0.0) > FARTHEST_ANG:
        return f"some are beyond {FARTHEST_ANG:g} angstrom"
    if len(positions_N3) < 2:
        return ""
    distances = pdist(positions_N3)
    closest = int(distances.argmin())
    if distances[closest] >= CLOSEST_ANG:
        return ""
    i, j = np.triu_indices(len(positions_N3), 1)
    return (
        f"atoms {i[closest] + 1} and {j[closest] + 1} are "
        f"{distances[closest]:.2f} angstrom apart"
    )


def flattened(positions_N3: np.ndarray) -> np.ndarray:
    """(N, 3) float32: the geometry on the plane that fits it best, z = 0."""
    centred = positions_N3 - positions_N3.mean(0, keepdims=True)
    axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[2][:2]
    flat = np.zeros(positions_N3.shape, np.float32)
    flat[:, : len(axes)] = centred @ axes.T
    return flat


def _written(mol: Chem.Mol) -> tuple[str, np.ndarray]:
    """SMILES, and the atoms in the order in which it names them."""
    smiles = Chem.MolToSmiles(mol)
    order = mol.GetPropsAsDict(True, True).get("_smilesAtomOutputOrder", [])
    return smiles, np.array(list(order), int)


def _canonical(
    smiles: str, order: np.ndarray | None = None, mol: Chem.Mol | None = None
) -> tuple[str, Chem.Mol, np.ndarray]:
    """The SMILES that reading and writing again does not change, and its molecule.

    Args:
        smiles: what RDKit calls canonical.
        order: atoms of ``mol`` in the order of ``smiles``; default one after another.
        mol: what it was written for; taken for a SMILES that RDKit cannot read.

    Returns:
        SMILES, molecule, and the order in which it has the atoms of ``mol``.
    """
    seen: dict[str, tuple[Chem.Mol, np.ndarray]] = {}
    while smiles not in seen and len(seen) < _ROUNDS:
        try:
            again = molecule_of(smiles)
        except ValueError:
            if mol is None or order is None or seen:
                raise
            renumbered = Chem.RenumberAtoms(mol, [int(i) for i in order])
            return smiles, renumbered, order
        if order is None:
            order = np.arange(again.GetNumAtoms())
        seen[smiles] = again, order
        smiles, step = _written(again)
        order = order[step]
    # Nearly always, the first is the only one. Of a circle, whoever enters it where
    # must take the same.
    circle = list(seen)
    if smiles in seen:
        circle = circle[circle.index(smiles) :]
    smiles = min(circle)
    return smiles, *seen[smiles]


def _from_canonical(name: str, smiles: str) -> MoleculeRecord:
    smiles, mol, _ = _canonical(smiles)
    return _record(name, smiles, mol, None)


def _record(
    name: str, smiles: str, mol: Chem.Mol, positions: np.ndarray | None
) -> MoleculeRecord:
    """The record of a molecule whose atoms are in order.

    Args:
        name: of the molecule.
        smiles: of the molecule.
        mol: with few or no hydrogens as atoms.
        positions: (K, atoms of ``mol``, 3) or None.
    """
    with_hydrogens = Chem.AddHs(mol)
    heavy = heavy_atoms(mol)
    if not heavy:
        return failed_record(name, "the molecule has no atom but hydrogen", smiles)
    # Features are those of the reference: hydrogens are added, and all taken away.
    bare = Chem.RemoveAllHs(with_hydrogens)
    drawn = with_hydrogens if with_hydrogens.GetNumAtoms() <= DRAWN_ATOMS else mol
    rdDepictor.Compute2DCoords(drawn)
    flat = np.array(drawn.GetConformer().GetPositions(), np.float32)[heavy]
    if not np.isfinite(flat).all():
        return failed_record(name, "RDKit finds no drawing for it", smiles)
    bonds, bond_features = raw_bonds(bare)
    return MoleculeRecord(
        name=name,
        smiles=smiles,
        species_N=np.array([a.GetAtomicNum() for a in bare.GetAtoms()], np.uint8),
        atoms_N8=raw_atoms(bare),
        bonds_E2=bonds,
        bond_features_E3=bond_features,
        positions_KN3=(
            flat[None] if positions is None else positions[:, heavy].astype(np.float32)
        ),
        flat_N3=flat,
        status="2d" if positions is None else "given",
        reason=NOT_MADE if positions is None else "",
    )


def first_line(error: Exception) -> str:
    """What RDKit says, as a reason."""
    lines = str(error).strip().splitlines()
    return f"RDKit: {lines[0] if lines else type(error).__name__}"
