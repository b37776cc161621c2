"""Documents of a modest Markdown, as blocks: read from Markdown, and written as Markdown or as text for a terminal.

The pages of commands are put together from blocks (`manpage`), topics are read from files (`topics`). Of Markdown it
knows headings, paragraphs, `- ` lists, tables, and code, be it fenced or indented. In texts it knows `code` and links.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from textwrap import wrap

from msgspec import Struct

from llmos_shell.shell.tables import Style, display_width


class Heading(Struct, frozen=True):
    """A heading; level 1 is the document's title."""

    text: str
    level: int = 2


class Paragraph(Struct, frozen=True):
    """Running text on one line, however long."""

    text: str


class Code(Struct, frozen=True):
    """Lines that stay as they are. What is in no language but text is not set off from what is around it."""

    text: str
    language: str = ""


class Bullets(Struct, frozen=True):
    """A list."""

    items: tuple[str, ...]


class Table(Struct, frozen=True):
    """Rows of cells under a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Terms(Struct, frozen=True):
    """Words and what they mean, as options have them; in Markdown a table of these two columns."""

    rows: tuple[tuple[str, str], ...]
    header: tuple[str, str] = ("", "meaning")


Block = Heading | Paragraph | Code | Bullets | Table | Terms

INDENT = 4
_TERM_COLUMN = 24
_TABLE_COLUMN = 12  # the least width of a column whose cells are wrapped
_LINK = re.compile(r"\[([^]]+)\]\([^)\s]+\)")
_CODE = re.compile(r"`([^`]+)`")


# -- reading ---------------------------------------------------------------------------------------------------------


def parse_markdown(text: str) -> list[Block]:
    """The blocks of a text."""
    blocks: list[Block] = []
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
            continue
        read = next(reader for starts, reader in _READERS if starts(line))
        block, at = read(lines, at)
        blocks.append(block)
    return blocks


def _read_heading(lines: Sequence[str], at: int) -> tuple[Block, int]:
    marks, _, text = lines[at].partition(" ")
    return Heading(text.strip(), len(marks)), at + 1


def _read_fence(lines: Sequence[str], at: int) -> tuple[Block, int]:
    end = at + 1
    while end < len(lines) and not lines[end].startswith("```"):
        end += 1
    return Code("\n".join(lines[at + 1 : end]), lines[at][3:].strip()), end + 1


def _read_indented(lines: Sequence[str], at: int) -> tuple[Block, int]:
    end = _end(lines, at, lambda line: line.startswith("  "))
    return Code("\n".join(line[2:] for line in lines[at:end])), end


def _read_bullets(lines: Sequence[str], at: int) -> tuple[Block, int]:
    end = _end(lines, at, lambda line: line.startswith(("- ", "  ")))
    items: list[str] = []
    for line in lines[at:end]:
        if line.startswith("- "):
            items.append(line[2:].strip())
        else:
            items[-1] += " " + line.strip()
    return Bullets(tuple(items)), end


def _read_table(lines: Sequence[str], at: int) -> tuple[Block, int]:
    end = _end(lines, at, lambda line: line.startswith("|"))
    rows = [_cells(line) for line in lines[at:end]]
    return Table(rows[0], tuple(rows[2:])), end


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")))


def _read_paragraph(lines: Sequence[str], at: int) -> tuple[Block, int]:
    end = _end(lines, at, lambda line: not line.startswith(("#", "```", "- ", "|")))
    return Paragraph(" ".join(line.strip() for line in lines[at:end])), end


def _end(lines: Sequence[str], at: int, goes_on: Callable[[str], bool]) -> int:
    """Where a block ends that begins at `at`: at an empty line, or one that is not of it."""
    end = at + 1
    while end < len(lines) and lines[end].strip() and goes_on(lines[end]):
        end += 1
    return end


_READERS: tuple[tuple[Callable[[str], bool], Callable[[Sequence[str], int], tuple[Block, int]]], ...] = (
    (lambda line: line.startswith("#"), _read_heading),
    (lambda line: line.startswith("```"), _read_fence),
    (lambda line: line.startswith("- "), _read_bullets),
    (lambda line: line.startswith("|"), _read_table),
    (lambda line: line.startswith("  "), _read_indented),
    (lambda line: True, _read_paragraph),
)


# -- as text ---------------------------------------------------------------------------------------------------------


def to_text(blocks: Iterable[Block], width: int, style: Style, indent: int = INDENT) -> str:
    """For a terminal of that width, or a file; headings stand out, the rest is indented."""
    parts: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(_heading(block, style, indent))
            continue
        lines = [(" " * indent + line).rstrip() for line in _lines(block, width - indent, style)]
        parts.append("\n".join(lines) + "\n\n")
    return "".join(parts).rstrip("\n") + "\n"


def _heading(block: Heading, style: Style, indent: int) -> str:
    if block.level == 1:
        return style.paint(block.text, "bold") + "\n\n"
    if block.level == 2:
        return style.paint(block.text.upper(), "bold") + "\n"
    return " " * (indent // 2) + style.paint(block.text, "bold") + "\n"


def _lines(block: Block, width: int, style: Style) -> list[str]:
    if isinstance(block, Code):
        return [("" if block.language == "text" else "    ") + line for line in block.text.splitlines()]
    if isinstance(block, Bullets):
        return [line for item in block.items for line in _hanging("• ", item, width, style)]
    if isinstance(block, Terms):
        return [line for term, text in block.rows for line in _term(term, text, width, style)]
    if isinstance(block, Table):
        return _table(block, width, style)
    return fill(block.text, width, style)


def fill(text: str, width: int, style: Style) -> list[str]:
    """A text in lines of at most that width."""
    plain = _LINK.sub(r"\1", text)
    return [
        _inline(line, style) for line in wrap(plain, max(width, 20), break_long_words=False, break_on_hyphens=False)
    ]


def _inline(line: str, style: Style) -> str:
    """With colours, `code` is bold instead of quoted; a piece that goes on in the next line stays quoted."""
    return _CODE.sub(lambda match: style.paint(match.group(1), "bold"), line) if style.colours else line


def _hanging(mark: str, text: str, width: int, style: Style) -> list[str]:
    lines = fill(text, width - len(mark), style)
    return [mark + lines[0], *(" " * len(mark) + line for line in lines[1:])] if lines else [mark]


def _term(term: str, text: str, width: int, style: Style) -> list[str]:
    """The word, and what it means beside it, or below it where it is long."""
    lines = fill(text, width - _TERM_COLUMN, style)
    space = " " * _TERM_COLUMN
    shown = style.paint(term, "bold") + " " * max(_TERM_COLUMN - display_width(term), 0)
    if display_width(term) > _TERM_COLUMN - 2:
        return [style.paint(term, "bold"), *(space + line for line in lines)]
    return [shown + (lines[0] if lines else ""), *(space + line for line in lines[1:])]


def _table(block: Table, width: int, style: Style) -> list[str]:
    """Columns side by side, their cells wrapped where they are too wide together."""
    rows = [tuple(_LINK.sub(r"\1", cell).replace("`", "") for cell in row) for row in (block.header, *block.rows)]
    widths = _column_widths(rows, width)
    lines: list[str] = []
    for number, row in enumerate(rows):
        cells = [wrap(cell, size, break_on_hyphens=False) or [""] for cell, size in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = "  ".join(
                part + " " * (size - display_width(part)) for part, size in zip(parts, widths, strict=True)
            )
            lines.append(style.paint(padded.rstrip(), "bold") if number == 0 else padded.rstrip())
    return lines


def _column_widths(rows: Sequence[tuple[str, ...]], width: int) -> list[int]:
    """As wide as their cells; the widest are made narrower until all fit."""
    widths = [max(display_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > _TABLE_COLUMN:
        widths[widths.index(max(widths))] -= 1
    return widths


# -- as Markdown -----------------------------------------------------------------------------------------------------


def to_markdown(blocks: Iterable[Block]) -> str:
    """As Markdown."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Code):
        return f"```{block.language}\n{block.text}\n```"
    if isinstance(block, Bullets):
        return "\n".join(f"- {item}" for item in block.items)
    if isinstance(block, Terms):
        return _markdown_table(block.header, [(f"`{term}`" if term else "", text) for term, text in block.rows])
    if isinstance(block, Table):
        return _markdown_table(block.header, block.rows)
    return block.text


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
