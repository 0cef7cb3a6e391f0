import numpy as np
import pytest

from chemscale_jax.analysis.maps.mapped_molecules import coloring_of, read_molecules
from chemscale_jax.core.errors import UserError
from tests.analysis.embedding_files import ring_smiles, ring_values, table

SMILES = ring_smiles()


@pytest.fixture
def files(tmp_path):
    """Two spaces with a failed row each, and a molecule that occurs twice."""
    smiles = [*SMILES, SMILES[3], "CCO", ""]
    values = np.concatenate([ring_values(3.0), np.zeros((3, 8))])
    values[-1] = np.nan
    table(smiles, values).save(tmp_path / "trained.npz")
    values[0] = np.nan
    table(smiles, values).save(tmp_path / "untrained.npz")
    return [tmp_path / "trained.npz", tmp_path / "untrained.npz"]


def write_input(folder, rows):
    path = folder / "mols.csv"
    path.write_text("smiles,logS,note\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_every_row_has_a_state(files):
    found = read_molecules(files)
    assert list(found.spaces) == ["trained", "untrained"]
    assert len(found.state) == 103
    assert found.state[0] == "no embedding in untrained: no SMILES"
    assert found.state[100] == "the same molecule as row 3"
    assert found.state[102] == "no embedding in trained: no SMILES"
    assert found.shown.tolist() == [*range(1, 100), 101]
    assert all(len(space) == 100 for space in found.spaces.values())
    coloring = found.coloring("scaffold")
    assert coloring.ranked() == {
        "C1CCCCC1": 25,
        "c1ccc2ccccc2c1": 25,
        "c1ccncc1": 25,
        "c1ccccc1": 24,
        "(acyclic)": 1,
    }


def test_columns_of_the_input_stand_with_their_rows(files, tmp_path):
    rows = [f"{s},{i / 7:.3f},n{i % 2}" for i, s in enumerate([*SMILES, "C", "C"])]
    rows.append("nonsense,,")
    found = read_molecules(files, columns_from=write_input(tmp_path, rows))
    numbers = found.coloring("logS").numbers
    assert numbers is not None
    np.testing.assert_allclose(numbers, found.shown / 7, atol=1e-3)
    assert found.coloring("note").ranked() == {"n1": 51, "n0": 49}
    with pytest.raises(UserError, match="no column 'logs'.*scaffold, smiles, logS"):
        found.coloring("logs")


def test_other_rows_are_refused(files, tmp_path):
    short = write_input(tmp_path, ["C,1,a"] * 5)
    with pytest.raises(UserError, match="has 5 rows and .*trained.npz has 103"):
        read_molecules(files, columns_from=short)
    table(SMILES, ring_values(1.0)).save(tmp_path / "fewer.npz")
    with pytest.raises(UserError, match="has 103 rows and .*fewer.npz has 100"):
        read_molecules([files[0], tmp_path / "fewer.npz"])
    other = [*SMILES, "CC", "CCO", ""]
    table(other, np.ones((103, 2))).save(tmp_path / "other.npz")
    with pytest.raises(UserError, match="row 100 is .* and row 100 is 'CC'"):
        read_molecules([files[0], tmp_path / "other.npz"])
    with pytest.raises(UserError, match="a name of its own"):
        read_molecules([files[0], files[0]])
    with pytest.raises(UserError, match="1 names for 2 files"):
        read_molecules(files, names=["only"])


def test_too_few_molecules_are_counted(tmp_path):
    table(["C"] * 30, np.ones((30, 2))).save(tmp_path / "same.npz")
    with pytest.raises(UserError, match="1 of 30 rows can be shown .*29 the same"):
        read_molecules([tmp_path / "same.npz"])


def test_many_molecules_are_thinned_by_seed(files):
    found = read_molecules(files, most=40)
    assert len(found.shown) == 40
    assert np.sum(found.state == "not among the 40 that are shown") == 60
    assert read_molecules(files, most=40).shown.tolist() == found.shown.tolist()
    assert read_molecules(files, most=40, seed=1).shown.tolist() != found.shown.tolist()


def test_cells_are_numbers_or_groups():
    cells = np.array([f" {x}" for x in range(20)] + ["", "<5"])
    found = coloring_of("x", cells)
    assert found.numbers is not None
    assert (found.unread, found.known.sum()) == (1, 20)
    assert coloring_of("x", np.array(["0", "1", ""] * 20)).groups is not None
    assert coloring_of("x", np.array(["nan", "inf", "1e999"] * 9)).groups is not None
    with pytest.raises(UserError, match="'x' is empty"):
        coloring_of("x", np.array(["", " "]))
