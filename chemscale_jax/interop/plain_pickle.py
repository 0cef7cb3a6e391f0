"""Reads pickles of plain values without running them.

A pickle is a program for a small stack machine, and Python's own reader calls whatever
it names. This one knows the opcodes that build plain values, mentions only the globals
it is given, and calls only functions of ours; all else is refused.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple, NoReturn

from chemscale_jax.core.errors import UserError

# A checkpoint takes about 30 opcodes for each tensor.
MOST_OPCODES = 4_000_000
_VALUES = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_FIXED: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES: Mapping[str, int] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = frozenset(("BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("BINGET", "LONG_BINGET"))
_NOTHING = frozenset(("PROTO", "FRAME"))
_KEYS = (str, int, float, bool, bytes, type(None))


class Global(NamedTuple):
    """A name that a pickle mentions."""

    name: str


class _Mark:
    """The place on the stack from which a later opcode takes everything."""


def read_pickle(
    stream: BinaryIO,
    source: str,
    *,
    calls: Mapping[str, Callable[..., Any]],
    names: frozenset[str] = frozenset(),
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle at the position of a stream, which is left behind it.

    Args:
        stream: of bytes.
        source: what messages call it.
        calls: {global: what stands for a call of it}; gets the arguments.
        names: further globals that may be mentioned, not called.
        persistent: what stands for a persistent identifier.

    Raises:
        UserError: for a global that is in neither list, an opcode that plain values do
            not need, or a damaged stream.
    """
    return _Machine(source, calls, names, persistent).run(stream)


class _Machine:
    """The stack, the memo and the lists of what is allowed."""

    def __init__(
        self,
        source: str,
        calls: Mapping[str, Callable[..., Any]],
        names: frozenset[str],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self._source = source
        self._calls = calls
        self._names = names
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Any:
        """The value left on the stack when the program stops."""
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
                if count == MOST_OPCODES:
                    self._refuse(f"has more than {MOST_OPCODES:,} opcodes")
                if opcode.name == "STOP":
                    break
                self._step(opcode.name, argument)
            (value,) = self._stack
        except UserError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            detail = " ".join(str(error).split())[:80]
            raise UserError(
                f"{self._source} holds a damaged pickle ({detail}); fetch it again"
            ) from None
        return value

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(
            f"{self._source} {what}; weights do not need this, so nothing was read: "
            "save the state dict alone"
        )

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _FIXED:
            stack.append(_FIXED[name])
        elif name in _PUTS:
            self._memo[argument] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name in _GETS:
            stack.append(self._memo[argument])
        elif name == "MARK":
            stack.append(_Mark())
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._to_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._to_mark()
            self._set_items(self._top(dict), items)
        elif name == "GLOBAL":
            # genops joins module and name by a space.
            self._mention(argument.replace(" ", "."))
        elif name == "STACK_GLOBAL":
            module, attribute = self._pop(2)
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise ValueError("a global that is no text")
            self._mention(f"{module}.{attribute}")
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            stack.append(self._call(function, arguments))
        elif name == "BUILD":
            self._build(*self._pop(1))
        elif name == "BINPERSID" and self._persistent is not None:
            stack.append(self._persistent(*self._pop(1)))
        elif name not in _NOTHING:
            self._refuse(f"has the pickle opcode {name}")

    def _top(self, kind: type | None = None) -> Any:
        value = self._stack[-1]
        if isinstance(value, _Mark) or (kind and type(value) is not kind):
            raise ValueError(f"a {type(value).__name__} where another type belongs")
        return value

    def _pop(self, count: int) -> list[Any]:
        values = self._stack[-count:]
        if len(values) < count or any(isinstance(value, _Mark) for value in values):
            raise ValueError("the stack is too short")
        del self._stack[-count:]
        return values

    def _to_mark(self) -> list[Any]:
        values: list[Any] = []
        while not isinstance(value := self._stack.pop(), _Mark):
            values.append(value)
        return values[::-1]

    def _set_items(self, into: dict[Any, Any], items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        for key, value in zip(keys, values, strict=True):
            if not isinstance(key, _KEYS):
                self._refuse(f"has a {type(key).__name__} as a key")
            into[key] = value

    def _mention(self, name: str) -> None:
        if name not in self._calls and name not in self._names:
            self._refuse(f"names {name!r}")
        self._stack.append(Global(name))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no function")
        if function.name not in self._calls:
            self._refuse(f"calls {function.name!r}")
        return self._calls[function.name](*arguments)

    def _build(self, state: Any) -> None:
        """The attributes of a state dict hold versions of its modules only."""
        self._top(dict)
        if not isinstance(state, dict) or set(state) - {"_metadata"}:
            self._refuse("sets attributes of an object")
