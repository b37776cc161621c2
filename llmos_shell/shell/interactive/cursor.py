"""Where the cursor is in an unfinished line: the words of the command it is in, and the word being typed.

Deliberately forgiving where the parser is strict: whatever is typed so far, completion wants an answer. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

_BREAKS = frozenset(";|&(){}\n")
_BLANK = " \t"
_KEYWORDS = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "{"})
_ESCAPED = frozenset(" \t\"'\\$`;|&()<>*?[]#~{}!")


@dataclass(frozen=True)
class Place:
    """`words` are complete words of the command before the cursor, `word` the begun one without its quotes."""

    words: tuple[str, ...]
    word: str
    typed: int  # characters of the line that `word` takes, quotes included
    quote: str = ""  # the quote that is open, if one is
    redirection: bool = False  # the word is the target of one


def find_place(line: str) -> Place:
    """The place at the end of this text."""
    words: list[str] = []
    redirections: list[bool] = []
    word, start, quote, redirect, at = "", -1, "", False, 0

    def finish() -> None:
        nonlocal word, start, redirect
        if start >= 0:
            words.append(word)
            redirections.append(redirect)
            word, start, redirect = "", -1, False

    while at < len(line):
        char = line[at]
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"' and at + 1 < len(line):
                at += 1
                word += line[at]
            else:
                word += char
        elif char in "'\"":
            quote, start = char, at if start < 0 else start
        elif char == "\\" and at + 1 < len(line):
            start = at if start < 0 else start
            at += 1
            word += line[at]
        elif char in _BLANK:
            finish()
        elif char in "<>":
            if not word.isdigit():
                finish()
            word, start, redirect = "", -1, True
        elif char in _BREAKS and not (char == "{" and word.endswith("$")):
            words, redirections, word, start, redirect = [], [], "", -1, False
        else:
            start = at if start < 0 else start
            word += char
        at += 1
    plain = [text for text, target in zip(words, redirections, strict=True) if not target]
    while plain and (plain[0] in _KEYWORDS or _is_assignment(plain[0])):
        plain.pop(0)
    typed = len(line) - start if start >= 0 else 0
    return Place(tuple(plain), word, typed, quote, redirect)


def quote_word(word: str, quote: str = "") -> str:
    """A word as it must be typed, inside an open quote or outside of any."""
    if quote == "'":
        return quote + word.replace("'", "'\\''")
    if quote == '"':
        return quote + "".join("\\" + char if char in '"\\$`' else char for char in word)
    tilde = word[:1] == "~"
    escaped = "".join("\\" + char if char in _ESCAPED else char for char in word[tilde:])
    return "~" * tilde + escaped


def _is_assignment(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()
