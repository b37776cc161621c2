"""Markdown shown while it is being written: finished blocks stay, the one being written is drawn anew in place.

Only lines that changed are written again, so that nothing flickers; lines that have left the screen at the top cannot
be changed any more and stay as they are. Rendering is rich's.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise
from typing import TextIO

from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

PERIOD_SECONDS = 0.04
"""The block being written is drawn at most so often."""

_parser = MarkdownIt().enable("strikethrough").enable("table")


class MarkdownStream:
    """One answer on one terminal. `feed` it text, and `finish` it; between answers make a new one."""

    def __init__(self, out: TextIO, *, theme: str = "ansi_dark") -> None:
        self._out = out
        self._theme = theme
        self._open = ""  # text of blocks that may still change
        self._shown: list[str] = []  # lines of the open blocks on the screen
        self._begun = False
        self._drawn = 0.0  # when, monotonic

    def feed(self, text: str) -> None:
        """More text; it is drawn now or with the next piece."""
        self._open += text
        if time.monotonic() - self._drawn >= PERIOD_SECONDS:
            self.draw()

    def finish(self) -> None:
        """Draws what is left; the cursor is at the beginning of a line."""
        self.draw()
        self._shown = []
        self._open = ""

    def draw(self) -> None:
        """Brings the screen up to date."""
        columns, rows = _size(self._out)
        *done, self._open = _blocks(self._open)
        lines: list[str] = []
        for block in done:
            lines += self._render(block, columns, gap=bool(lines))
        kept = len(lines)
        lines += self._render(self._open, columns, gap=bool(lines))
        self._replace(lines, columns, rows)
        self._shown = self._shown[kept:]
        self._begun = self._begun or bool(kept)
        self._drawn = time.monotonic()

    def _render(self, text: str, columns: int, *, gap: bool = False) -> list[str]:
        """The lines of a text; a blank one before, if there is something above it."""
        if not text.strip():
            return []
        console = Console(
            file=self._out, width=columns, force_terminal=True, highlight=False, legacy_windows=False, markup=False
        )
        with console.capture() as capture:
            console.print(Markdown(text, hyperlinks=False, code_theme=self._theme))
        lines = [line.rstrip() for line in capture.get().rstrip("\n").split("\n")]
        while lines and not Text.from_ansi(lines[0]).plain.strip():
            lines.pop(0)
        return ["", *lines] if gap or self._begun else lines

    def _replace(self, lines: list[str], columns: int, rows: int) -> None:
        """Turns the lines shown into these, from the first that differs and can still be reached."""
        shown = self._shown
        same = 0
        while same < min(len(shown), len(lines)) and shown[same] == lines[same]:
            same += 1
        height = sum(_height(line, columns) for line in shown[same:])
        while same < len(shown) and height > rows - 1:
            height -= _height(shown[same], columns)
            same += 1
        up = f"\x1b[{height}A\r\x1b[J" if height else ""
        text = up + "".join(f"{line}\n" for line in lines[same:])
        if text:
            self._out.write(text)
            self._out.flush()
        self._shown = lines


def _blocks(text: str) -> list[str]:
    """The blocks of a text, at least one. All but the last are finished: that may always go on.

    A line that is not whole says nothing yet: it may belong to the list before it.
    """
    whole = text[: text.rfind("\n") + 1]
    starts = [token.map[0] for token in _parser.parse(whole) if token.level == 0 and token.map and token.nesting >= 0]
    lines = text.split("\n")
    bounds = [0, *starts[1:], len(lines)]
    blocks = ["\n".join(lines[start:end]) + "\n" for start, end in pairwise(bounds)]
    return [*blocks[:-1], blocks[-1].removesuffix("\n")]


def _height(line: str, columns: int) -> int:
    """Rows a line takes; more than one only after the terminal has become narrower."""
    return max(1, -(-cell_len(Text.from_ansi(line).plain) // columns))


def _size(out: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24
