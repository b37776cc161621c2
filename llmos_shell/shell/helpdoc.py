"""Writes docs/commands.md from the declarations: `python -m llmos_shell.shell.helpdoc [--check] [FILE]`.

With `--check` it writes nothing and exits with 1 when the file is not what it would write.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

DEFAULT_PATH = "docs/commands.md"
_HEAD = """\
# Commands

Generated from the declarations in `llmos_shell/shell/commands/`; do not edit. `python -m llmos_shell.shell.helpdoc`
writes it again. In a shell, `help COMMAND` shows the same. Every command also works as `llmos COMMAND …`.

"""


def render() -> str:
    """The whole page."""
    from llmos_shell.shell import commands
    from llmos_shell.shell.commands.session import FAMILIES
    from llmos_shell.shell.helptext import render_markdown
    from llmos_shell.shell.interpreter.language_help import render_language_markdown

    found = [command for command in map(commands.find, commands.names()) if command is not None]
    parts = [_HEAD]
    for family, heading in FAMILIES.items():
        parts.append(f"## {heading}\n\n")
        parts += [render_markdown(command) + "\n" for command in found if command.family == family]
    parts.append("## The language\n\n" + render_language_markdown())
    return "".join(parts).rstrip("\n") + "\n"


def main(arguments: Sequence[str]) -> int:
    """Writes or checks the page; returns the exit status."""
    check = "--check" in arguments
    files = [argument for argument in arguments if not argument.startswith("--")]
    path = files[0] if files else DEFAULT_PATH
    text = render()
    if not check:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return 0
    try:
        with open(path, encoding="utf-8") as file:
            fresh = file.read() == text
    except FileNotFoundError:
        fresh = False
    if not fresh:
        print(f"{path} is out of date: run `python -m llmos_shell.shell.helpdoc`", file=sys.stderr)
    return 0 if fresh else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
