"""Every config in every form, its sweep, and how configs are found and changed."""

import itertools

import pytest
from ml_collections import ConfigDict

from chemscale_jax import __main__ as console
from chemscale_jax import main
from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError

# By path: a type checker cannot follow chemscale_jax.configs.
common = config_files.load_module(config_files.installed_folder() / "common.py")
CONFIGS = config_files.list_configs()
MODULES = {name: config_files.load_module(config_files.find(name)) for name in CONFIGS}
FORMS = [(name, form) for name, module in MODULES.items() for form in module.FORMS]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_form_builds(name, form):
    config = config_files.load(f"{name}:{form}")
    assert config.form == form
    assert config.name
    # Every run setting is there, so that nobody needs a default elsewhere. No other is,
    # so that a misspelt one does not pass for a setting.
    for section, settings in common.base().items():
        assert section in config
        if isinstance(settings, ConfigDict):
            assert set(config[section]) == set(settings), section


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_has_a_smoke_form_and_says_how_to_run_it(name):
    assert "smoke" in MODULES[name].FORMS
    assert CONFIGS[name]
    assert f"--config=configs/{name}" in (MODULES[name].__doc__ or "")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_form_is_the_default(name):
    first = MODULES[name].FORMS[0]
    assert (
        config_files.load(name).to_dict()
        == config_files.load(f"{name}:{first}").to_dict()
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_every_sweep_sets_fields_that_exist(name):
    cells = list(itertools.islice(MODULES[name].sweep(), 1000))
    assert cells
    # Of a large grid, some from all over it.
    for cell in cells[:: len(cells) // 100 + 1]:
        config = main.parse(["chemscale", *config_files.cell_arguments(name, cell)])
        for key, value in cell.items():
            if key.startswith(":"):
                continue  # checked by the parser of the config's arguments
            found = config
            for part in key.split("."):
                found = found[part]
            assert found == value


def test_a_cell_sets_arguments_and_fields():
    chosen = {":width": 16, "optimizer.lr": 1e-3}
    assert config_files.cell_arguments("a.py:smoke", chosen) == [
        "--config=a.py:smoke,width=16",
        "--config.optimizer.lr=0.001",
    ]
    assert config_files.cell_arguments("a.py", {":width": 16}) == [
        "--config=a.py:width=16"
    ]
    assert config_files.cell_arguments("a.py", {}) == ["--config=a.py"]


@pytest.mark.parametrize("form", ["embedded", "full"])
def test_arguments_reach_the_config(form):
    config = config_files.load(f"painn_ani1x.py:{form},width=16,depth=4,train_size=100")
    assert (config.model.width, config.model.depth) == (16, 4)
    assert config.data.train_size == 100
    assert config.form == form


@pytest.mark.parametrize(
    ("arguments", "wrong", "nearest"),
    [
        ("smok", "'smok'", "'smoke'"),
        ("smoke,widht=16", "'widht'", "'width'"),
        ("smoke,width=wide", "width='wide'", "int"),
    ],
)
def test_a_wrong_argument_names_what_was_meant(arguments, wrong, nearest):
    with pytest.raises(UserError) as error:
        config_files.load(f"painn_ani1x.py:{arguments}")
    assert wrong in str(error.value)
    assert nearest in str(error.value)


@pytest.mark.parametrize(
    ("flag", "wrong", "nearest"),
    [
        ("--config.optimizer.lrr=1", "lrr", "lr"),
        ("--config.optimiser.lr=1", "optimiser", "optimizer"),
        ("--config.optimizer.lr=fast", "fast", "lr"),
        ("--workdri=x", "workdri", "workdir"),
    ],
)
def test_a_misspelt_field_names_the_nearest_and_exits(flag, wrong, nearest, capsys):
    status = main.main(["chemscale", "--config=painn_ani1x.py:smoke", flag])
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert wrong in error
    assert nearest in error.replace(wrong, "")


def test_list_configs_lists_all(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["chemscale", "--list-configs"])
    assert console.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CONFIGS)
    assert all(len(line.split()) > 1 for line in lines)


@pytest.mark.parametrize(
    "name", ["configs/painn_ani1x.py", "painn_ani1x.py", "painn_ani1x"]
)
def test_configs_are_found_from_any_folder(name, tmp_path, monkeypatch):
    here = config_files.load(f"{name}:smoke").to_dict()
    monkeypatch.chdir(tmp_path)
    assert config_files.load(f"{name}:smoke").to_dict() == here


def test_a_file_of_the_user_comes_before_that_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "painn_ani1x.py").write_text(
        "from chemscale_jax.configs import common\n"
        "def get_config(arg=''):\n"
        "    config = common.base()\n"
        "    config.name = 'mine'\n"
        "    return config\n"
    )
    assert main.parse(["chemscale", "--config=painn_ani1x.py"]).name == "mine"


def test_an_unknown_config_names_those_of_the_package():
    with pytest.raises(UserError, match=r"no_such.*painn_ani1x\.py"):
        config_files.find("no_such.py")
