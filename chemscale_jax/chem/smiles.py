"""Reading one molecule from a piece of text: checked, canonical, never an exception."""

import contextlib
import hashlib
import re
from typing import NamedTuple

from rdkit import Chem, rdBase

MAX_CHARACTERS = 10_000
MAX_HEAVY_ATOMS = 1_000

REASONS = {
    "empty": "no text",
    "not_text": "characters that no SMILES has, such as the remains of wrong bytes",
    "too_long": "more characters than the limit",
    "too_large": "more heavy atoms than the limit",
    "reaction": "a reaction, not a molecule",
    "wildcard": "an atom left open: *, or an R group",
    "query": "SMARTS, a pattern for molecules",
    "syntax": "no SMILES",
    "kekulisation": "an aromatic system without a pattern of double bonds",
    "valence": "an atom with too many bonds",
    "chemistry": "another structure that RDKit refuses",
    "no_atoms": "no atom",
}


def molecule_key(smiles: str) -> int:
    """64 bits that stand for a canonical SMILES, the same on every machine."""
    digest = hashlib.blake2b(smiles.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Parsed(NamedTuple):
    """What a text holds, or why nothing can be made of it.

    Attributes:
        canonical: RDKit's canonical SMILES, with stereo, isotopes and salts.
        neutral: canonical SMILES of the same molecule without stereo and isotopes, and
            without the charges that hydrogens can undo: one key for the protonation
            states, stereoisomers and isotopologues of a compound.
        heavy_atoms: number of atoms that are not hydrogen.
        reason: "" or what is wrong, one of ``REASONS``.
        message: the same for a human reader.
    """

    canonical: str = ""
    neutral: str = ""
    heavy_atoms: int = 0
    reason: str = ""
    message: str = ""


def _parser(**settings: bool) -> Chem.SmilesParserParams:
    params = Chem.SmilesParserParams()
    params.parseName = params.allowCXSMILES = False
    for name, value in settings.items():
        setattr(params, name, value)
    return params


def _writer(**settings: bool) -> Chem.SmilesWriteParams:
    params = Chem.SmilesWriteParams()
    for name, value in settings.items():
        setattr(params, name, value)
    return params


# Made once, since keyword arguments take a seventh of the time of a call.
_FULL = _parser()
_NO_HYDROGENS = _parser(removeHs=False)  # looks for none: spares a copy
_RAW = _parser(sanitize=False, removeHs=False)
_CANONICAL = _writer()
_NO_STEREO = _writer(doIsomericSmiles=False)
_CHARGED = Chem.MolFromSmarts("[!+0]")
# Without stereo, the steps that prepare it change nothing but the time.
_PLAIN_STEPS = Chem.SanitizeFlags.SANITIZE_ALL & ~(
    Chem.SanitizeFlags.SANITIZE_CLEANUPATROPISOMERS
    | Chem.SanitizeFlags.SANITIZE_CLEANUPCHIRALITY
    | Chem.SanitizeFlags.SANITIZE_SETCONJUGATION
)
_HYDROGEN = re.compile(r"\[\d*H")
_REACTION = re.compile(r"(?<!-)>|>>")  # C->[Fe] is a dative bond
_WILDCARD = re.compile(r"\*|\[\d*[RXQA]\d*(?::\d+)?\]|R\d")
_QUERY = re.compile(r"[~!;&,?]|\$\(|\[#|\[[A-Z]?[DXvRr]\d")
# What the neutral form may change in a canonical SMILES, and nitro groups, which have
# charges but stay as they are.
_CHANGES = re.compile(r"[+@/\\]|-\d*\]|\[\d")
_NITRO = re.compile(r"\[N\+\]\(=O\)\[O-\]|O=\[N\+\]\(\[O-\]\)")
# Of these, what is written on atoms, which have to be gone through for it.
_ATOM_CHANGES = re.compile(r"\+|-\d*\]|\[\d")
_ISOTOPE = re.compile(r"\[\d")
_SANITIZE_REASONS = {
    Chem.SanitizeFlags.SANITIZE_PROPERTIES: "valence",
    Chem.SanitizeFlags.SANITIZE_KEKULIZE: "kekulisation",
}
# Valences of neutral atoms whose anions are taken for deprotonated acids: C N O F S Cl
# Se Br Te I; and atoms whose cations may have a proton too many: N O P S As Se Te.
_ACIDS = {6: (4,), 7: (3,), 8: (2,), 16: (2, 4, 6), 34: (2, 4, 6), 52: (2, 4, 6)}
_ACIDS |= dict.fromkeys((9, 17, 35, 53), (1,))
_BASES = frozenset((7, 8, 15, 16, 33, 34, 52))


def read_molecule(
    text: str,
    normalise: bool = True,
    max_characters: int = MAX_CHARACTERS,
    max_heavy_atoms: int = MAX_HEAVY_ATOMS,
    quiet: bool = True,
) -> Parsed:
    """A molecule from SMILES; bad text gives a reason, never an exception.

    RDKit separates the charges of hypervalent groups (N(=O)=O, N=N#N, Cl(=O)(=O)=O).

    Args:
        text: SMILES; white space around it is ignored.
        normalise: take atom-map numbers off. Salts, stereo and isotopes always stay.
        max_characters: longer text is refused unread.
        max_heavy_atoms: larger molecules are refused before their rings are sought.
        quiet: keep RDKit from writing to the terminal. False for callers that read
            many molecules and do so once for all, with ``quiet_rdkit``.
    """
    if not isinstance(text, str):
        return _refuse("not_text", f"found {type(text).__name__} instead of text")
    text = text.strip()
    if not text:
        return _refuse("empty", "the line has no SMILES")
    if len(text) > max_characters:
        found = f"{len(text)} characters; the limit is {max_characters}"
        return _refuse("too_long", found)
    if not (text.isascii() and text.isprintable()):
        return _refuse("not_text", "SMILES has printable ASCII characters only")
    if "*" in text or ">" in text or "~" in text or " " in text or "[#" in text:
        reason, message = _why_not_smiles(text)
        if reason:
            return _refuse(reason, message)
    if quiet:
        with quiet_rdkit():  # what is wrong is told in the result
            return _read(text, normalise, max_heavy_atoms)
    return _read(text, normalise, max_heavy_atoms)


def quiet_rdkit() -> contextlib.AbstractContextManager:
    """Keeps RDKit from writing to the terminal within a ``with`` block."""
    return rdBase.BlockLogs()


def _refuse(reason: str, message: str) -> Parsed:
    return Parsed(reason=reason, message=message)


def _read(text: str, normalise: bool, max_heavy_atoms: int) -> Parsed:
    try:
        return _parse(text, normalise, max_heavy_atoms)
    except (RuntimeError, ValueError) as error:
        return _refuse("chemistry", f"RDKit: {str(error).strip().splitlines()[0]}")


def _parse(text: str, normalise: bool, max_heavy_atoms: int) -> Parsed:
    full = _needs_full_reader(text)
    mol = None
    if not full or len(text) > max_heavy_atoms:
        mol = Chem.MolFromSmiles(text, _RAW)
        if mol is None:
            return _refuse(*_why_not_smiles(text, failed=True))
        heavy_atoms = mol.GetNumHeavyAtoms()
        if heavy_atoms > max_heavy_atoms:
            found = f"{heavy_atoms} heavy atoms; the limit is {max_heavy_atoms}"
            return _refuse("too_large", found)
    if full or mol is None:
        parser = _FULL if _has_hydrogen_atoms(text) else _NO_HYDROGENS
        mol = Chem.MolFromSmiles(text, parser)
        if mol is None:
            return _why_refused(text)
    elif Chem.SanitizeMol(mol, _PLAIN_STEPS, True):
        return _why_refused(text)
    if not mol.GetNumAtoms():
        return _refuse("no_atoms", "the SMILES has no atom")
    if normalise and ":" in text:
        for atom in mol.GetAtoms():
            atom.SetAtomMapNum(0)
    canonical = Chem.MolToSmiles(mol, _CANONICAL)
    return Parsed(canonical, _neutral(mol, canonical), mol.GetNumHeavyAtoms())


def _needs_full_reader(text: str) -> bool:
    """Whether a text has stereo, or hydrogens as atoms; else a faster way is open."""
    # Plain searches: one regular expression with alternatives takes much longer.
    if "@" in text or "/" in text or "\\" in text:
        return True
    return _has_hydrogen_atoms(text)


def _has_hydrogen_atoms(text: str) -> bool:
    return "[" in text and _HYDROGEN.search(text) is not None


def _why_not_smiles(text: str, failed: bool = False) -> tuple[str, str]:
    """Reason and message by the look of a text; reason "" where it may be SMILES."""
    if _REACTION.search(text):
        return "reaction", "a reaction; give its molecules one by one"
    if "*" in text or (failed and _WILDCARD.search(text)):
        return "wildcard", "an atom is left open (*, R); give a whole molecule"
    if any(mark in text for mark in ("~", "[#")) or (failed and _QUERY.search(text)):
        return "query", "SMARTS describes many molecules; give one as SMILES"
    if any(letter.isspace() for letter in text):
        return "syntax", "white space within the SMILES"
    if not failed:
        return "", ""
    for left, right in ("()", "[]"):
        if text.count(left) != text.count(right):
            found = f"{text.count(left)} {left} but {text.count(right)} {right}"
            return "syntax", found
    return "syntax", "RDKit cannot read it as SMILES"


def _why_refused(text: str) -> Parsed:
    """Why RDKit makes no molecule of a text."""
    mol = Chem.MolFromSmiles(text, _RAW)
    if mol is None:
        return _refuse(*_why_not_smiles(text, failed=True))
    problems = Chem.DetectChemistryProblems(mol)
    failure = Chem.SanitizeMol(mol, catchErrors=True)
    message = problems[0].Message() if problems else f"failed at {failure}"
    return _refuse(_SANITIZE_REASONS.get(failure, "chemistry"), f"RDKit: {message}")


def _neutral(mol: Chem.Mol, canonical: str) -> str:
    """Key of the compound; changes the molecule."""
    if "[" not in canonical and "/" not in canonical and "\\" not in canonical:
        return canonical
    if not _CHANGES.search(canonical):
        return canonical
    rest = _NITRO.sub("", canonical)
    if not _CHANGES.search(rest):
        return canonical
    if not _ATOM_CHANGES.search(rest):
        return Chem.MolToSmiles(mol, _NO_STEREO)
    # A pattern is sought in a tenth of the time that going through the atoms takes.
    charged = mol.GetSubstructMatches(_CHARGED, maxMatches=mol.GetNumAtoms())
    if charged:
        _remove_charges(mol, [mol.GetAtomWithIdx(place) for (place,) in charged])
    if _ISOTOPE.search(canonical):
        for atom in mol.GetAtoms():
            atom.SetIsotope(0)
        # Heavy hydrogen was kept as an atom, and stays one in C=N[H].
        Chem.RemoveStereochemistry(mol)
        mol = Chem.RemoveHs(mol, sanitize=False)
    mol.UpdatePropertyCache(False)
    return Chem.MolToSmiles(mol, _NO_STEREO)


def _remove_charges(mol: Chem.Mol, charged: list[Chem.Atom]) -> None:
    """Adds or takes hydrogens where that makes an atom neutral."""
    charges = {atom.GetIdx(): atom.GetFormalCharge() for atom in charged}
    pairs = [
        (atom.GetIdx(), other.GetIdx())
        for atom in charged
        if atom.GetFormalCharge() > 0
        for other in atom.GetNeighbors()
        if other.GetFormalCharge() < 0
    ]
    if pairs:
        # Opposite charges side by side (nitro groups, N-oxides, azides) hold each
        # other. Where one has the choice, the result must not depend on the order of
        # the text.
        ranks = list(
            Chem.CanonicalRankAtoms(mol, includeChirality=False, includeIsotopes=False)
        )
        for plus, minus in sorted(pairs, key=lambda p: (ranks[p[0]], ranks[p[1]])):
            if charges[plus] > 0 > charges[minus]:
                held = min(charges[plus], -charges[minus])
                charges[plus] -= held
                charges[minus] += held
    for atom in charged:
        charge = charges[atom.GetIdx()]
        number, hydrogens = atom.GetAtomicNum(), atom.GetTotalNumHs()
        if charge > 0 and number in _BASES:
            change = -min(charge, hydrogens)
        elif (
            charge < 0
            and number in _ACIDS
            and (number == 7 or not atom.GetIsAromatic())
        ):
            valence = atom.GetTotalValence() - charge
            change = -charge if valence in _ACIDS[number] else 0
        else:
            change = 0
        if change:
            atom.SetFormalCharge(atom.GetFormalCharge() + change)
            atom.SetNumExplicitHs(hydrogens + change)
            atom.SetNoImplicit(True)
