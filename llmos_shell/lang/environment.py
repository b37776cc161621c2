"""What expansions ask of the shell they take place in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from llmos_shell.lang.ast import ProcessSubstitution, Sequence


class Environment(Protocol):
    """Variables, files and commands, as far as expansions need them."""

    @property
    def nounset(self) -> bool:
        """`set -u`: unset variables are errors."""

    @property
    def noglob(self) -> bool:
        """`set -f`: no pathname expansion."""

    def lookup(self, name: str) -> str | None:
        """A variable or special parameter other than `@` and `*`; of an array its first element. None when unset."""

    def assign(self, name: str, value: str) -> None:
        """Sets a variable. Raises `ExpansionError` if it is read-only."""

    def array(self, name: str) -> Mapping[int, str] | Mapping[str, str] | None:
        """An array's elements in order; None if it is no array."""

    def subscript(self, name: str, index: str) -> str:
        """The text of an index that means the same, and changes nothing when it is evaluated."""

    def element(self, name: str, index: str) -> str | None:
        """An element of an array, None when unset; a variable that is no array is its own element 0."""

    def assign_element(self, name: str, index: str, value: str) -> None:
        """Sets an element. Raises `ExpansionError`."""

    def attributes(self, name: str) -> str:
        """The letters with which `declare` gives a variable its attributes."""

    def names(self, prefix: str) -> list[str]:
        """The names of the variables that begin like this, sorted."""

    def positional(self) -> list[str]:
        """The positional parameters from `$1` on."""

    def substitute(self, body: Sequence) -> str:
        """The output of commands, without trailing newlines."""

    def process(self, part: ProcessSubstitution) -> str:
        """A file that leads to commands or from them, until the present command ends."""

    def home(self, user: str) -> str | None:
        """A user's home folder (`""`: one's own); None when there is none."""

    def listdir(self, path: str) -> Iterable[str]:
        """The names in a folder; none if it cannot be read."""

    def exists(self, path: str) -> bool:
        """Whether the path leads to something, a broken link included."""
