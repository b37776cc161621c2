"""What can be wrong with a program's text, and what can go wrong while its words are expanded."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple


class Position(NamedTuple):
    """A place in a program: characters from its start, and line and column from 1."""

    offset: int
    line: int
    column: int


class Source:
    """A program's text and name; turns offsets into positions."""

    __slots__ = ("_starts", "name", "text")

    def __init__(self, text: str, name: str = "") -> None:
        self.text = text
        self.name = name
        self._starts: list[int] | None = None

    def position(self, offset: int) -> Position:
        """Line and column of an offset."""
        if self._starts is None:
            starts, at = [0], self.text.find("\n")
            while at >= 0:
                starts.append(at + 1)
                at = self.text.find("\n", at + 1)
            self._starts = starts
        offset = min(max(offset, 0), len(self.text))
        line = bisect_right(self._starts, offset)
        return Position(offset, line, offset - self._starts[line - 1] + 1)


class ShellSyntaxError(Exception):
    """The text is no program. With `incomplete`, more text could make it one."""

    def __init__(self, message: str, position: Position, incomplete: bool = False) -> None:
        super().__init__(f"line {position.line}, column {position.column}: syntax error: {message}")
        self.message = message
        self.position = position
        self.incomplete = incomplete


class ExpansionError(Exception):
    """A word cannot be expanded: an unset variable under `set -u`, `${x:?}`, a division by zero …"""
