"""The pages of a command, put together from its declaration: the full one (`man`) and the short one (`--help`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmos_shell.shell.arguments import usage
from llmos_shell.shell.command import ERROR_STATUSES, Command, Manual, Operand, Option
from llmos_shell.shell.document import Block, Code, Heading, Paragraph, Terms, fill, parse_markdown, to_text
from llmos_shell.shell.tables import Style

WIDTH = 80
"""Columns of a page that goes to no terminal."""

MAX_WIDTH = 100
"""Wider lines are hard to read."""

_HELP = Option(("--help",), "print a short page")
_SUCCESS = ("0", "success")
_SHORT_EXAMPLES = 3


def man_page(manual: Manual, style: Style) -> str:
    """The full page as text."""
    return to_text(man_blocks(manual), page_width(style), style)


def man_blocks(manual: Manual) -> list[Block]:
    """The full page."""
    blocks: list[Block] = [Heading("Name"), Paragraph(f"{manual.name} - {manual.summary}"), *_synopsis(manual)]
    if manual.description:
        blocks += [Heading("Description"), *parse_markdown(manual.description)]
    options = option_rows(manual)
    if options:
        blocks += [Heading("Options"), Terms(options, ("option", "meaning"))]
    operands = _operand_rows(manual.operands)
    if operands:
        blocks += [Heading("Operands"), Terms(operands, ("operand", "meaning"))]
    return [*blocks, *_examples(manual), *_facts(manual)]


def _synopsis(manual: Manual) -> Iterator[Block]:
    yield Heading("Synopsis")
    yield Code("\n".join(synopsis(manual)), "text")


def synopsis(manual: Manual) -> tuple[str, ...]:
    """The ways to call it."""
    return manual.synopsis or (usage(manual),)


def _examples(manual: Manual) -> Iterator[Block]:
    if manual.examples:
        yield Heading("Examples")
        for example in manual.examples:
            yield Paragraph(_introduction(example.does))
            yield Code("\n".join([example.line, *(f"    {line}" for line in example.output.splitlines())]), "sh")


def _introduction(text: str) -> str:
    return sentence(text) if text.endswith("?") else sentence(text)[:-1] + ":"


def _facts(manual: Manual) -> Iterator[Block]:
    yield Heading("Exit status")
    yield Terms(manual.exit_statuses or (_SUCCESS, *ERROR_STATUSES), ("status", "meaning"))
    if manual.environment:
        yield Heading("Environment")
        yield Terms(manual.environment, ("variable", "meaning"))
    if manual.files:
        yield Heading("Files")
        yield Terms(manual.files, ("file", "meaning"))
    if manual.see_also:
        yield Heading("See also")
        yield Paragraph(", ".join(manual.see_also))


def render_help(manual: Manual, style: Style = Style()) -> str:  # noqa: B008 - immutable
    """The short page: what `CMD --help` and `help CMD` print."""
    width = page_width(style)
    ways = synopsis(manual)
    lines = [f"usage: {ways[0]}", *(f"       {way}" for way in ways[1:]), ""]
    lines += [*fill(sentence(manual.summary), width, style), ""]
    rows = (*_operand_rows(manual.operands), *option_rows(manual))
    if rows:
        lines += [to_text([Terms(rows)], width, style, indent=2)]
    if manual.examples:
        lines.append("Examples:")
        for example in manual.examples[:_SHORT_EXAMPLES]:
            lines += [f"  {example.line}", *(f"      {line}" for line in fill(example.does, width - 6, style))]
        lines.append("")
    lines.append(f"`man {manual.name}` says more.")
    return "\n".join(lines) + "\n"


def option_rows(manual: Manual) -> tuple[tuple[str, str], ...]:
    """Options with their meanings, `--help` last where it works."""
    options = (*manual.options, _HELP) if isinstance(manual, Command) else manual.options
    return tuple((option_flags(option), option_help(option)) for option in options)


def _operand_rows(operands: Sequence[Operand]) -> tuple[tuple[str, str], ...]:
    return tuple((operand.name, _choices(operand.help, operand.type)) for operand in operands if operand.help)


def _choices(text: str, kind: str) -> str:
    return f"{text} (one of {', '.join(kind.split('|'))})" if "|" in kind else text


def option_flags(option: Option) -> str:
    """E.g. `-n, --tokens N`."""
    flags = ", ".join(option.flags)
    return f"{flags} {option.value}" if option.value else flags


def option_help(option: Option) -> str:
    """Its text, with choices, default and whether it may be repeated."""
    notes = []
    if "|" in option.type:
        notes.append("one of " + ", ".join(option.type.split("|")))
    if option.default is not None:
        notes.append(f"default {option.default}")
    if option.repeat:
        notes.append("may be repeated")
    return f"{option.help} ({'; '.join(notes)})" if notes else option.help


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def page_width(style: Style) -> int:
    """How wide a page is set."""
    return WIDTH if style.width is None else min(style.width, MAX_WIDTH)
