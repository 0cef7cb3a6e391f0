"""Molecules that break programs: odd chemistry, wrong text, damaged files."""

import random

from rdkit import Chem

FIXED = (
    # Nothing, or not a molecule.
    "", " ", "*", "[*]", "C*", "[R1]CC", "C~C", "[#6]", "CC>>CO", "hello", "C1CC",
    "C(C", "[C", "nan", "C\x00C", "Cé", "�", "()", ".", "C..C", "C.", "%", "\\", "-",
    # Hydrogen only, and hydrogen in odd places.
    "[H]", "[H][H]", "[2H][2H]", "[H+]", "[H-]", "[H+].[H-]", "[3H]", "[H][H].[He]",
    "[2H]C([2H])([2H])[2H]", "[2H]OC", "[H]/N=C/C", "[H]/N=C(/[2H])C", "[H+].[Cl-]",
    "[H]1[BH2][H][BH2]1", "[Na+].[H-]", "[H]O[H]", "[H][Fe][H]", "C[H]C",
    # Noble gases, metals, clusters, and bonds of no order.
    "[He]", "[Og]", "[U+6]", "[Fe]", "[Fe+3].[Fe+3].[O-2].[O-2].[O-2]", "C->[Fe]",
    "[Fe]<-[C-]#[O+]", "N[Pt](N)(Cl)Cl", "N->[Pt@SP1](<-N)(Cl)Cl", "[Hg+][Hg+]",
    "C[Mg]Br", "[Li]CCCC", "C[Zn]C", "[Al+3].[O-2]", "Cl[Ti](Cl)(Cl)Cl", "[Cm]C",
    "[CH-]1C=CC=C1.[CH-]1C=CC=C1.[Fe+2]", "F[P@OH1](Cl)(Br)(I)(C)N",
    "S[As@TB1](F)(Cl)(Br)N", "[Au]$[Au]", "[Re]$[Re]", "O=[Os](=O)(=O)=O",
    # Charges, radicals, carbenes, valences.
    "[C]", "[CH]", "[CH2]", "[CH3]", "[O][O]", "[N]=O", "[C-4]", "[C+4]", "[Mo-6]",
    "[Mn+7]", "C(C)(C)(C)(C)C", "FS(F)(F)(F)(F)F", "FI(F)(F)(F)(F)(F)F", "[Xe](F)F",
    "[N+](C)(C)(C)(C)", "O=Cl(=O)(=O)O", "[NH4+].[NH4+].[O-]S([O-])(=O)=O", "[S-2]",
    "[P](=O)", "CN(C)(C)C", "C#C#C", "[CH9]", "C=C=C=C=C=C", "[C-]#[O+]",
    "[N-]=[N+]=[N-]",
    # Isotopes and stereo.
    "[18F]c1ccccc1", "[13CH4]", "[999C]", "C[C@H](N)C(=O)O", "C[C@](C)(C)C", "F/C=C/F",
    "CC=[C@]=CC", "C[C@@H]1CC[C@H](C)CC1", "Cc1cccc(Br)c1-c1c(C)cccc1Cl",
    "[C@@H](F)(Cl)Br",
    "C/C=C\\C=C/C", "N[C@@](F)(C)C(=O)O", "[238U]", "O[C@H]1[C@H](O)[C@@H](O)1",
    # Rings that cannot be flat, or cannot be.
    "C12C3C4C1C5C2C3C45", "C1(C2)(C3)CC(C2)(C3)C1", "C1C2CC1C2", "C1CC1=C=C1CC1",
    "C1CCC/C=C/1", "C12C3C1C23", "C1#CCC1", "c1cccc1", "c1ccc2cccc2cc1",
    "C1CC2CCC1CC2", "B12B3B4B1B5B2B3B45", "C1=CC=CC=CC=CC=C1", "c12c3c4c1c1c2c3c41",
)  # fmt: skip

PARTS = (
    "C", "CC(C)", "N", "O", "c1ccccc1", "C1CCC1", "C(=O)", "S(=O)(=O)", "[N+](C)(C)",
    "[Si](C)(C)", "C#C", "C=C", "[C@@H](F)", "P(=O)(O)", "[B-](F)(F)", "[Se]", "[CH]",
)  # fmt: skip
IONS = (
    "[Na+]", "[Cl-]", "[K+]", "[Ca+2]", "[O-]C(C)=O", "[NH4+]", "F[P-](F)(F)(F)(F)F",
    "[Zn+2]", "O", "[I-]", "[O-][Cl](=O)(=O)=O", "C[N+](C)(C)C", "[OH-]", "[Gd+3]",
)  # fmt: skip
LETTERS = "CNOFPSIBrclnos123()[]=#+-@/\\.%*"


def hostile_smiles(count: int, seed: int = 0) -> list[str]:
    """That many, the fixed ones first."""
    draw = random.Random(seed)
    makers = (_chain, _salt, _ring, _damaged, _noise, _isotopes, _large)
    weights = (6, 4, 2, 4, 2, 2, 0.1)
    texts: list[str] = [*FIXED[:count]]
    while len(texts) < count:
        texts.append(draw.choices(makers, weights)[0](draw))
    return texts


def _chain(draw: random.Random) -> str:
    return "".join(draw.choices(PARTS, k=draw.randint(1, 6)))


def _salt(draw: random.Random) -> str:
    return ".".join([_chain(draw), *draw.choices(IONS, k=draw.randint(1, 3))])


def _ring(draw: random.Random) -> str:
    """Macrocycles of up to forty links."""
    links = draw.choices(("C", "O", "N", "C=C", "C(=O)N"), k=draw.randint(3, 40))
    return "C1" + "".join(links) + "1"


def _damaged(draw: random.Random) -> str:
    text = list(_chain(draw) + _ring(draw))
    for _ in range(draw.randint(1, 3)):
        text[draw.randrange(len(text))] = draw.choice(LETTERS)
    return "".join(text)


def _noise(draw: random.Random) -> str:
    return "".join(draw.choices(LETTERS, k=draw.randint(1, 30)))


def _isotopes(draw: random.Random) -> str:
    atoms = [f"[{draw.randint(1, 300)}{a}]" for a in draw.choices("CNOSPH", k=3)]
    return "C" + "C".join(atoms) + draw.choice(("", "[2H]", "[H]"))


def _large(draw: random.Random) -> str:
    return draw.choice(("C", "CO", "N[C@@H](C)C(=O)")) * draw.randint(100, 500)


def hostile_blocks(count: int, seed: int = 0) -> list[str]:
    """Records of SD files without their last line; some are whole."""
    draw = random.Random(seed)
    blocks = ["", "\n", "\n\n\n", "title\n\n\n  0  0  0  0  0  0            999 V2000"]
    while len(blocks) < count:
        text = _block(draw)
        lines = text.split("\n")
        damage = draw.randrange(6)
        if damage == 0:
            del lines[draw.randrange(len(lines)) :]
        elif damage == 1:
            lines[draw.randrange(len(lines))] = draw.choice(("", "nan nan nan C", "\0"))
        elif damage == 2:
            del lines[draw.randrange(len(lines))]
        elif damage == 3:
            text = text.replace("C  ", draw.choice(("*  ", "R# ", "Xx ", "A  ", "L  ")))
            lines = text.split("\n")
        blocks.append("\n".join(lines[:2000]))
    return blocks[:count]


def _block(draw: random.Random) -> str:
    mol = None
    while mol is None:
        mol = Chem.MolFromSmiles(_chain(draw))
    return Chem.MolToMolBlock(mol, kekulize=False)


def hostile_atoms(count: int, seed: int = 0) -> dict[str, list]:
    """Atoms and coordinates that rarely make a molecule."""
    draw = random.Random(seed)
    symbols: list = [[], ["H"], ["H", "H"], ["X"], ["C", None], [6, "8"], ["C"], ["C"]]
    coordinates: list = [
        [], [[0, 0, 0]], [[0, 0, 0], [0, 0, 0.7]], [[0, 0, 0]], [[0, 0, 0]] * 2,
        [[0, 0, 0], [1.2, 0, 0]], [[float("nan"), 0, 0]], [[1e30, 0, 0]],
    ]  # fmt: skip
    while len(symbols) < count:
        atoms = draw.randint(1, 30) if draw.random() > 0.01 else 600
        box = draw.choice((0.0, 1.0, 2.0, 5.0, 500.0))
        found = [[draw.uniform(-box, box) for _ in range(3)] for _ in range(atoms)]
        symbols.append(draw.choices(("C", "H", "N", "O", "Fe", "h", "D", 17), k=atoms))
        coordinates.append(found if draw.random() > 0.1 else found[1:])
    return {"atoms": symbols[:count], "coordinates": coordinates[:count]}
