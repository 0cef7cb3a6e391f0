"""Every mistake a user can make gives one clear line and a non-zero exit."""

import h5py
import numpy as np
import pytest

from chemscale_jax import main as trainer
from chemscale_jax.chem.units import BOHR_ANG, HARTREE_EV, KCAL_PER_MOL_EV
from chemscale_jax.core.workdir import Workdir
from tests.data.methanol import SPECIES, frames

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
        (
            [],
            "configs/prompting.py:smoke",
            "only causal_lm, conformer_denoising, force_field, property_regression are",
        ),
        (["stray"], None, "cannot read argument 'stray'"),
        (["--config.model.name=pain"], None, "'pain'"),
        (["--config.model.cutoff_ang=-1.0"], None, "cutoff"),
        (["--config.loss.form=vector"], None, "'vector', expected ('component'"),
        (["--config.loss.power=l3"], None, "'l3', expected ('l1', 'l2'"),
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


def write_methanol(path, length=1.0, energy=1.0, force=1.0, count=60, extra=None):
    """Frames in the ANI-1x layout, npz of MD17 or extxyz, with scaled arrays."""
    x, e, f = frames(count)
    x, e, f = x * length, e * energy, f * force
    if path.suffix == ".npz":
        e, f = e / KCAL_PER_MOL_EV, f / KCAL_PER_MOL_EV
        np.savez(path, z=SPECIES, R=x, E=e[:, None], F=f)
    elif path.suffix == ".xyz":
        symbols = ["C", "O", "H", "H", "H", "H"]
        with path.open("w") as file:
            for i in range(count):
                file.write(
                    f"6\nProperties=species:S:1:pos:R:3:forces:R:3 energy={e[i]}\n"
                )
                for symbol, row in zip(symbols, np.hstack([x[i], f[i]]), strict=True):
                    file.write(symbol + " ".join(f" {v:.8f}" for v in row) + "\n")
    else:
        with h5py.File(path, "w") as file:
            file["C1H4O1/atomic_numbers"] = SPECIES.astype(np.uint8)
            file["C1H4O1/coordinates"] = x.astype(np.float32)
            file["C1H4O1/wb97x_dz.energy"] = e / HARTREE_EV
            file["C1H4O1/wb97x_dz.forces"] = (f / HARTREE_EV).astype(np.float32)
            for name, values in (extra or {}).items():
                file[name] = values
    return path


SOURCES = {".h5": "ani1x", ".npz": "md17", ".xyz": "extxyz"}


@pytest.mark.parametrize("suffix", SOURCES)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"force": -1}, "the sign is that of gradients"),
        ({"force": BOHR_ANG}, "forces per bohr were taken for forces per angstrom"),
        ({"length": 1 / BOHR_ANG}, "positions in bohr were taken for angstrom"),
        ({"energy": 1 / KCAL_PER_MOL_EV}, "energies in kcal/mol were taken for eV"),
    ],
)
def test_wrong_signs_and_units_are_refused(refused, tmp_path, suffix, fault, message):
    path = write_methanol(tmp_path / f"wrong{suffix}", **fault)
    line = refused(
        f"--config.data.path={path}", f"--config.data.source={SOURCES[suffix]}"
    )
    assert message in line
    assert path.name in line


@pytest.mark.parametrize("suffix", SOURCES)
def test_files_cut_short(refused, tmp_path, suffix):
    path = write_methanol(tmp_path / f"torn{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(0.6 * len(content))])
    line = refused(
        f"--config.data.path={path}", f"--config.data.source={SOURCES[suffix]}"
    )
    assert path.name in line


def test_molecules_without_atoms_are_not_trained_on(refused, tmp_path):
    hollow = {
        "species": (),
        "coordinates": np.zeros((5, 0, 3), np.float32),
        "wb97x_dz.energy": np.zeros(5),
        "wb97x_dz.forces": np.zeros((5, 0, 3), np.float32),
    }
    path = write_h5(tmp_path / "hollow.h5", **hollow)
    assert "H2O1" in refused(f"--config.data.path={path}")
    text = tmp_path / "hollow.xyz"
    text.write_text("0\nProperties=species:S:1:pos:R:3:forces:R:3 energy=0.0\n")
    assert "hollow.xyz" in refused(
        f"--config.data.path={text}", "--config.data.source=extxyz"
    )


def test_bad_frames_among_good_ones_are_counted(tmp_path, capsys, monkeypatch):
    """NaN labels, an unknown element, a hollow group, mixed elements, duplicates."""
    monkeypatch.setenv("CHEMSCALE_CACHE", str(tmp_path / "cache"))
    x, e, f = frames(66)
    e[60:63] = np.nan
    f[63:66] = np.nan
    water = np.tile(WATER, (10, 1, 1)) + 0.1 * np.arange(10)[:, None, None]
    extra: dict[str, tuple] = {"nan": (SPECIES, x[60:], e[60:], f[60:])}
    extra["unknown"] = ([6, 200, 1, 1, 1, 1], x[:4], e[:4], f[:4])
    extra["hollow"] = ([], np.zeros((2, 0, 3)), np.zeros(2), np.zeros((2, 0, 3)))
    # Ten shifted copies of one frame, of other elements.
    extra["water"] = ([8, 1, 1], water, np.full(10, -2080.0), np.zeros((10, 3, 3)))
    datasets = {}
    for name, (z, positions, energies, forces) in extra.items():
        datasets[f"{name}/atomic_numbers"] = np.array(z, np.uint8)
        datasets[f"{name}/coordinates"] = np.asarray(positions, np.float32)
        datasets[f"{name}/wb97x_dz.energy"] = energies / HARTREE_EV
        datasets[f"{name}/wb97x_dz.forces"] = (forces / HARTREE_EV).astype(np.float32)
    path = write_methanol(tmp_path / "mixed.h5", extra=datasets)
    status = trainer.main(
        [
            "main",
            f"--config={CONFIG}:smoke,width=4,depth=1",
            "--config.mesh.data=1",
            "--config.train.rows_at_once=8",
            f"--workdir={tmp_path / 'run'}",
            f"--config.data.path={path}",
            "--config.data.valid_size=35",
            "--config.train.max_steps=1",
        ]
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    facts = Workdir(tmp_path / "run").artifacts()
    assert facts["source"]["used"] == 70
    assert facts["source"]["nan_rows"] == 6
    assert facts["source"]["skipped"]["unknown element"] == 6
    assert facts["label_check"]["outcome"] == "agrees"
    repeated = facts["duplicates"]["in_train"]["valid"]
    assert repeated + facts["duplicates"]["within_train"] == 9
    assert f"duplicates of training frames: {repeated} of valid" in printed.out
    assert "6 rows with NaN and 12 bad ones left out" in printed.out
    assert "labels agree" in printed.out
    card = (tmp_path / "run" / "card.md").read_text()
    assert "label_check.outcome" in card
    assert "duplicates.in_train.valid" in card
