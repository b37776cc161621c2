r"""POSIX extended regular expressions (`[[ x =~ … ]]`), as Python's.

Of several alternatives that match, the first is taken, not the longest as POSIX says. `\b \B \w \W \s \S \< \>` mean
what they mean in GNU's.
"""

from __future__ import annotations

import re

from llmos_shell.lang.errors import ExpansionError
from llmos_shell.lang.patterns import bracket_at

_GNU = {"b": r"\b", "B": r"\B", "w": r"\w", "W": r"\W", "s": r"\s", "S": r"\S", "<": r"\b(?=\w)", ">": r"\b(?<=\w)"}
_REPETITION = re.compile(r"[*+?]|\{(?:[0-9]+(?:,[0-9]*)?|,[0-9]+)\}")
_CACHE_LIMIT = 256
_compiled: dict[tuple[tuple[str, bool], ...], re.Pattern[str]] = {}


def compile_regex(pieces: list[tuple[str, bool]]) -> re.Pattern[str]:
    """The expression made of these texts, of which those that are quoted match themselves. Raises `ExpansionError`."""
    key = tuple(pieces)
    found = _compiled.get(key)
    if found is None:
        if len(_compiled) >= _CACHE_LIMIT:
            _compiled.clear()
        found = _compiled[key] = _compile(pieces)
    return found


def _compile(pieces: list[tuple[str, bool]]) -> re.Pattern[str]:
    text = "".join(_quoted(piece) if quoted else piece for piece, quoted in pieces)
    try:
        return re.compile(_translate(text), re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise ExpansionError(f"`{text[:60]}` is no regular expression: {error}") from None


def _quoted(text: str) -> str:
    """Text that matches itself; of a backslash before a letter that means something, the letter stays as it is."""
    if len(text) == 1 and text in _GNU:
        return f"\\{text}"
    return re.sub(r"([][\\.^$*+?{}()|])", r"\\\1", text)


def _translate(text: str) -> str:
    out: list[str] = []
    at, repeated = 0, True  # nothing that could be repeated stands before
    while at < len(text):
        char = text[at]
        repetition = _REPETITION.match(text, at)
        if repetition is not None and not (char == "{" and repeated):
            if repeated:
                raise ExpansionError(f"`{text[:60]}` is no regular expression: nothing stands before the {char}")
            out.append(repetition.group())
            at, repeated = repetition.end(), True
            continue
        if char == "[" and (found := bracket_at(text, at)) is not None:
            piece, at = found
        elif char == "\\" and at + 1 < len(text):
            piece, at = _GNU.get(text[at + 1]) or re.escape(text[at + 1]), at + 2
        elif char == "$":
            piece, at = r"\Z", at + 1
        else:
            piece, at = char if char in "^.()|" else re.escape(char), at + 1
        out.append(piece)
        repeated = piece in ("(", "|", "^")
    return "".join(out)
