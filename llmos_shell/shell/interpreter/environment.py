"""The environment of expansions: variables, special parameters, arrays and files as words see them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from llmos_shell.lang import ast
from llmos_shell.lang.arithmetic import evaluate
from llmos_shell.lang.errors import ExpansionError, Source
from llmos_shell.lang.expansion import Expander
from llmos_shell.shell.interpreter.arrays import Array, Elements
from llmos_shell.shell.interpreter.options import Options
from llmos_shell.shell.interpreter.variables import Variables

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

_SPECIAL = frozenset("?!$#0-_")


class Frame(NamedTuple):
    """A function being executed: its name, file and line of the call, and the function it was called from."""

    name: str
    file: str
    line: int
    caller: Frame | None


class ExpansionEnvironment:
    """What the words of commands are expanded with."""

    shell: Shell
    options: Options

    def __init__(self) -> None:
        self.variables = Variables.from_environment()
        self.name = "llmos"
        self.parameters: list[str] = []
        self.last_status = 0
        self.last_background: int | None = None
        self.last_argument = ""
        self.pipe_statuses: list[int] | None = None  # of the last pipeline, if no command came after it
        self.source = Source("")
        self.current: ast.Command | None = None  # the command being executed
        self.frames: Frame | None = None
        self.started = time.monotonic()
        self.seed = os.getpid() ^ time.time_ns() & 0x7FFFFFFF
        self._expander = Expander(self)

    @property
    def nounset(self) -> bool:
        """`set -u`."""
        return self.options.nounset

    @property
    def noglob(self) -> bool:
        """`set -f`."""
        return self.options.noglob

    def process(self, part: ast.ProcessSubstitution) -> str:
        """A file that leads to commands or from them."""
        raise NotImplementedError

    def substitute(self, body: ast.Sequence) -> str:
        """A command substitution."""
        raise NotImplementedError

    # -- variables ---------------------------------------------------------------------------------------------------

    def lookup(self, name: str) -> str | None:
        """A variable or special parameter."""
        value = self.variables.values.get(name)
        if value is not None:
            return value
        if name[0].isdigit():
            return self._parameter(name)
        if name in _SPECIAL:
            return self._special(name)
        array = self._array(name)
        if array is not None:
            return array.first
        dynamic = _DYNAMIC.get(name)
        return dynamic(self) if dynamic is not None else None

    def _parameter(self, name: str) -> str | None:
        number = int(name) if len(name) < 10 else 1 << 30
        if number == 0:
            return self.name
        return self.parameters[number - 1] if number <= len(self.parameters) else None

    def _special(self, name: str) -> str | None:
        if name == "?":
            return str(self.last_status)
        if name == "#":
            return str(len(self.parameters))
        if name == "$":
            return str(os.getpid())
        if name == "!":
            return None if self.last_background is None else str(self.last_background)
        if name == "-":
            return self.options.letters() + ("i" if self.shell.interactive else "")
        return self.last_argument if name == "_" else None

    def assign(self, name: str, value: str) -> None:
        """Sets a variable; with `set -a` it is exported."""
        if name in self.variables.letters:
            if name == "RANDOM" or name == "SECONDS":
                self._restart(name, value)
                return
            value = self.converted(name, value)
        self.variables.set(name, value)
        if self.options.allexport:
            self.variables.export(name)

    def _restart(self, name: str, value: str) -> None:
        number = evaluate(value, self)
        if name == "RANDOM":
            self.seed = number & 0x7FFFFFFF
        else:
            self.started = time.monotonic() - number

    def converted(self, name: str, value: str) -> str:
        """The value as the variable's attributes want it."""
        letters = self.variables.letters.get(name, "")
        if "i" in letters:
            return str(evaluate(value, self))
        return value.lower() if "l" in letters else value.upper() if "u" in letters else value

    def attributes(self, name: str) -> str:
        """The letters that `declare` shows."""
        return self.variables.attributes(name)

    def names(self, prefix: str) -> list[str]:
        """Names of variables that begin like this."""
        return [name for name in self.variables.names() if name.startswith(prefix)]

    def positional(self) -> list[str]:
        """`$1` and so on."""
        return self.parameters

    # -- arrays ------------------------------------------------------------------------------------------------------

    def _array(self, name: str) -> Array | None:
        array = self.variables.arrays.get(name)
        if array is None and name in _ARRAYS and not self.variables.is_set(name):
            values = _ARRAYS[name](self)
            return Array(items=dict(enumerate(values))) if values else None
        return array

    def array(self, name: str) -> Mapping[int, str] | Mapping[str, str] | None:
        """An array's elements in order."""
        array = self._array(name)
        return None if array is None else array.items

    def subscript(self, name: str, index: str) -> str:
        """An index that can be used more than once."""
        array = self._array(name)
        return index if array is not None and array.associative else str(evaluate(index, self))

    def element(self, name: str, index: str) -> str | None:
        """An element of an array; a variable that is no array is its own element 0."""
        array = self._array(name)
        if array is None:
            return self.lookup(name) if evaluate(index, self) in (0, -1) else None
        return array.items.get(self._key(array, index))

    def _key(self, array: Array, index: str) -> int | str:
        """The key of an element; a negative number counts from behind the last, and may be too small."""
        if array.associative:
            return index
        number = evaluate(index, self)
        return number + array.next_number() if number < 0 else number

    def assign_element(self, name: str, index: str, value: str, *, append: bool = False) -> None:
        """Sets an element, with `append` adds to it. Raises `ExpansionError`."""
        array = self.variables.as_array(name)
        self._set_element(name, array, index, value, append)

    def _set_element(self, name: str, array: Array, index: str, value: str, append: bool) -> None:
        key = self._key(array, index)
        if isinstance(key, int) and key < 0:
            raise ExpansionError(f"{name}[{index}]: is before the first element")
        if key == "":
            raise ExpansionError(f"{name}: the key is empty")
        array.set(key, self._appended(name, array.items.get(key, ""), value) if append else self.converted(name, value))

    def _appended(self, name: str, old: str, value: str) -> str:
        """What `+=` makes of a value."""
        if "i" in self.variables.letters.get(name, ""):
            return self.converted(name, f"({old or 0})+({value})")
        return self.converted(name, old + value)

    def append(self, name: str, value: str) -> None:
        """`name+=value`."""
        self.assign(name, self._appended(name, self.lookup(name) or "", value))

    def assign_array(self, name: str, elements: Elements, *, append: bool = False) -> None:
        """`name=(elements)`, or `name+=(elements)`. Raises `ExpansionError`."""
        known = self.variables.arrays.get(name)
        if append:
            array = self.variables.as_array(name)
        else:
            array = Array(known is not None and known.associative)
            self.variables.set_array(name, array)
        if array.associative and all(index is None for index, _, _ in elements):
            elements = _pairs(elements)
        for index, value, adds in elements:
            if index is not None:
                self._set_element(name, array, index, value, adds)
            elif array.associative:
                raise ExpansionError(f"{name}: {value}: has no key: write [key]=value")
            else:
                array.set(array.next_number(), self.converted(name, value))

    def unset_element(self, name: str, index: str) -> None:
        """Removes an element, or with `@` and `*` all of an array by number. Raises `ExpansionError`."""
        self.variables.check_writable(name)
        array = self.variables.arrays.get(name)
        if array is None:
            if self.variables.is_set(name) and evaluate(index, self) == 0:
                self.variables.unset(name)
        elif index in ("@", "*") and not array.associative:
            self.variables.unset(name)
        else:
            array.items.pop(self._key(array, index), None)

    # -- files -------------------------------------------------------------------------------------------------------

    def home(self, user: str) -> str | None:
        """A home folder."""
        if not user:
            value = self.variables.values.get("HOME")
            return value if value is not None else os.path.expanduser("~")
        import pwd

        try:
            return pwd.getpwnam(user).pw_dir
        except KeyError:
            return None

    def listdir(self, path: str) -> Iterable[str]:
        """Names in a folder."""
        try:
            return os.listdir(path)
        except (OSError, ValueError):
            return ()

    def exists(self, path: str) -> bool:
        """Whether a path leads to something."""
        try:
            os.lstat(path)
        except (OSError, ValueError):
            return False
        return True

    # -- numbers -----------------------------------------------------------------------------------------------------

    def _offset(self) -> int:
        """Where the present command is in its source."""
        return self.current.offset if self.current is not None else 0

    def _line(self) -> int:
        """The line of the present command."""
        return self.source.position(self._offset()).line

    def _random(self) -> int:
        """The next number of `$RANDOM`, by the generator of Park and Miller that bash uses."""
        self.seed = (16807 * (self.seed or 123459876)) % 0x7FFFFFFF
        return ((self.seed >> 16) ^ (self.seed & 0xFFFF)) & 0x7FFF


def _pairs(elements: Elements) -> Elements:
    """Keys and values in turn as elements."""
    values = [value for _, value, _ in elements]
    return [(key, value, False) for key, value in zip(values[::2], [*values[1::2], ""], strict=False)]


def _frames(environment: ExpansionEnvironment) -> list[Frame]:
    found: list[Frame] = []
    frame = environment.frames
    while frame is not None:
        found.append(frame)
        frame = frame.caller
    return found


def _function_names(environment: ExpansionEnvironment) -> list[str]:
    frames = _frames(environment)
    main = ["main"] if frames and frames[-1].file not in ("", "-c") else []
    return [*(frame.name for frame in frames), *main]


_ARRAYS: dict[str, Callable[[ExpansionEnvironment], list[str]]] = {
    "FUNCNAME": _function_names,
    "BASH_SOURCE": lambda shell: [shell.source.name, *(frame.file for frame in _frames(shell))],
    "BASH_LINENO": lambda shell: [*(str(frame.line) for frame in _frames(shell)), "0"],
    "PIPESTATUS": lambda shell: [str(each) for each in shell.pipe_statuses or [shell.last_status]],
}

_DYNAMIC: dict[str, Callable[[ExpansionEnvironment], str]] = {
    "LINENO": lambda shell: str(shell._line()),
    "RANDOM": lambda shell: str(shell._random()),
    "SECONDS": lambda shell: str(int(time.monotonic() - shell.started)),
    "EPOCHSECONDS": lambda _: str(int(time.time())),
    "EPOCHREALTIME": lambda _: f"{time.time():.6f}",
    "PPID": lambda _: str(os.getppid()),
    "UID": lambda _: str(os.getuid()),
    "EUID": lambda _: str(os.geteuid()),
}
