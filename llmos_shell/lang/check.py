"""All that is wrong with a program's text, not just the first of it (`llmos -n`)."""

from __future__ import annotations

from llmos_shell.lang.errors import ShellSyntaxError, Source
from llmos_shell.lang.parser import Parser

MOST = 20
"""More errors than that are most likely those of a text that is no program."""

_FOLLOWING = tuple(
    f"unexpected `{word}`" for word in ("}", ")", ";;", "then", "elif", "else", "fi", "do", "done", "esac")
)


def syntax_errors(source: Source) -> list[ShellSyntaxError]:
    """The errors in the order of the text. Behind one, reading goes on with the next line.

    What is most likely only a consequence is left out: ends of compound commands that an error has hidden the beginning
    of, and whatever follows an unfinished here-document.
    """
    errors: list[ShellSyntaxError] = []
    position, hidden = 0, False
    while len(errors) < MOST:
        parser = Parser(source, position=position, ask=True)
        try:
            while parser.next_command() is not None:
                pass
        except ShellSyntaxError as error:
            if not hidden or not _closes_what_was_hidden(source, error):
                errors.append(error)
            hidden = hidden or parser.depth > 0
            end = source.text.find("\n", max(error.position.offset, parser.start))
            if error.incomplete or parser.pending or end < 0 or "NUL" in error.message:
                break
            position = end
        else:
            break
    return errors


def _closes_what_was_hidden(source: Source, error: ShellSyntaxError) -> bool:
    offset = error.position.offset
    begins_line = not source.text[offset - error.position.column + 1 : offset].strip()
    return begins_line and error.message.startswith(_FOLLOWING)
