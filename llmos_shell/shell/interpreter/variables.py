"""A shell's variables: values, what is exported and read-only, and the locals of functions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from llmos_shell.lang.errors import ExpansionError

VALID_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Variables:
    """Values by name. `values` may be read directly; it is changed through the methods only."""

    __slots__ = ("_environment", "_foreign", "_scopes", "exported", "readonly", "share", "values")

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.exported: set[str] = set()
        self.readonly: set[str] = set()
        self.share = False  # exported variables are also those of this process (the outermost shell's)
        self._foreign: dict[str, str] = {}  # of the environment, with names that no variable can have
        self._scopes: list[dict[str, tuple[str | None, bool]]] = []  # of functions: what locals hide
        self._environment: dict[str, str] | None = None

    @classmethod
    def from_environment(cls) -> Variables:
        """The variables a new shell has."""
        self = cls()
        for name, value in os.environ.items():
            if VALID_NAME.match(name):
                self.values[name] = value
                self.exported.add(name)
            else:
                self._foreign[name] = value
        self.values["IFS"] = " \t\n"
        self.exported.discard("IFS")
        self.share = True
        return self

    def copy(self) -> Variables:
        """For a subshell."""
        other = Variables.__new__(Variables)
        other.values = self.values.copy()
        other.exported = self.exported.copy()
        other.readonly = self.readonly.copy()
        other.share = False
        other._foreign = self._foreign
        other._scopes = [scope.copy() for scope in self._scopes]
        other._environment = self._environment
        return other

    def set(self, name: str, value: str) -> None:
        """Sets a variable. Raises `ExpansionError` if it is read-only."""
        if name in self.readonly:
            raise ExpansionError(f"{name}: is read-only")
        self.values[name] = value
        if name in self.exported:
            self._changed(name)

    def unset(self, name: str) -> None:
        """Removes a variable."""
        if name in self.readonly:
            raise ExpansionError(f"{name}: is read-only")
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

    # -- functions ---------------------------------------------------------------------------------------------------

    def push(self) -> None:
        """A function begins."""
        self._scopes.append({})

    def pop(self) -> None:
        """It ends: its locals give way to what they hid."""
        for name, (value, exported) in self._scopes.pop().items():
            self._restore(name, value, exported)

    def declare_local(self, name: str) -> None:
        """Makes a variable local to the function; it keeps its value until it is set."""
        scope = self._scopes[-1]
        if name not in scope:
            scope[name] = (self.values.get(name), name in self.exported)

    @property
    def in_function(self) -> bool:
        """Whether locals can be declared."""
        return bool(self._scopes)

    def temporarily(self, assignments: dict[str, str]) -> Callable[[], None]:
        """Sets (and exports) variables for one command; returns what undoes it."""
        saved = {name: (self.values.get(name), name in self.exported) for name in assignments}
        for name, value in assignments.items():
            self.set(name, value)
            self.export(name)

        def undo() -> None:
            for name, (value, exported) in saved.items():
                self._restore(name, value, exported)

        return undo

    def _restore(self, name: str, value: str | None, exported: bool) -> None:
        self.readonly.discard(name)
        if value is None:
            self.values.pop(name, None)
        else:
            self.values[name] = value
        (self.exported.add if exported else self.exported.discard)(name)
        self._changed(name)

    def _changed(self, name: str) -> None:
        self._environment = None
        if self.share:
            value = self.values.get(name) if name in self.exported else None
            if value is None:
                os.environ.pop(name, None)
            elif "\0" not in value:
                os.environ[name] = value
