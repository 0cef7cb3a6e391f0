"""The filters of MOSES: which molecules medicinal chemists would not look at.

A molecule passes (Polykovskiy et al. 2020, section 3; ``mol_passes_filters`` of their
program) if it can be read, has no formal charge on any atom, no element but C, N, S, O,
F, Cl, Br and H, no ring of eight or more atoms, none of the unwanted groups of the
medicinal-chemistry filters (MCF) nor of the pan-assay interference compounds (PAINS),
and if its SMILES without stereo can be read again.

MCF come from the official file where the user has it. Otherwise they are those of
medicinal_rules.csv, our own wording of what the official ones exclude; three of those
(furans, thiophenes, anilines in Kekule form) match no molecule that RDKit made aromatic
and have no counterpart here. PAINS are RDKit's catalogue, or the official file.
RDKit has since mended some patterns, so that they find more or less than those of
MOSES, and reject molecules of MOSES itself; these are put back to what MOSES means.
"""

import collections
import csv
import functools
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rdkit import Chem
from rdkit.Chem.FilterCatalog import (
    FilterCatalog,
    FilterCatalogEntry,
    FilterCatalogParams,
    SmartsMatcher,
)
from rdkit.Chem.MolStandardize import rdMolStandardize
from rdkit.rdBase import BlockLogs

from chemscale_jax.chem.worker_map import ordered_map
from chemscale_jax.core.errors import UserError

OWN_MCF = pathlib.Path(__file__).with_name("medicinal_rules.csv")
ELEMENTS = frozenset(("C", "N", "S", "O", "F", "Cl", "Br", "H"))
LARGEST_RING = 7
# In the order in which they are tried: cheap ones first.
RULES = ("unreadable", "charge", "element", "ring", "mcf", "pains", "reread")
# Patterns of RDKit's catalogue that are not those of MOSES, with ours in their place;
# "" where the pattern of MOSES finds nothing: one asks for Kekule bonds in a ring that
# RDKit makes aromatic, one closes a ring by a slip. Of the others MOSES means quinones
# that are not aromatic, any nitrogen at the benzyl carbon, and any substituents beside
# and opposite the nitrogen of phenothiazine.
_PAINS_OF_MOSES = {
    "thiaz_ene_A(128)": "",
    "anil_OC_alk_B(3)": "",
    "quinone_A(370)": "[!#6;!#1]=C1-[#6]=,:[#6]-C(=[!#6;!#1])-[#6]=,:[#6]-1",
    "anil_di_alk_D(198)": "[CX4]N([CX4])c1ccc(cc1)[CX4]-[$([O;!H0]),$(C=[C;!H0]),#7]",
    "het_thio_666_A(13)": "[cH]1[cH][cH][cH]c2c1[$([N;!H0]),$(N[CH3]),"
    "$(N[C;!H0;!H1][#6;!H0])]c1cc[$([cH]),$(c[NH2]),$(cO[CX4])][cH]c1S2",
}


class Reason(NamedTuple):
    """Why a molecule does not pass."""

    rule: str  # of RULES
    detail: str  # what was found: an element, a ring size, the name of a pattern

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


# What makes a molecule fail; none where it passes.
Verdict = tuple[Reason, ...]


class Pattern(NamedTuple):
    """An unwanted group."""

    name: str
    smarts: str
    at_least: int = 1  # so many of them in one molecule


class FilterOptions(NamedTuple):
    """Where patterns come from, and how molecules are judged.

    Attributes:
        mcf: CSV file of MCF with columns names and smarts; default our own.
        pains: CSV file of PAINS, as mcf or without header: SMARTS, name; default
            RDKit's catalogue.
        every: give every reason, not only the first.
    """

    mcf: str | pathlib.Path | None = None
    pains: str | pathlib.Path | None = None
    every: bool = False


DEFAULTS = FilterOptions()


class MedicinalFilters:
    """The rules with their patterns, ready to judge molecules."""

    def __init__(self, options: FilterOptions = DEFAULTS) -> None:
        self.every = options.every
        # Official patterns speak of hydrogens as atoms; ours and RDKit's do not, and
        # find the same without them in less time.
        self._mcf = _catalog(read_patterns(options.mcf or OWN_MCF))
        self._mcf_on_hydrogens = options.mcf is not None
        self._pains_on_hydrogens = options.pains is not None
        self._pains = (
            _pains_of_rdkit()
            if options.pains is None
            else _catalog(read_patterns(options.pains))
        )

    def judge(self, mol: Chem.Mol | None) -> Verdict:
        """Why a molecule does not pass; ends at the first reason, unless ``every``."""
        if mol is None:
            return (Reason("unreadable", "no molecule"),)
        if not mol.GetNumAtoms():
            return (Reason("unreadable", "empty"),)
        found: list[Reason] = []
        for rule in (_charges, _elements, _rings, self.groups, _reread):
            found += rule(mol)
            if found and not self.every:
                break
        return tuple(found if self.every else found[:1])

    def judge_smiles(self, smiles: str | None, neutral: bool = False) -> Verdict:
        """As `judge`; ``neutral`` takes charges away first where that can be done."""
        with BlockLogs():
            mol = Chem.MolFromSmiles(smiles) if smiles else None
            if mol is None:
                detail = "not a SMILES" if smiles else "empty"
                return (Reason("unreadable", detail),)
            return self.judge(neutralised(mol) if neutral else mol)

    def groups(self, mol: Chem.Mol) -> list[Reason]:
        """Its unwanted groups; PAINS only where it has no MCF, unless ``every``."""
        found = self.mcf_of(mol)
        if not found or self.every:
            found += self.pains_of(mol)
        return found

    def count_groups(self, mol: Chem.Mol) -> tuple[int, int]:
        """How many MCF and how many PAINS patterns a molecule has."""
        return len(self.mcf_of(mol)), len(self.pains_of(mol))

    def mcf_of(self, mol: Chem.Mol) -> list[Reason]:
        """The MCF that a molecule has."""
        target = Chem.AddHs(mol) if self._mcf_on_hydrogens else mol
        return _matches("mcf", self._mcf, target)

    def pains_of(self, mol: Chem.Mol) -> list[Reason]:
        """The PAINS that a molecule has."""
        target = Chem.AddHs(mol) if self._pains_on_hydrogens else mol
        return _matches("pains", self._pains, target)


def read_patterns(path: str | pathlib.Path) -> list[Pattern]:
    """Patterns of a CSV file: names and smarts, or without header SMARTS and name.

    Raises:
        UserError: there is no such file, a SMARTS cannot be read, or there is none.
    """
    path = pathlib.Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or "it is not a CSV file"
        raise UserError(
            f"patterns {path} cannot be read ({why}): give a CSV file with columns "
            "names and smarts"
        ) from None
    header = rows[0] if rows else []
    if {"names", "smarts"} <= set(header):
        records = [dict(zip(header, row, strict=False)) for row in rows[1:]]
        lines = [
            (r.get("names", ""), r.get("smarts", ""), r.get("at_least", "1"))
            for r in records
        ]
    else:
        lines = [(row[1] if len(row) > 1 else "", row[0], "1") for row in rows]
    patterns = []
    with BlockLogs():
        for line, (name, smarts, at_least) in enumerate(lines, start=1):
            if not smarts or Chem.MolFromSmarts(smarts) is None:
                raise UserError(
                    f"pattern {line} of {path}, {smarts[:60]!r}, is not a SMARTS: "
                    "give a CSV file with columns names and smarts"
                )
            name = name.removeprefix("<regId=").removesuffix(">") or f"pattern {line}"
            patterns.append(Pattern(name, smarts, int(at_least)))
    if not patterns:
        raise UserError(f"{path} holds no pattern: give names and smarts")
    return patterns


def neutralised(mol: Chem.Mol) -> Chem.Mol:
    """The molecule without the charges that hydrogens can take away.

    Groups that are written with charges, such as nitro, keep them, and so do
    quaternary nitrogens.
    """
    with BlockLogs():
        return rdMolStandardize.Uncharger().uncharge(mol)


def judge_all(
    smiles: Sequence[str | None],
    options: FilterOptions = DEFAULTS,
    *,
    neutral: bool = False,
    processes: int | None = None,
    progress: bool = True,
) -> list[Verdict]:
    """The verdict on each molecule, in the order given.

    Args:
        smiles: the molecules; None or "" where there is none.
        options: patterns, and whether all reasons are wanted.
        neutral: take charges away first where that can be done.
        processes: default all that may be used.
        progress: whether to show a bar.
    """
    # Wrong files are complained about here, not in a worker.
    filters_of(options)
    function = functools.partial(_judge_some, options=options, neutral=neutral)
    return list(
        ordered_map(
            function, smiles, processes=processes, label="filters", progress=progress
        )
    )


@functools.lru_cache(maxsize=4)
def filters_of(options: FilterOptions) -> MedicinalFilters:
    """The filters of these options, made once."""
    return MedicinalFilters(options)


def shares(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Share of molecules that fail by each rule; "pass" is the share that passes.

    A molecule counts once for each rule among its reasons, so shares add up to 1 where
    verdicts end at the first reason.
    """
    verdicts = list(verdicts)
    counts = collections.Counter(
        rule for verdict in verdicts for rule in {reason.rule for reason in verdict}
    )
    counts["pass"] = sum(not verdict for verdict in verdicts)
    total = max(1, len(verdicts))
    return {rule: counts[rule] / total for rule in ("pass", *RULES)}


def _judge_some(
    smiles: Sequence[str | None], options: FilterOptions, neutral: bool
) -> list[Verdict]:
    filters = filters_of(options)
    return [filters.judge_smiles(one, neutral) for one in smiles]


def _pains_of_rdkit() -> FilterCatalog:
    """RDKit's catalogue of PAINS, as MOSES means them."""
    params = FilterCatalogParams()
    params.AddCatalog(FilterCatalogParams.FilterCatalogs.PAINS)
    shipped = FilterCatalog(params)
    catalog = FilterCatalog()
    for i in range(shipped.GetNumEntries()):
        entry = shipped.GetEntryWithIdx(i)
        name = entry.GetDescription()
        smarts = _PAINS_OF_MOSES.get(name)
        if smarts is None:
            catalog.AddEntry(entry)
        elif smarts:
            catalog.AddEntry(FilterCatalogEntry(name, SmartsMatcher(name, smarts)))
    return catalog


def _catalog(patterns: list[Pattern]) -> FilterCatalog:
    catalog = FilterCatalog()
    for name, smarts, at_least in patterns:
        catalog.AddEntry(
            FilterCatalogEntry(name, SmartsMatcher(name, smarts, at_least))
        )
    return catalog


def _matches(rule: str, catalog: FilterCatalog, mol: Chem.Mol) -> list[Reason]:
    return [Reason(rule, m.GetDescription()) for m in catalog.GetMatches(mol)]


def _charges(mol: Chem.Mol) -> list[Reason]:
    found = {
        f"{atom.GetSymbol()}{atom.GetFormalCharge():+d}": None
        for atom in mol.GetAtoms()
        if atom.GetFormalCharge()
    }
    return [Reason("charge", name) for name in found]


def _elements(mol: Chem.Mol) -> list[Reason]:
    symbols = dict.fromkeys(atom.GetSymbol() for atom in mol.GetAtoms())
    return [Reason("element", symbol) for symbol in symbols if symbol not in ELEMENTS]


def _rings(mol: Chem.Mol) -> list[Reason]:
    sizes = {len(ring) for ring in mol.GetRingInfo().AtomRings()}
    return [
        Reason("ring", f"{size} atoms") for size in sorted(sizes) if size > LARGEST_RING
    ]


def _reread(mol: Chem.Mol) -> list[Reason]:
    """Sanitised molecules can, rarely, write SMILES that cannot be read."""
    with BlockLogs():
        again = Chem.MolFromSmiles(Chem.MolToSmiles(mol, isomericSmiles=False))
    return [] if again is not None else [Reason("reread", "not a SMILES")]
