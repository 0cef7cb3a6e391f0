"""The grammar of config arguments: what follows the colon in ``--config=FILE:...``."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chemscale_jax.core.errors import UserError


def one_of(key: str, value: str, known: Iterable[str]) -> str:
    """The value of a config argument that has to be one of some words.

    Raises:
        UserError: it is another word.
    """
    if value in (known := list(known)):
        return value
    raise UserError(f"config argument {key}={value!r}; {_nearest(value, known)}")


def parse_arg(
    arg: str, forms: Sequence[str], options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Parses ``form,key=value,...``, the part of ``--config=FILE:...`` after the colon.

    Args:
        arg: the argument; may be empty.
        forms: known forms, the default first.
        options: known keys with their defaults, whose type a value must have.

    Returns:
        The form, and all options with the given values in place.
    """
    form, chosen = forms[0], dict(options)
    for position, part in enumerate(piece.strip() for piece in arg.split(",")):
        key, equals, text = part.partition("=")
        if not equals:
            if not part and len(arg) == 0:
                continue
            if position or part not in forms:
                raise UserError(
                    f"config argument {part!r} is not a form; {_nearest(part, forms)}"
                )
            form = part
        elif key not in options:
            raise UserError(
                f"config argument has key {key!r}; {_nearest(key, list(options))}"
            )
        else:
            chosen[key] = _parse(key, text, options[key])
    return form, chosen


def _parse(key: str, text: str, default: Any) -> Any:
    kind = type(default)
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    else:
        try:
            return kind(text)
        except ValueError:
            pass
    raise UserError(
        f"config argument {key}={text!r} is not a {kind.__name__}; "
        f"write it like {key}={default}"
    )


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"
