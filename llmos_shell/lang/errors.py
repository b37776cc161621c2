"""What can be wrong with a program's text, what can go wrong while its words are expanded, and where: errors are shown
with file, line, column, the line itself and a caret under it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple


class Position(NamedTuple):
    """A place in a program: characters from its start, and line and column from 1."""

    offset: int
    line: int
    column: int


_EXCERPT_COLUMNS = 100


class Source:
    """A program's text and name; turns offsets into positions, and positions into words.

    The name is empty for what was typed. `outer` is the place of the command that runs this text (`eval`, a trap);
    `first_line` counts from 1 and says where in a program that is read bit by bit the text stands.
    """

    __slots__ = ("_starts", "first_line", "name", "outer", "text")

    def __init__(self, text: str, name: str = "", outer: tuple[Source, int] | None = None, first_line: int = 1) -> None:
        self.text = text
        self.name = name
        self.outer = outer
        self.first_line = first_line
        self._starts: list[int] | None = None

    def replace(self, text: str) -> None:
        """The text is another one from the place on that is being read: an alias was put in."""
        self.text = text
        self._starts = None

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
        return Position(offset, line + self.first_line - 1, offset - self._starts[line - 1] + 1)

    def place(self, offset: int) -> str:
        """Where a command is, as the beginning of a message: `file:3: `; nothing where there is only one line."""
        source = self
        while source.outer is not None:
            source, offset = source.outer
        if not source.name or (source.name == "-c" and "\n" not in source.text.rstrip("\n")):
            return ""
        return f"{source.name}:{source.position(offset).line}: "

    def point_out(self, message: str, offset: int) -> str:
        """A message with its position, the line it is about, and a caret under that."""
        position = self.position(offset)
        outer = self.outer[0].place(self.outer[1]) if self.outer is not None else ""
        if self.name:
            where = f"{outer}{self.name}:{position.line}:{position.column}: "
        else:
            where = f"line {position.line}: " if "\n" in self.text.rstrip("\n") else ""
        return f"{where}{message}\n{self._excerpt(position)}"

    def _excerpt(self, position: Position) -> str:
        """The line with a caret under the position; of a long line the part around it."""
        start = position.offset - position.column + 1
        end = self.text.find("\n", start)
        line = self.text[start : end if end >= 0 else len(self.text)]
        at = position.column - 1
        first = max(0, at - _EXCERPT_COLUMNS * 2 // 3) if len(line) > _EXCERPT_COLUMNS else 0
        last = first + _EXCERPT_COLUMNS
        before, after = line[first:at], line[at:last]
        dots, more = ("…" if first else ""), ("…" if last < len(line) else "")
        blank = "".join("\t" if char == "\t" else " " * char_width(char) for char in dots + before)
        return f"  {dots}{_visible(before + after)}{more}\n  {blank}^"


def char_width(char: str) -> int:
    """How many columns of a terminal a character takes."""
    if " " <= char <= "~":
        return 1
    from unicodedata import category, east_asian_width

    if category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(char) in ("W", "F") else 1


def _visible(text: str) -> str:
    """The text without what a terminal would act on."""
    return "".join(char if char == "\t" or (char.isprintable() and char.isascii()) else _shown(char) for char in text)


def _shown(char: str) -> str:
    code = ord(char)
    if code < 32 or code == 127:
        return chr(0x2400 + code if code < 32 else 0x2421)
    return "\ufffd" if 128 <= code < 160 or 0xD800 <= code < 0xE000 else char


class ShellSyntaxError(Exception):
    """The text is no program. With `incomplete`, more text could make it one."""

    def __init__(self, message: str, position: Position, incomplete: bool = False) -> None:
        super().__init__(f"line {position.line}, column {position.column}: syntax error: {message}")
        self.message = message
        self.position = position
        self.incomplete = incomplete


class ExpansionError(Exception):
    """A word cannot be expanded: an unset variable under `set -u`, `${x:?}`, a division by zero …

    `offset` is where in `source`, as far as known; those it passes through add what they know. `within` is where in an
    arithmetic expression.
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.source: Source | None = None
        self.within: int | None = None

    def located(self, source: Source, offset: int) -> ExpansionError:
        """The same, in this place unless a better one is known."""
        if self.source is None:
            self.source = source
            if self.offset is None:
                self.offset = offset
        return self

    def describe(self) -> str:
        """The message, pointed out in the source if that is known."""
        if self.source is None or self.offset is None:
            return self.message
        return self.source.point_out(self.message, self.offset)
