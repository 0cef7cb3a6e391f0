"""The ``chemscale`` command, also ``python -m chemscale_jax``."""

import difflib
import sys

import chemscale_jax
from chemscale_jax.commands import COMMANDS, load
from chemscale_jax.core.errors import UserError


def usage() -> str:
    """The list of commands."""
    lines = [
        f"chemscale {chemscale_jax.__version__}: train chemical models at many scales",
        "",
        "usage: chemscale COMMAND [ARGUMENTS]",
        "       chemscale COMMAND --help",
        "       chemscale --list-configs",
        "",
        *(f"  {name:<12} {text}" for name, text in COMMANDS.items()),
        "",
        "example: chemscale train --config=configs/painn_ani1x.py:smoke",
    ]
    return "\n".join(lines)


def main() -> int:
    """Runs one command; a user's mistake gives one line and exit status 2."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        print(chemscale_jax.__version__)
        return 0
    if name == "--list-configs":
        name, rest = "train", ["--list-configs"]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see chemscale --help"
        print(f"error: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    try:
        command = load(name)
        return command.main(rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
