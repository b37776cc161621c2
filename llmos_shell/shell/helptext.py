"""Help pages, rendered from the declarations of commands: plain text for terminals, Markdown for docs/."""

from __future__ import annotations

from textwrap import fill

from llmos_shell.shell.arguments import usage
from llmos_shell.shell.command import Command, Example, Option

WIDTH = 96
_COLUMN = 26


def render_help(command: Command) -> str:
    """What `CMD --help` and `help CMD` print."""
    parts = [f"usage: {usage(command)}\n", _paragraph(sentence(command.summary))]
    if command.description:
        parts += [_paragraph(text) for text in command.description.split("\n\n")]
    described = [operand for operand in command.operands if operand.help]
    if described:
        parts.append("Arguments:\n" + "".join(_row(operand.name, operand.help) for operand in described))
    rows = [_row(option_flags(option), option_help(option)) for option in command.options]
    rows.append(_row("    --help", "print this page"))
    parts.append("Options:\n" + "".join(rows))
    if command.examples:
        parts.append("Examples:\n" + "".join(map(_example, command.examples)))
    return "\n".join(parts)


def render_markdown(command: Command) -> str:
    """The command's section of docs/commands.md."""
    lines = [f"### `{command.name}`", "", sentence(command.summary), "", f"    {usage(command)}", ""]
    if command.description:
        lines += [command.description, ""]
    rows = [(operand.name, operand.help) for operand in command.operands if operand.help]
    rows += [(option_flags(option).strip(), option_help(option)) for option in command.options]
    if rows:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{name.replace('|', '&#124;')}` | {text.replace('|', '&#124;')} |" for name, text in rows]
        lines.append("")
    if command.examples:
        lines += [line for example in command.examples for line in (f"    {example.line}", f"        {example.does}")]
        lines.append("")
    return "\n".join(lines)


def option_flags(option: Option) -> str:
    """E.g. `-n, --tokens N`."""
    flags = ", ".join(option.flags)
    if option.flags[0].startswith("--"):
        flags = "    " + flags
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
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _paragraph(text: str) -> str:
    return fill(" ".join(text.split()), WIDTH) + "\n"


def _row(name: str, text: str) -> str:
    lines = fill(text, WIDTH - _COLUMN - 2).split("\n")
    head = f"  {name:<{_COLUMN - 2}}  " if len(name) <= _COLUMN - 2 else f"  {name}\n{' ' * (_COLUMN + 2)}"
    return head + ("\n" + " " * (_COLUMN + 2)).join(lines) + "\n"


def _example(example: Example) -> str:
    return f"  {example.line}\n      {example.does}\n"
