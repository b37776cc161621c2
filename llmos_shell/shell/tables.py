"""Tables, sizes, times and colours for listings. Pure text; knows a terminal only through `Style`.

Off a terminal nothing is cut and nothing is coloured, so that output can be parsed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


class Column(Struct, frozen=True):
    """One column. Numbers are aligned to the right; the `flexible` column is cut to fit a terminal."""

    title: str
    right: bool = False
    flexible: bool = False


class Style(Struct, frozen=True):
    """What the output can show: its width in columns (None: unlimited), and whether colours."""

    width: int | None = None
    colours: bool = False

    def paint(self, text: str, colour: str) -> str:
        """The text in this colour, where colours are shown."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.colours and colour else text


def style_of(context: Context) -> Style:
    """The style of a command's output."""
    if not context.is_terminal():
        return Style()
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    try:
        width = os.get_terminal_size(context.out.fileno()).columns
    except (OSError, ValueError):
        width = 80
    return Style(width or 80, colours)


def render(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    style: Style = Style(),  # noqa: B008 - immutable
    colours: Sequence[str] = (),
) -> str:
    """The table with its header, one line per row; `colours` names the colour of each row, if any."""
    cells = [[column.title for column in columns], *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    _squeeze(columns, widths, style.width)
    lines = [_line(columns, row, widths) for row in cells]
    painted = [style.paint(lines[0], "bold")]
    for index, line in enumerate(lines[1:]):
        painted.append(style.paint(line, colours[index] if index < len(colours) else ""))
    return "\n".join(painted) + "\n"


def clean(text: str) -> str:
    """The text on one line, its control characters made visible, so that it cannot disturb a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _visible(char) for char in text)


def display_width(text: str) -> int:
    """Columns the text takes on a terminal."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    width: int = wcswidth(text)
    return width if width >= 0 else len(text)


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns, with an ellipsis where something is missing."""
    if display_width(text) <= width:
        return text
    kept = text[: max(width - 1, 0)]
    while kept and display_width(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…" if width > 0 else ""


def size(count: int) -> str:
    """Bytes for people: `512`, `1.5K`, `23M`, `4.0G`."""
    if count < 1024:
        return str(count)
    value = float(count)
    for unit in "KMGTP":
        value /= 1024
        if value < 999.5 or unit == "P":
            return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"
    raise AssertionError(count)


def duration(seconds: float) -> str:
    """Device or elapsed time for people: `0.00`, `12.3`, `2:05`, `1:00:00`, `3d04h`."""
    if seconds < 10:
        return f"{seconds:.2f}"
    if seconds < 60:
        return f"{seconds:.1f}"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 86400}d{whole // 3600 % 24:02d}h"


def energy(joules: float | None) -> str:
    """For people: `0.42J`, `12.3J`, `5.0kJ`, `1.20MJ`; `-` where it is not known."""
    if joules is None:
        return "-"
    if joules < 1000:
        return f"{joules:.{2 if joules < 10 else 1 if joules < 100 else 0}f}J"
    return f"{joules / 1e3:.1f}kJ" if joules < 1e6 else f"{joules / 1e6:.2f}MJ"


def total(figures: Iterable[float | None]) -> float | None:
    """The sum; not known unless all are."""
    found = list(figures)
    known = [figure for figure in found if figure is not None]
    return sum(known) if known and len(known) == len(found) else None


def to_json(value: Any) -> str:
    """The value (a Struct, or builtins) as JSON text, indented, with a final newline."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _visible(char: str) -> str:
    return {"\n": "⏎", "\t": " ", "\r": " "}.get(char, "·")


def _squeeze(columns: Sequence[Column], widths: list[int], limit: int | None) -> None:
    """Narrows the flexible column so that a line fits the terminal."""
    if limit is None:
        return
    excess = sum(widths) + 2 * (len(widths) - 1) - limit
    for index, column in enumerate(columns):
        if column.flexible and excess > 0:
            widths[index] = max(len(column.title), widths[index] - excess)


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for column, cell, width in zip(columns, row, widths, strict=True):
        text = cut(cell, width)
        padding = " " * (width - display_width(text))
        parts.append(padding + text if column.right else text + padding)
    return "  ".join(parts).rstrip()
