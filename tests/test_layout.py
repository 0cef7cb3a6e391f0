"""Rules on files: where they are, what they are called, how long they are."""

import ast
import importlib
import pathlib
import pkgutil

import chemscale_jax

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = (
    "chemscale_jax",
    "configs",
    "launch",
    "colabs",
    "docs",
    "benchmarks",
    "tests",
)
FILES = [
    *ROOT.glob("*.py"),
    *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")),
]
MOST_LINES = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}


def test_files_hold_one_idea_each():
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in FILES
    }
    long = {name: number for name, number in lines.items() if number > MOST_LINES}
    assert not long, f"over {MOST_LINES} lines, cut by idea: {long}"


def test_no_file_has_a_vague_name():
    vague = {path for path in FILES if path.stem in VAGUE or path.parent.name in VAGUE}
    assert vague == {ROOT / "configs" / "common.py"}


def test_every_room_is_installed():
    setup = ast.parse((ROOT / "setup.py").read_text())
    (rooms,) = [
        ast.literal_eval(node.value)
        for node in setup.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS"
    ]
    package = ROOT / "chemscale_jax"
    folders = {path.parent for path in package.glob("*/**/*.py")}
    assert {package.joinpath(*room.split(".")) for room in rooms} == folders
    for folder in folders:
        assert (folder / "__init__.py").exists(), folder


def test_every_module_can_be_imported():
    names = [
        module.name
        for module in pkgutil.walk_packages(chemscale_jax.__path__, "chemscale_jax.")
        if module.name != "chemscale_jax.__main__"
    ]
    assert "chemscale_jax.training.loop" in names
    for name in names:
        importlib.import_module(name)


def test_every_command_has_its_file():
    from chemscale_jax.commands import COMMANDS, load

    files = {path.stem for path in ROOT.glob("chemscale_jax/commands/*.py")}
    found = {load(name).__name__.rpartition(".")[2] for name in COMMANDS}
    assert found == files - {"__init__"}


def test_tests_lie_where_pytest_finds_them():
    for path in (ROOT / "tests").rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), path.parent
        defines = "\ndef test_" in path.read_text()
        assert defines == path.name.startswith("test_") or not defines, path
