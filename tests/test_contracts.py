"""Rules on who may import what, and what the trainer may know."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from chemscale_jax.models import ENERGY_MODELS

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "chemscale_jax"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
# Rooms and single modules at the top of the package; configs/ lies elsewhere.
ROOMS = {
    *(path.parent.name for path in PACKAGE.glob("*/__init__.py")),
    *(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"),
}
# Where each library may be imported, as STYLE says; nobody may import torch.
ALLOWED = {
    "flax": {"models"},
    "jax": ROOMS - {"chem", "analysis"},
    "rdkit": {"chem"},
    "tensorflow_datasets": {"data"},
    "torch": set(),
}
ARCHITECTURES = {
    *ENERGY_MODELS,
    "painn",
    "schnet",
    "allegro",
    "spooky",
    "unimol",
    "gpt",
}


def sources(*folders: str) -> list[pathlib.Path]:
    return [
        path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def imported(path: pathlib.Path) -> set[str]:
    """Top-level names of everything that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_import_contracts_hold():
    # In a process of its own, because it goes on writing to the output it found.
    program = "import sys; from importlinter import cli; sys.exit(cli.lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", ALLOWED)
def test_contracts_name_every_room(library):
    """A room that is added must be added to the contracts, which list rooms."""
    (contract,) = [
        contract
        for contract in CONTRACTS["contracts"]
        if library in contract.get("forbidden_modules", ())
        and contract["forbidden_modules"][0] == library
    ]
    named = {
        name.removeprefix("chemscale_jax").strip(".")
        for name in contract["source_modules"]
    }
    if named != {""}:
        assert named | {"__main__"} == ROOMS - ALLOWED[library] | {"__main__"}


def test_the_trainer_names_no_architecture():
    for path in sources("chemscale_jax/training"):
        words = re.findall(r"[a-z0-9]+", path.read_text().lower())
        found = {
            word for word in words for name in ARCHITECTURES if word.startswith(name)
        }
        assert not found, f"{path.name} names {found}; see the task contract"


def test_torch_is_imported_nowhere():
    for path in sources("chemscale_jax", "configs", "launch", "colabs", "tests"):
        assert "torch" not in imported(path), path


def test_rooms_are_imported_by_full_name():
    for path in sources("chemscale_jax"):
        relative = [
            node.lineno
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.level
        ]
        assert not relative, f"{path} has relative imports on lines {relative}"
