"""Writes each notebook from the .py file it is paired with: same cells, no outputs.

python colabs/pair.py
"""

import pathlib
import sys

import jupytext
import nbformat

FOLDER = pathlib.Path(__file__).parent


def scripts() -> list[pathlib.Path]:
    """The numbered .py files, each of which has a notebook of the same name."""
    return sorted(FOLDER.glob("[0-9]*.py"))


def notebook_text(script: pathlib.Path) -> str:
    """The .ipynb file that belongs to a .py file in percent format."""
    notebook = jupytext.read(script)
    for number, cell in enumerate(notebook.cells):
        # Random by default, which would change the file each time.
        cell["id"] = f"cell-{number}"
    # The formats pair the two in Jupyter; the rest is about the .py file only.
    notebook.metadata["jupytext"] = {"formats": notebook.metadata.jupytext.formats}
    return nbformat.writes(notebook) + "\n"


def stale() -> list[pathlib.Path]:
    """The .py files whose notebook is missing or says something else."""
    return [
        script
        for script in scripts()
        if not (notebook := script.with_suffix(".ipynb")).exists()
        or notebook.read_text() != notebook_text(script)
    ]


def main() -> int:
    """Writes what is stale; like any hook, fails when it changed something."""
    changed = stale()
    for script in changed:
        script.with_suffix(".ipynb").write_text(notebook_text(script))
        print(f"wrote {script.with_suffix('.ipynb').name}")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
