"""History expansion: `!!`, `!N`, `!-N`, `!beginning`, `!?part`, `!$`, `!^`, `!*`, `!!:N` and `^old^new`. Pure.

Only where a word begins, and outside of quotes: everywhere else an exclamation mark means itself. Whoever uses this
shows the result before it is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llmos_shell.lang.errors import ShellSyntaxError, Source
from llmos_shell.lang.lexer import EOF, WORD
from llmos_shell.lang.parser import Parser

_EVENT = re.compile(
    r"""!(?:(?P<newest>!)|(?P<number>-?[0-9]+)|\?(?P<part>[^?\n]+)\??|(?P<argument>[$^*])|(?P<begins>[^\W\d][\w./-]*))
        (?::?(?P<word>[$^*])|:(?P<index>[0-9]+))?""",
    re.VERBOSE,
)
_QUICK = re.compile(r"\^([^^\n]+)\^([^^\n]*)\^?\Z")
_OPENS_WORD = frozenset(" \t\n;|&(")


class NoSuchEntry(Exception):
    """The history has nothing that fits."""


def expand_history(text: str, entries: Sequence[str]) -> str:
    """The text with its references replaced (the same text when it has none); `entries` are oldest first.

    Raises `NoSuchEntry`.
    """
    quick = _QUICK.match(text)
    if quick:
        newest = _newest(entries)
        if quick.group(1) not in newest:
            raise NoSuchEntry(f"the last command has no `{quick.group(1)}` in it")
        return newest.replace(quick.group(1), quick.group(2), 1)
    pieces, done = [], 0
    for at in _marks(text):
        found = _EVENT.match(text, at)
        if found is not None and at >= done:
            pieces += [text[done:at], _replacement(found, entries)]
            done = found.end()
    return "".join([*pieces, text[done:]])


def _marks(text: str) -> Iterator[int]:
    """Where exclamation marks begin words, outside of quotes, comments and questions to the assistant."""
    if "!" not in text or text.lstrip().startswith("?"):
        return
    quote, before, at = "", " ", 0
    while at < len(text):
        char = text[at]
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"':
                at += 1
        elif char == "\\":
            at += 1
        elif char in "'\"":
            quote = char
        elif char == "#" and before in _OPENS_WORD:
            at = text.find("\n", at)
            if at < 0:
                return
        elif char == "!" and before in _OPENS_WORD:
            yield at
        before = text[at] if at < len(text) else ""
        at += 1


def _replacement(found: re.Match[str], entries: Sequence[str]) -> str:
    event = _event(found, entries)
    which = found["argument"] or found["word"]
    if which is None and found["index"] is None:
        return event
    words = split_words(event)
    if which == "*":
        return " ".join(words[1:])
    index = int(found["index"]) if found["index"] else len(words) - 1 if which == "$" else 1
    if index >= len(words):
        raise NoSuchEntry(f"`{event}` has no word {index}")
    return words[index]


def _event(found: re.Match[str], entries: Sequence[str]) -> str:
    if found["newest"] or found["argument"]:
        return _newest(entries)
    if found["number"]:
        number = int(found["number"])
        place = len(entries) + number if number < 0 else number - 1
        if not 0 <= place < len(entries):
            raise NoSuchEntry(f"the history has no entry {number}: `history` lists them")
        return entries[place]
    part, begins = found["part"], found["begins"]
    for entry in reversed(entries):
        if part in entry if part else entry.startswith(begins):
            return entry
    raise NoSuchEntry(f"nothing in the history {'holds' if part else 'begins with'} `{part or begins}`")


def _newest(entries: Sequence[str]) -> str:
    if not entries:
        raise NoSuchEntry("the history is empty")
    return entries[-1]


def split_words(text: str) -> list[str]:
    """The words of a command line as they were typed, without operators."""
    lexer = Parser(Source(text))
    words: list[str] = []
    try:
        lexer.advance()
        while lexer.kind != EOF:
            if lexer.kind == WORD:
                words.append(text[lexer.start : lexer.position])
            lexer.advance()
    except ShellSyntaxError:
        return text.split()
    return words
