"""Colours for a command line while it is typed, from the tokens the real lexer sees.

`spans` is pure; the adapter for prompt_toolkit is in `repl`. Where the text is not yet a program, what the lexer read
so far is coloured and the rest is plain.
"""

from __future__ import annotations

from collections.abc import Callable

from llmos_shell.lang.ast import (
    AnsiQuoted,
    Arithmetic,
    CommandSubstitution,
    DoubleQuoted,
    Parameter,
    SingleQuoted,
    Word,
)
from llmos_shell.lang.compound import RESERVED
from llmos_shell.lang.errors import ShellSyntaxError, Source
from llmos_shell.lang.lexer import EOF, IO_NUMBER, NEWLINE, OPERATOR
from llmos_shell.lang.parser import Parser

Span = tuple[int, int, str]
"""From and to (in characters), and a class: command, unknown, keyword, operator, option, string, variable, question."""

_COMMAND_FOLLOWS = frozenset({"|", "&", ";", "&&", "||", "(", "|&"})
_REDIRECTS = frozenset({"<", ">", ">>", "<&", ">&", "<>", ">|", "&>", "&>>", "<<", "<<-", "<<<"})
_NOT_BEFORE_COMMANDS = frozenset({"fi", "done", "esac", "for", "case", "in", "}", "function"})
_QUOTED = (SingleQuoted, DoubleQuoted, AnsiQuoted)
_EXPANDED = (Parameter, CommandSubstitution, Arithmetic)


def spans(text: str, is_known: Callable[[str], bool]) -> list[Span]:
    """What to colour, in order; `is_known` says whether a word names a command."""
    if text.lstrip().startswith("?"):
        return [(len(text) - len(text.lstrip()), len(text), "question")]
    found: list[Span] = []
    lexer = Parser(Source(text), more=True)
    command_next, target_next = True, False
    try:
        while True:
            lexer.advance()
            if lexer.kind == EOF:
                return found
            start, end = lexer.start, lexer.position
            if lexer.kind in (NEWLINE, OPERATOR, IO_NUMBER):
                if lexer.kind != NEWLINE:
                    found.append((start, end, "operator"))
                target_next = lexer.value in _REDIRECTS
                follows = lexer.kind == NEWLINE or lexer.value in _COMMAND_FOLLOWS
                command_next = follows or (command_next and (target_next or lexer.kind == IO_NUMBER))
                continue
            assert lexer.word is not None
            word = text[start:end]
            if target_next:
                target_next = False
            elif command_next:
                command_next = _first_word(found, word, start, end, is_known)
            elif word.startswith("-"):
                found.append((start, end, "option"))
            found += _parts(lexer.word, end)
    except ShellSyntaxError as error:
        at = error.position.offset
        if at < len(text) and text[at] in "'\"`":
            found.append((at, len(text), "string"))
        return sorted(found)


def _first_word(found: list[Span], word: str, start: int, end: int, is_known: Callable[[str], bool]) -> bool:
    """Colours a word in the place of a command; returns whether the next word stands there too."""
    if word in RESERVED:
        found.append((start, end, "keyword"))
        return word not in _NOT_BEFORE_COMMANDS
    name, equals, _ = word.partition("=")
    if equals and name.isidentifier():
        return True
    if not any(char in word for char in "$`'\"\\*~"):
        found.append((start, end, "command" if is_known(word) else "unknown"))
    return False


def _parts(word: Word, end: int) -> list[Span]:
    """Quotes and expansions inside a word."""
    starts = [part.offset for part in word.parts[1:]] + [end]
    found: list[Span] = []
    for part, stop in zip(word.parts, starts, strict=True):
        if isinstance(part, _QUOTED):
            found.append((part.offset, stop, "string"))
        elif isinstance(part, _EXPANDED):
            found.append((part.offset, stop, "variable"))
    return found
