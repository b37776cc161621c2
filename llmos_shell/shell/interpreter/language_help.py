"""The manuals of the commands that are part of the language, by name. A test sees to it that none is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos_shell.shell.command import Manual
from llmos_shell.shell.interpreter.manuals import flow, lookup, text, variables

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

LANGUAGE: dict[str, Manual] = {
    manual.name: manual for module in (lookup, text, variables, flow) for manual in module.MANUALS
}
"""Manuals by name."""


def write_help(shell: Shell, name: str) -> int:
    """Writes the short page: what `NAME --help` does."""
    from llmos_shell.shell.interpreter.builtins import write
    from llmos_shell.shell.manpage import render_help
    from llmos_shell.shell.manuals import find_manual

    manual = find_manual(name)
    return write(shell, render_help(manual)) if manual is not None else 1
