"""Writes docs/commands.md from the --help of every command.

python docs/make_commands.py
"""

import contextlib
import importlib
import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from unittest import mock

from chemscale_jax import __main__ as console
from chemscale_jax import main as trainer
from chemscale_jax.commands import COMMANDS, load

ROOT = pathlib.Path(__file__).parent.parent
TARGET = ROOT / "docs" / "commands.md"
LAUNCHERS = ("local", "slurm", "xm_launch")

INTRODUCTION = """\
# Commands

Made from the `--help` of each command by `python docs/make_commands.py`.

`chemscale COMMAND` is the same as `python -m chemscale_jax COMMAND`. A mistake in the
arguments, the config or the data gives one line that begins with `error:` and exit
status 2.
"""


def helps() -> Iterator[tuple[str, str]]:
    """Command -> what its --help prints."""
    yield "chemscale", printed(console.main, None)
    for name in COMMANDS:
        if name == "train":
            # The same program under a shorter name.
            yield "python -m chemscale_jax.main", printed(trainer.main)
            continue
        command = load(name)
        yield f"chemscale {name}", printed(command.main)
    # launch/ is no package: its files are run from a checkout.
    sys.path.insert(0, str(ROOT))
    launchers = [importlib.import_module(f"launch.{name}") for name in LAUNCHERS]
    sys.path.remove(str(ROOT))
    for name, launcher in zip(LAUNCHERS, launchers, strict=True):
        yield f"python launch/{name}.py", printed(launcher.main)


def printed(
    command: Callable[..., int], argv: tuple[str, ...] | None = ("--help",)
) -> str:
    """What a command prints; with None it reads sys.argv by itself."""
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        # argparse folds lines to the width of the terminal.
        mock.patch.dict(os.environ, {"COLUMNS": "80"}),
        mock.patch("sys.argv", ["chemscale", "--help"]),
        contextlib.suppress(SystemExit),
    ):
        command() if argv is None else command(list(argv))
    return out.getvalue().strip()


def text() -> str:
    """The whole page."""
    sections = [f"## {name}\n\n```text\n{help}\n```\n" for name, help in helps()]
    return "\n".join([INTRODUCTION, *sections])


if __name__ == "__main__":
    TARGET.write_text(text())
