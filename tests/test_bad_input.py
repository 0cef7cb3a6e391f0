"""Every mistake a user can make gives one clear line and a non-zero exit."""

import h5py
import numpy as np
import pytest

from chemscale_jax import main as trainer

CONFIG = "configs/painn_ani1x.py"
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def write_h5(
    path, species=(8, 1, 1), frames=40, edit=lambda coordinates: None, **extra
):
    rng = np.random.default_rng(0)
    coordinates = (WATER + 0.02 * rng.normal(size=(frames, 3, 3))).astype(np.float32)
    edit(coordinates)
    datasets = {
        "atomic_numbers": np.array(species, np.uint8),
        "coordinates": coordinates,
        "wb97x_dz.energy": np.full(frames, -76.4),
        "wb97x_dz.forces": 0.01 * rng.normal(size=(frames, 3, 3)).astype(np.float32),
        **extra,
    }
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            if values is not None:
                file[f"H2O1/{name}"] = values
    return path


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Runs the trainer, expects exit status 2 and returns the one line it printed."""
    monkeypatch.setenv("CHEMSCALE_CACHE", str(tmp_path / "cache"))

    def run(*arguments, config=f"{CONFIG}:smoke", workdir=None):
        folder = workdir or tmp_path / "run"
        flags = [f"--config={config}"] if config else []
        status = trainer.main(["main", *flags, f"--workdir={folder}", *arguments])
        lines = [x for x in capsys.readouterr().err.splitlines() if "WARNING" not in x]
        assert status == 2
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        # A run that could not start leaves nothing that a later one would trip over.
        assert workdir or not (folder / "config.json").exists()
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "config", "message"),
    [
        ([], "", "found it 0 times"),
        ([], "configs/absent.py", "no config configs/absent.py; the package has"),
        ([], f"{CONFIG}:smok", "'smok' is not a form; did you mean 'smoke'?"),
        ([], f"{CONFIG}:smoke,widht=8", "key 'widht'; did you mean 'width'?"),
        ([], f"{CONFIG}:smoke,width=big", "width='big' is not a int"),
        (["--config.optimizer.lrr=1"], None, "lr"),
        (["--config.optimizer.lr=fast"], None, "lr"),
        (["--confi.seed=1"], None, "confi"),
        (["stray"], None, "cannot read argument 'stray'"),
        (["--config.model.name=pain"], None, "'pain'"),
        (["--config.model.cutoff_ang=-1.0"], None, "cutoff"),
        (["--config.loss.form=vector"], None, "'vector', expected ('component'"),
        (["--config.loss.power=l3"], None, "'l3', expected ('l1', 'l2')"),
        (["--config.loss.alpha_force=-1.0"], None, "both must be >= 0"),
        (["--config.optimizer.name=sgd"], None, "expected one of ('adam'"),
        (["--config.optimizer.schedule=step"], None, "expected one of ('constant'"),
        (["--config.mesh.data=64"], None, "needs 64 devices, found 8"),
        (["--config.batch.rows=6"], None, "multiple of 8"),
        (["--config.batch.molecules=0"], None, "a row needs at least 1"),
        (["--config.batch.nodes=4"], None, "config.batch"),
        (["--config.data.source=embeded"], None, "did you mean 'embedded'?"),
        (["--config.data.path=absent.h5"], None, "absent.h5"),
        (["--config.data.train_size=100000000"], None, "train_size"),
        (["--config.data.valid_size=100000000"], None, "leave none to train on"),
        (["--config.data.energy_unit=hartre"], None, "hartree"),
        (["--config.data.heldout=7"], None, "heldout"),
        (["--config.init_from=absent.npz"], None, "neither a workdir nor an .npz"),
        (["--config.log.writers=('paper',)"], None, "'paper', expected some of"),
    ],
)
def test_mistakes_on_the_command_line(refused, arguments, config, message):
    chosen = f"{CONFIG}:smoke" if config is None else config
    assert message in refused(*arguments, config=chosen)


def nan(coordinates):
    coordinates[:] = np.nan


def collapse(coordinates):
    coordinates[:, 1] = coordinates[:, 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"edit": nan}, "H2O1"),
        ({"edit": collapse}, "H2O1"),
        ({"species": (8, 1, 200)}, "H2O1"),
        ({"wb97x_dz.forces": None}, "force"),
        ({"coordinates": None}, "coordinates"),
        ({"frames": 1}, "leave none to train on"),
    ],
)
def test_files_nothing_can_be_trained_on(refused, tmp_path, fields, message):
    path = write_h5(tmp_path / "bad.h5", **fields)
    assert message in refused(f"--config.data.path={path}")


def test_files_that_are_not_whole(refused, tmp_path):
    path = write_h5(tmp_path / "whole.h5")
    content = path.read_bytes()
    torn, text = tmp_path / "torn.h5", tmp_path / "text.h5"
    torn.write_bytes(content[: len(content) // 2])
    text.write_text("not HDF5")
    assert "torn.h5" in refused(f"--config.data.path={torn}")
    assert "text.h5" in refused(f"--config.data.path={text}")


def test_labels_that_are_not_in_the_file(refused, tmp_path):
    path = write_h5(tmp_path / "water.h5")
    line = refused(f"--config.data.path={path}", "--config.data.labels=wb97x_tz")
    assert "wb97x_tz" in line
    assert "wb97x_dz" in line


def test_workdirs_that_cannot_be_used(refused, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(workdir=tmp_path / "file" / "run")
    assert "cannot be written" in line
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"name": "something else"}')
    assert "holds a run of another config" in refused(workdir=other)
    assert (other / "config.json").read_text() == '{"name": "something else"}'
