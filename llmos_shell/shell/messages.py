'''Messages of a conversation, from a terminal or a pipe: a line each, or a block between lines with `"""`.'''

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context

FENCE = '"""'


class Message(Struct, frozen=True):
    """What was typed. A `literal` one is no `/command`, whatever it begins with."""

    text: str
    literal: bool = False


def is_open(text: str) -> bool:
    """Whether a text begins a block and does not end it."""
    text = text.strip()
    return text.startswith(FENCE) and (len(text) < 2 * len(FENCE) or not text.endswith(FENCE))


def as_message(text: str) -> Message:
    """What was typed, without the marks of a block. Raises EINVAL for a block that is not closed."""
    stripped = text.strip()
    if not stripped.startswith(FENCE):
        return Message(stripped)
    if is_open(stripped):
        raise LlmosError(Code.EINVAL, f"a block is not closed: {FENCE} ends it")
    return Message(stripped[len(FENCE) : -len(FENCE)].strip("\n"), literal=True)


def from_lines(lines: Iterable[str]) -> Iterator[str]:
    """Texts of lines, those of a block put together."""
    block = ""
    for line in lines:
        block += line
        if not is_open(block):
            yield block
            block = ""
    if block:
        yield block


def from_pipe(context: Context, *, whole: bool) -> Iterator[Message | LlmosError]:
    """A message per line or block of standard input, or all of it as one. A block without its end is an error."""
    from llmos_shell.shell.textfiles import decode

    if whole:
        yield Message(decode(context.stdin.read(), "standard input"), literal=True)
        return
    lines = (decode(line, f"line {number} of standard input") for number, line in enumerate(context.stdin, 1))
    for text in from_lines(lines):
        try:
            yield as_message(text)
        except LlmosError as error:
            yield error
