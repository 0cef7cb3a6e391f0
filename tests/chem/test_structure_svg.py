import re
from xml.etree import ElementTree

import pytest

from chemscale_jax.chem.structure_svg import (
    HEIGHT,
    WIDTH,
    structure_svg,
    structure_svgs,
)


def drawn(smiles):
    """Elements by kind: lines, wedges, letters with their place."""
    root = ElementTree.fromstring(f"<svg>{structure_svg(smiles)}</svg>")
    paths = {e.get("class", "lines"): e.attrib["d"] for e in root.iter("path")}
    return paths, [
        (e.text or "", int(e.attrib["x"]), int(e.attrib["y"]))
        for e in root.iter("text")
    ]


def test_every_bond_is_a_line():
    paths, letters = drawn("C1CCCCC1")
    assert paths["lines"].count("M") == 6
    assert not letters
    paths, _ = drawn("c1ccccc1")
    assert paths["lines"].count("M") == 9  # three of them double


def test_letters_are_those_of_the_atoms_and_lie_within():
    paths, letters = drawn("C[C@H](N)C(=O)Nc1ccc([N+](=O)[O-])cc1Cl")
    found = "".join(text for text, _, _ in letters)
    assert sorted(found) == sorted("NH2ONHN+OO-Cl")
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for _, x, y in letters)
    assert paths["w"].count("z") == 1  # one stereocentre
    assert 'class="s"' in structure_svg("CN")  # the number of hydrogens is small


def test_numbers_of_paths_can_be_read():
    """What is relative needs a sign or a space between numbers, and no more."""
    for path in drawn("CC(C)C1NC(=O)C(CO)OC1=O")[0].values():
        assert re.fullmatch(r"(M\d+ \d+(l-?\d+( \d+|-\d+))+z?)+", path)


@pytest.mark.parametrize("smiles", ["", "nonsense", "C1CC", "F(F)(F)F"])
def test_what_cannot_be_drawn_is_empty(smiles):
    assert structure_svg(smiles) == ""


def test_many_keep_their_order_and_are_small():
    smiles = ["CCO", "", "c1ccccc1", "[Na+].[Cl-]", "[13CH4]", "C"]
    found = structure_svgs(smiles, processes=1, progress=False)
    assert found == [structure_svg(text) for text in smiles]
    assert found[1] == ""
    aspirin = structure_svg("CC(=O)Oc1ccccc1C(=O)O")
    assert 0 < len(aspirin) < 500
