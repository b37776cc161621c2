"""A shell's variables: values, arrays, attributes, what is exported and read-only, and the locals of functions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NamedTuple

from llmos_shell.lang.errors import ExpansionError
from llmos_shell.shell.interpreter.arrays import Array

VALID_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_OWN = frozenset({"IFS", "RANDOM", "SECONDS", "PPID", "UID", "EUID", "FUNCNAME", "PIPESTATUS", "BASH_REMATCH", "_"})
"""Names whose values do not come from the environment."""


class _Saved(NamedTuple):
    """What a local variable hides."""

    value: str | None
    array: Array | None
    letters: str
    exported: bool
    readonly: bool


class Variables:
    """Values by name. `values` and `arrays` may be read directly; they are changed through the methods only.

    A name is in one of them at most. `letters` has the attributes that change what is assigned: `i` integer, `l` lower
    case, `u` upper case.
    """

    __slots__ = ("_environment", "_foreign", "_scopes", "arrays", "exported", "letters", "readonly", "share", "values")

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.arrays: dict[str, Array] = {}
        self.letters: dict[str, str] = {"RANDOM": "", "SECONDS": ""}
        self.exported: set[str] = set()
        self.readonly: set[str] = set()
        self.share = False  # exported variables are also those of this process (the outermost shell's)
        self._foreign: dict[str, str] = {}  # of the environment, with names that no variable can have
        self._scopes: list[dict[str, _Saved]] = []  # of functions: what locals hide
        self._environment: dict[str, str] | None = None

    @classmethod
    def from_environment(cls) -> Variables:
        """The variables a new shell has."""
        self = cls()
        for name, value in os.environ.items():
            if not VALID_NAME.match(name):
                self._foreign[name] = value
            elif name not in _OWN:
                self.values[name] = value
                self.exported.add(name)
        self.values["IFS"] = " \t\n"
        self.share = True
        return self

    def copy(self) -> Variables:
        """For a subshell."""
        other = Variables.__new__(Variables)
        other.values = self.values.copy()
        other.arrays = {name: array.copy() for name, array in self.arrays.items()}
        other.letters = self.letters.copy()
        other.exported = self.exported.copy()
        other.readonly = self.readonly.copy()
        other.share = False
        other._foreign = self._foreign
        other._scopes = [scope.copy() for scope in self._scopes]
        other._environment = self._environment
        return other

    def set(self, name: str, value: str) -> None:
        """Sets a variable; of an array the first element. Raises `ExpansionError` if it is read-only."""
        if name in self.readonly:
            raise ExpansionError(f"{name}: is read-only")
        if name in self.arrays:
            array = self.arrays[name]
            array.set("0" if array.associative else 0, value)
            return
        self.values[name] = value
        if name in self.exported:
            self._changed(name)

    def set_array(self, name: str, array: Array) -> None:
        """Makes a variable this array. Raises `ExpansionError` if it is read-only."""
        self.check_writable(name)
        self.values.pop(name, None)
        self.arrays[name] = array
        if name in self.exported:
            self._changed(name)

    def as_array(self, name: str) -> Array:
        """A variable as an array whose elements may be set; its value becomes the first. Raises `ExpansionError`."""
        self.check_writable(name)
        array = self.arrays.get(name)
        if array is None:
            value = self.values.get(name)
            array = Array(items={} if value is None else {0: value})
            self.set_array(name, array)
        return array

    def check_writable(self, name: str) -> None:
        """Raises `ExpansionError` if it is read-only."""
        if name in self.readonly:
            raise ExpansionError(f"{name}: is read-only")

    def names(self) -> list[str]:
        """The names of all that are set, sorted."""
        return sorted({*self.values, *self.arrays})

    def is_set(self, name: str) -> bool:
        """Whether it has a value, or is an array."""
        return name in self.values or name in self.arrays

    def unset(self, name: str) -> None:
        """Removes a variable."""
        self.check_writable(name)
        self.arrays.pop(name, None)
        self.letters.pop(name, None)
        if self.values.pop(name, None) is not None and name in self.exported:
            self._changed(name)
        self.exported.discard(name)

    def export(self, name: str, on: bool = True) -> None:
        """Puts a variable into the environment of programs, or takes it out."""
        if on:
            self.exported.add(name)
        else:
            self.exported.discard(name)
        self._changed(name)

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """What programs are given; `extra` are assignments before the command."""
        if self._environment is None:
            values = self.values
            exported = {name: values[name] for name in self.exported if name in values}
            self._environment = {**self._foreign, **exported}
        return {**self._environment, **extra} if extra else self._environment

    def attributes(self, name: str) -> str:
        """The letters that `declare` shows."""
        array = self.arrays.get(name)
        found = "" if array is None else "A" if array.associative else "a"
        found += "".join(letter for letter in "il" if letter in self.letters.get(name, ""))
        found += "r" if name in self.readonly else ""
        return found + ("u" if "u" in self.letters.get(name, "") else "") + ("x" if name in self.exported else "")

    # -- functions ---------------------------------------------------------------------------------------------------

    def push(self) -> None:
        """A function begins."""
        self._scopes.append({})

    def pop(self) -> None:
        """It ends: its locals give way to what they hid."""
        for name, saved in self._scopes.pop().items():
            self._restore(name, saved)

    def declare_local(self, name: str, *, fresh: bool = False) -> None:
        """Makes a variable local to the function; unless `fresh`, it keeps its value until it is set."""
        scope = self._scopes[-1]
        if name in scope:
            return
        self.check_writable(name)
        scope[name] = self._saved(name)
        if fresh:
            self.values.pop(name, None)
            self.arrays.pop(name, None)
            self.letters.pop(name, None)
        elif name in self.arrays:
            self.arrays[name] = self.arrays[name].copy()

    @property
    def in_function(self) -> bool:
        """Whether locals can be declared."""
        return bool(self._scopes)

    def temporarily(self, assignments: dict[str, str]) -> Callable[[], None]:
        """Sets (and exports) variables for one command; returns what undoes it."""
        saved = {name: self._saved(name) for name in assignments}
        for name, value in assignments.items():
            self.check_writable(name)
            self.arrays.pop(name, None)
            self.set(name, value)
            self.export(name)

        def undo() -> None:
            for name, each in saved.items():
                self._restore(name, each)

        return undo

    def _saved(self, name: str) -> _Saved:
        return _Saved(
            self.values.get(name),
            self.arrays.get(name),
            self.letters.get(name, ""),
            name in self.exported,
            name in self.readonly,
        )

    def _restore(self, name: str, saved: _Saved) -> None:
        if saved.value is None:
            self.values.pop(name, None)
        else:
            self.values[name] = saved.value
        if saved.array is None:
            self.arrays.pop(name, None)
        else:
            self.arrays[name] = saved.array
        if saved.letters:
            self.letters[name] = saved.letters
        else:
            self.letters.pop(name, None)
        (self.exported.add if saved.exported else self.exported.discard)(name)
        (self.readonly.add if saved.readonly else self.readonly.discard)(name)
        self._changed(name)

    def _changed(self, name: str) -> None:
        self._environment = None
        if self.share:
            value = self.values.get(name) if name in self.exported else None
            if value is None:
                os.environ.pop(name, None)
            elif "\0" not in value:
                os.environ[name] = value
