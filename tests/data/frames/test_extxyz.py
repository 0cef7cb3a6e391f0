"""Extended XYZ: names of labels, cells, charges, bad frames and bad files."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.extxyz import Keys, open_extxyz, pairs
from chemscale_jax.data.frames.source import TEST, TRAIN
from tests.data.reader_files import (
    FRAMES,
    PROPERTIES,
    WATER,
    assert_frames,
    frames,
    write_extxyz,
    xyz_text,
)

X, E, F = frames(n=4)


def _open(tmp_path, *texts, **options):
    path = tmp_path / "a.xyz"
    path.write_text("".join(texts))
    return open_extxyz(path, **options)


def _frame(comment=f"{PROPERTIES} energy=-2.0", species=WATER, columns=F[0], x=X[0]):
    return xyz_text(species, x, comment, columns)


def test_a_file_that_ase_wrote(tmp_path):
    """ASE reads energy and forces into a calculator and writes them as labels again."""
    from ase.io import read, write

    path = write_extxyz(tmp_path)["path"]
    atoms = read(path, ":")
    assert isinstance(atoms, list)
    assert "energy" not in atoms[0].info
    atoms[0].set_cell([9, 9, 9])
    write(tmp_path / "b.xyz", atoms, format="extxyz")
    assert_frames(open_extxyz(tmp_path / "b.xyz"))


def test_names_of_labels(tmp_path):
    """MACE's names come first; others are found, chosen, or asked for."""
    layout = PROPERTIES.replace("forces", "REF_forces") + ":forces:R:3"
    both = np.hstack([F[0], F[1]])
    source = _open(tmp_path, _frame(f"{layout} energy=-1 REF_energy=-2", columns=both))
    assert source[0].energy == -2.0
    np.testing.assert_allclose(source[0].forces, F[0], atol=1e-6)
    assert source.report["forces_key"] == "REF_forces"
    named = _open(
        tmp_path,
        _frame(f"{layout} energy=-1 REF_energy=-2", columns=both),
        keys=Keys("energy", "forces"),
    )
    assert named[0].energy == -1.0
    np.testing.assert_allclose(named[0].forces, F[1], atol=1e-6)
    xtb = PROPERTIES.replace("forces", "tag:I:1:forces_xtb")
    tagged = np.hstack([np.ones((3, 1)), F[0]])
    text = _frame(f"{xtb} free_energy=-3 energy_xtb=-5", columns=tagged)
    source = _open(tmp_path, text)
    assert source[0].energy == -5.0
    np.testing.assert_allclose(source[0].forces, F[0], atol=1e-6)
    with pytest.raises(
        UserError, match=r"dft_energy and energy_xtb: choose.*energy_key"
    ):
        _open(tmp_path, _frame(f"{PROPERTIES} energy_xtb=-5 dft_energy=-4"))
    plain = _frame("Properties=species:S:1:pos:R:3:f:R:3 E=-1")
    with pytest.raises(UserError, match=r"known; it has E, f, species: name them"):
        _open(tmp_path, plain)
    assert _open(tmp_path, plain, keys=Keys("E", "f"))[0].energy == -1.0


def test_a_frame_without_a_label_is_masked(tmp_path):
    """The names are settled by the first frame and do not change on the way."""
    no_forces = _frame("Properties=species:S:1:pos:R:3 energy=-2", columns=F[0][:, :0])
    other = _frame(f"{PROPERTIES} energy_xtb=-9")
    source = _open(tmp_path, no_forces, _frame(), other)
    masks = [(source[i].energy_mask, source[i].forces_mask) for i in range(3)]
    assert masks == [(True, False), (True, True), (False, True)]


def test_elements_cells_charges(tmp_path):
    """Each frame has its own species; the cell counts only where it is periodic."""
    cell = 'Lattice="9 0 0 1 8 0 0 0 7"'
    labels = f"{PROPERTIES} energy=-2"
    source = _open(
        tmp_path,
        _frame(f'{labels} {cell} pbc="T T T" charge=1 spin=2'),
        _frame(f'{labels} {cell} pbc="F F F" total_charge=-1 total_spin=2'),
        _frame(f"{labels} {cell}", species=np.array([1, 17, 8])),
        _frame(f"{labels} spin=1"),
        _frame(f'{labels} {cell} pbc="T T F"'),
        _frame(f'{labels} Lattice="1 0 0 1 0 0 0 0 1"'),
        _frame(f'{labels} pbc="T T T"'),
    )
    assert source.periodic
    assert source.group_names == ("H2O", "ClHO")
    assert source[2].species.tolist() == [1, 17, 8]
    cells = [source[i].cell for i in range(4)]
    assert [c is None for c in cells] == [False, True, False, True]
    np.testing.assert_array_equal(cells[0], [[9, 0, 0], [1, 8, 0], [0, 0, 7]])
    # 9 electrons and a doublet; 11 and a doublet; 10 and a singlet, as a multiplicity.
    assert [(r.charge, r.spin) for r in (source[0], source[1], source[3])] == [
        (1, 1),
        (-1, 1),
        (0, 0),
    ]
    assert source.report["skipped"] == {
        "a cell that is periodic along some axes only": 1,
        "a Lattice that spans no volume": 1,
        "pbc without a Lattice": 1,
    }


def test_isolated_atoms_are_set_apart(tmp_path):
    atom = xyz_text(
        [8],
        X[0][:1],
        "config_type=IsolatedAtom Properties=species:S:1:pos:R:3 energy=-7",
    )
    source = _open(tmp_path, atom, _frame())
    assert len(source) == 1
    assert source.report["isolated_atoms_ev"] == {"O": -7.0}


def test_bad_frames_are_left_out(tmp_path):
    lines = _frame().splitlines(keepends=True)
    short = "".join([*lines[:3], "H 1.0 2.0\n", lines[4]])
    word = "".join([*lines[:3], lines[3].replace("H ", "H x"), lines[4]])
    source = _open(
        tmp_path,
        _frame(),
        short,
        word,
        _frame().replace("H ", "Qq "),
        _frame().replace("-2.0", "nan"),
        _frame().replace("-2.0", "low"),
        _frame(f"{PROPERTIES}:x:R energy=1"),
        "0\nenergy=1.0\n",
        _frame().replace("O ", "o "),
    )
    assert [source.record_id(i) for i in range(2)] == ["H2O/0", "H2O/8"]
    assert source.report["rows"] == 9
    assert source.report["nan_rows"] == 1
    examples = source.report["skipped_examples"]
    assert examples["too few columns for an atom"] == ["a.xyz, line 6"]
    assert examples["no number in column pos"] == ["a.xyz, line 11"]
    assert examples["unknown element"] == ["a.xyz, line 16"]
    assert examples["no number under energy"] == ["a.xyz, line 26"]
    assert examples["Properties that cannot be read"] == ["a.xyz, line 31"]
    assert examples["no atoms"] == ["empty/7"]


def test_a_number_that_may_be_cut_is_not_used(tmp_path):
    text = _frame() + _frame()
    source = _open(tmp_path, text[:-5])
    assert len(source) == 1
    (reason,) = source.report["skipped"]
    assert reason == "a last line that does not end, so it may be cut"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "3\nenergy=1\nO 0 0 0\nH 0 0 1\n",
            r"a\.xyz, line 5.*frame 0, which has 2 of 3",
        ),
        ("3\n", r"line \d: the file ends within frame 0, which has 0 of 3"),
        (
            _frame() + "oops\n",
            r"a\.xyz, line 6: found 'oops'.*number of atoms of frame 1",
        ),
        (_frame().replace("3\n", "2\n", 1), "line 5: found 'H"),
        ("-1\n\n", "found '-1'"),
        ("\n\n", "neither energies nor forces"),
    ],
)
def test_files_of_another_kind(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        _open(tmp_path, text)


def test_a_test_file(tmp_path):
    write_extxyz(tmp_path)
    write_extxyz(tmp_path, "b.xyz")
    source = open_extxyz(tmp_path / "water.xyz", tmp_path / "b.xyz")
    assert source.given_split is not None
    assert source.given_split.tolist() == [TRAIN] * FRAMES + [TEST] * FRAMES
    assert source.record_id(FRAMES) == f"H2O/{FRAMES}"
    assert_frames(source, first=FRAMES)


def test_pairs_of_a_comment():
    comment = (
        """Lattice="1 0 0" pbc={T F} name='a b' flag e=-1.5 "odd key"=2 j=[1, 2]"""
    )
    assert pairs(comment) == {
        "Lattice": "1 0 0",
        "pbc": "T F",
        "name": "a b",
        "flag": "T",
        "e": "-1.5",
        "odd key": "2",
        "j": "1, 2",
    }
