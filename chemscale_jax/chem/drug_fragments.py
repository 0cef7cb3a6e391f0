"""Pieces of drugs with labelled open ends, from which new molecules are joined.

Two sources: connected parts of a drug between bonds that the BRICS rules cut (Degen et
al. 2008, as RDKit finds them), and whole drugs in which one functional group of the
common coupling reactions is opened: the OH of an acid, an H of an amine, alcohol or
azole, an aryl halide. The label of an open end is the BRICS environment of the atom
it belongs to; ``PARTNERS`` says which two may be joined.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from rdkit import Chem
from rdkit.Chem import BRICS
from rdkit.rdBase import BlockLogs

# Sizes in heavy atoms, open ends not counted. Larger parts would give molecules that
# are a drug with a small change.
MAX_HEAVY = 20
MAX_HEAVY_WHOLE = 26
MAX_OPEN = 4
# Neighbouring BRICS fragments that stay together.
_MAX_PARTS = 3
_MAX_RING = 7

# Label -> labels of the other side, of all single bonds that BRICS cuts.
PARTNERS: dict[int, frozenset[int]] = {}
for _group in BRICS.reactionDefs:
    for _first, _second, _bond in _group:
        if _bond == "-":
            for _a, _b in ((_first, _second), (_second, _first)):
                PARTNERS[int(_a)] = PARTNERS.get(int(_a), frozenset()) | {int(_b)}

# Functional groups that open: pattern, label, and whether the second atom of the match
# leaves (else an H of the first does).
_HANDLES = tuple(
    (Chem.MolFromSmarts(smarts), label, leaves)
    for smarts, label, leaves in (
        ("[CX3;$(C(=O)[#6])]-[OX2H]", 1, True),
        ("[NX3;H1,H2;$(N[CX4,c]);!$(N[C,S]=[O,N,S]);!$(Nc[n,o]);!$(N~[N,O,S])]", 5, 0),
        ("[OX2H;$(O[CX4,c]);!$(O[CX4][O,N,S])]", 3, 0),
        ("[nH;r5]", 9, 0),
        ("[c;r6]-[Cl,Br,I]", 16, True),
    )
)
# What a piece must not contain: its products would not be taken either.
_UNWANTED = tuple(
    Chem.MolFromSmarts(smarts)
    for smarts in (
        "[O,S]-[O,S;X2,X1]",  # peroxides, disulfides
        "[N,n,O,o]-[Cl,Br,I]",
        "[CX3](=O)[Cl,Br,I]",
        "[CX4][Cl,Br,I]",
        "[CX3H1](=O)[#6]",
        "[N-]=[N+]=[N-]",
        "[N;!R]=[N;!R]",
        "[N;!R]-[N;!R]-[N;!R]",
        "[SX2H]",
        "[CX3](=O)-O-[CX3]=O",
    )
)
_OPEN_END = re.compile(r"\(\[\d+\*\]\)|\[\d+\*\]")
_FIRST_ATOM = re.compile(r"^\[(\d+)\*\](\[[^\]]+\]|Cl|Br|[BCNOPSFIbcnops])")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of one or more drugs."""

    texts: tuple[str, ...]  # SMILES, cut where the open ends are
    labels: tuple[int, ...]  # BRICS environment of each open end
    heavy: int
    rings: int
    count: int  # how often the drugs have it

    def fill(self, ends: Iterable[str]) -> str:
        """The SMILES with something in place of each open end."""
        first, *rest = self.texts
        return first + "".join(e + t for e, t in zip(ends, rest, strict=True))


def pieces_of(smiles: Iterable[str]) -> list[Piece]:
    """All pieces of some molecules, in the order of their canonical SMILES."""
    counts: Counter[str] = Counter()
    sizes: dict[str, tuple[int, int] | None] = {}  # None: not to be used
    with BlockLogs():
        for text in smiles:
            mol = Chem.MolFromSmiles(text)
            found = set()
            for part in [*_brics_parts(mol), *_opened(mol)]:
                key = Chem.MolToSmiles(part)
                found.add(key)
                if key not in sizes:
                    sizes[key] = _size(part)
            counts.update(found)
    return [
        _piece(key, *size, counts[key])
        for key, size in sorted(sizes.items())
        if size is not None
    ]


def _size(part: Chem.Mol) -> tuple[int, int] | None:
    """Its heavy atoms and rings, if it is of use."""
    part.UpdatePropertyCache(strict=False)
    Chem.GetSymmSSSR(part)
    if not _is_usable(part):
        return None
    # Not the number of smallest rings, of which symmetric cages have one too many.
    rings = part.GetNumBonds() - part.GetNumAtoms() + 1
    return part.GetNumHeavyAtoms(), rings


def _piece(smiles: str, heavy: int, rings: int, count: int) -> Piece:
    # An open end at the front moves behind its atom, where a ring closure can be.
    smiles = _FIRST_ATOM.sub(r"\2[\1*]", smiles)
    ends = _OPEN_END.findall(smiles)
    labels = tuple(int(re.sub(r"\D", "", end)) for end in ends)
    return Piece(tuple(_OPEN_END.split(smiles)), labels, heavy, rings, count)


def _brics_parts(mol: Chem.Mol) -> Iterator[Chem.Mol]:
    """Connected parts of at most ``_MAX_PARTS`` BRICS fragments, not the whole."""
    cuts = {
        mol.GetBondBetweenAtoms(*atoms).GetIdx(): (int(labels[0]), int(labels[1]))
        if mol.GetBondBetweenAtoms(*atoms).GetBeginAtomIdx() == atoms[0]
        else (int(labels[1]), int(labels[0]))
        for atoms, labels in BRICS.FindBRICSBonds(mol)
        if "7" not in (labels[0][0], labels[1][0])
    }
    if not cuts:
        return
    apart = Chem.FragmentOnBonds(mol, list(cuts), addDummies=False)
    members = Chem.GetMolFrags(apart)
    home = {atom: i for i, atoms in enumerate(members) for atom in atoms}
    links = {}
    for bond in cuts:
        ends = mol.GetBondWithIdx(bond)
        links[bond] = home[ends.GetBeginAtomIdx()], home[ends.GetEndAtomIdx()]
    sizes = [len(atoms) for atoms in members]
    for nodes in _connected(len(members), list(links.values())):
        bonds = sorted(b for b, (i, j) in links.items() if (i in nodes) != (j in nodes))
        heavy = sum(sizes[node] for node in nodes)
        if not bonds or len(bonds) > MAX_OPEN or heavy > MAX_HEAVY:
            continue
        # The first label of a pair goes to the end atom of the bond.
        labels = [(cuts[bond][1], cuts[bond][0]) for bond in bonds]
        yield _part_with(
            Chem.FragmentOnBonds(mol, bonds, dummyLabels=labels),
            members[min(nodes)][0],
        )


def _part_with(mol: Chem.Mol, atom: int) -> Chem.Mol:
    where: list[int] = []
    parts = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False, frags=where)
    return parts[where[atom]]


def _connected(n_nodes: int, links: list[tuple[int, int]]) -> list[frozenset[int]]:
    """Connected sets of up to ``_MAX_PARTS`` nodes of a tree."""
    found = {frozenset([node]) for node in range(n_nodes)}
    last = found
    for _ in range(_MAX_PARTS - 1):
        last = {
            nodes | set(link)
            for nodes in last
            for link in links
            if len(nodes & set(link)) == 1
        }
        found |= last
    return sorted(found, key=sorted)


def _opened(mol: Chem.Mol) -> Iterator[Chem.Mol]:
    """The molecule with one functional group opened, each in turn."""
    if mol.GetNumHeavyAtoms() > MAX_HEAVY_WHOLE:
        return
    for pattern, label, leaves in _HANDLES:
        for atom, *others in mol.GetSubstructMatches(pattern):
            edited = Chem.RWMol(mol)
            end = Chem.Atom(0)
            end.SetIsotope(label)
            if leaves:
                edited.ReplaceAtom(others[-1], end)
            else:
                edited.AddBond(atom, edited.AddAtom(end), Chem.BondType.SINGLE)
                if hydrogens := edited.GetAtomWithIdx(atom).GetNumExplicitHs():
                    edited.GetAtomWithIdx(atom).SetNumExplicitHs(hydrogens - 1)
            Chem.SanitizeMol(edited)
            yield edited.GetMol()


def _is_usable(mol: Chem.Mol) -> bool:
    if Chem.GetFormalCharge(mol):
        return False
    if any(len(ring) > _MAX_RING for ring in mol.GetRingInfo().AtomRings()):
        return False
    return not any(mol.HasSubstructMatch(pattern) for pattern in _UNWANTED)
