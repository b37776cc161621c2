"""What `set -x` writes before each command: PS4, expanded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos_shell.lang.ast import DoubleQuoted, Word
from llmos_shell.lang.errors import ExpansionError, ShellSyntaxError, Source
from llmos_shell.lang.expansion import Expander
from llmos_shell.lang.parser import Parser
from llmos_shell.lang.quoting import quote_word
from llmos_shell.shell.interpreter.arrays import Elements

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

_parsed: dict[str, Word] = {}


def prefix(shell: Shell) -> str:
    """PS4 as it is now; its first character as it stands where it cannot be expanded."""
    text = shell.lookup("PS4")
    if text is None:
        return "+ "
    if "$" not in text and "`" not in text and "\\" not in text:
        return text
    shell.options.xtrace = False
    try:
        return Expander(shell).string(_parse(text))
    except (ExpansionError, ShellSyntaxError):
        return text[:1]
    finally:
        shell.options.xtrace = True


def _parse(text: str) -> Word:
    word = _parsed.get(text)
    if word is None:
        word = _parsed[text] = Word([DoubleQuoted(Parser(Source(text, "PS4")).read_here_body())])
    return word


def trace(shell: Shell, text: str) -> None:
    """Shows a command."""
    shell.say(f"{prefix(shell)}{text}")


def shown_elements(elements: Elements) -> str:
    """An array's elements as they could be written."""
    pieces = [
        quote_word(value) if index is None else f"[{index}]{'+' if append else ''}={quote_word(value)}"
        for index, value, append in elements
    ]
    return f"({' '.join(pieces)})"
