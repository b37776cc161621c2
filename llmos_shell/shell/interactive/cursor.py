"""Where the cursor is in an unfinished line: the words of the command it is in, and the word being typed.

Deliberately forgiving where the parser is strict: whatever is typed so far, completion wants an answer. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

_KEYWORDS = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "{", "time"})
_ESCAPED = frozenset(" \t\"'\\$`;|&()<>*?[]#~{}!")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(?:\[[^]]*\])?\+?=")
_BEGUN_VARIABLE = re.compile(r"\$(\{[#!]?)?([A-Za-z_]\w*)?\Z")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


@dataclass(frozen=True)
class Place:
    """What stands before the cursor.

    `words` are the complete words of the command, without quotes and redirections; `raw` is the begun one as it was
    typed and `word` the same without its quotes. `quote` is the quote that is open in it, if one is.
    """

    words: tuple[str, ...] = ()
    raw: str = ""
    word: str = ""
    quote: str = ""
    redirection: str = ""  # the operator, if the begun word is the target of one
    comment: bool = False
    assignments: tuple[str, ...] = ()  # names that are given values before the command
    inside: bool = False  # the open quote began before `raw`

    @property
    def typed(self) -> int:
        """How many characters the begun word takes in the line."""
        return len(self.raw)

    def tail(self, start: int) -> Place | None:
        """The same place with the first `start` characters of the begun word left as they are.

        None where a quote begins on one side of that point and ends on the other.
        """
        before = _read_word(self.raw[:start])[1]
        word, quote = _read_word(before + self.raw[start:])
        if before and quote != before:
            return None
        return replace(self, raw=self.raw[start:], word=word, quote=quote, inside=bool(before))


@dataclass
class _Frame:
    """One command that is being typed; `$(…)` and `(…)` begin inner ones."""

    closes: str = ""
    words: list[tuple[str, str]] = field(default_factory=list)  # with the redirection each is the target of
    word: str = ""
    start: int = -1  # of the begun word; -1: there is none
    quote: str = ""
    redirection: str = ""

    def finish(self) -> None:
        """The begun word is complete."""
        if self.start >= 0:
            self.words.append((self.word, self.redirection))
            self.word, self.start, self.redirection = "", -1, ""

    def begin_command(self) -> None:
        """A separator was read."""
        self.words, self.word, self.start, self.redirection = [], "", -1, ""


def find_place(line: str) -> Place:
    """The place at the end of this text."""
    return _Finder(line).find()


class _Finder:
    """Reads a text to its end, remembering the commands around the present one."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.at = 0
        self.frames = [_Frame()]
        self.comment = False

    def find(self) -> Place:
        """Reads it all."""
        while self.at < len(self.line):
            self._step()
        frame = self.frames[-1]
        plain = [text for text, target in frame.words if not target]
        assignments: list[str] = []
        while plain and (plain[0] in _KEYWORDS or _ASSIGNMENT.match(plain[0])):
            text = plain.pop(0)
            if text not in _KEYWORDS:
                assignments.append(text.partition("=")[0])
        raw = self.line[frame.start :] if frame.start >= 0 else ""
        return Place(
            tuple(plain), raw, frame.word, frame.quote, frame.redirection, self.comment, assignments=tuple(assignments)
        )

    def _step(self) -> None:
        frame, char = self.frames[-1], self.line[self.at]
        following = self.line[self.at + 1 : self.at + 2]
        if frame.quote == "'":
            self._quoted(frame, char, "'")
        elif self.line.startswith("$(", self.at) or char == "`":
            self._substitution(frame, char)
        elif self.line.startswith("${", self.at):
            self._braced(frame)
        elif frame.quote == '"':
            if char == "\\" and following:
                self.at += 1
                char = following if following in '"\\$`' else "\\" + following
                self._add(frame, char)
            else:
                self._quoted(frame, char, '"')
        else:
            self._unquoted(frame, char, following)
        self.at += 1

    def _quoted(self, frame: _Frame, char: str, quote: str) -> None:
        if char == quote:
            frame.quote = ""
        else:
            self._add(frame, char)

    def _add(self, frame: _Frame, text: str) -> None:
        if frame.start < 0:
            frame.start = self.at
        frame.word += text

    def _substitution(self, frame: _Frame, char: str) -> None:
        if char == "`" and frame.closes == "`":
            self._close()
            return
        self._add(frame, "")
        self.frames.append(_Frame(closes="`" if char == "`" else ")"))
        self.at += char == "$"

    def _close(self) -> None:
        """The inner command ends; what it prints is not known."""
        opened = self.frames.pop()
        outer = self.frames[-1]
        if opened.closes == "group":
            outer.begin_command()

    def _braced(self, frame: _Frame) -> None:
        end = self.line.find("}", self.at)
        text = self.line[self.at : end + 1 if end >= 0 else len(self.line)]
        self._add(frame, text)
        self.at += len(text) - 1

    def _unquoted(self, frame: _Frame, char: str, following: str) -> None:
        if char in "'\"":
            self._add(frame, "")
            frame.quote = char
        elif char == "\\" and following:
            self._add(frame, "" if following == "\n" else following)
            self.at += 1
        elif char in " \t":
            frame.finish()
        elif char == "#" and frame.start < 0:
            self._comment()
        elif char in "<>":
            self._redirection(frame, char)
        elif char == "(":
            self._parenthesis(frame)
        elif char == ")":
            if len(self.frames) > 1 and frame.closes != "`":
                self._close()
            else:
                frame.begin_command()
        elif char in ";|&\n" or (char == "}" and frame.start < 0):
            frame.begin_command()
        else:
            self._add(frame, char)

    def _comment(self) -> None:
        end = self.line.find("\n", self.at)
        self.comment = end < 0
        self.at = len(self.line) - 1 if end < 0 else end - 1

    def _redirection(self, frame: _Frame, char: str) -> None:
        if self.line.startswith("(", self.at + 1):  # process substitution
            self._add(frame, "")
            self.frames.append(_Frame(closes=")"))
            self.at += 1
            return
        if not frame.word.isdigit():
            frame.finish()
        operator = char
        while self.at + 1 < len(self.line) and self.line[self.at + 1] in "<>&|":
            self.at += 1
            operator += self.line[self.at]
        frame.word, frame.start, frame.redirection = "", -1, operator

    def _parenthesis(self, frame: _Frame) -> None:
        if frame.start >= 0 and frame.word.endswith("="):  # an array: its elements are words
            frame.word, frame.start = "", -1
            frame.words.append(("=(", ""))
        elif frame.start >= 0 and self.line.startswith(")", self.at + 1):  # a function
            self.at += 1
            frame.begin_command()
        else:
            self.frames.append(_Frame(closes="group"))


def _read_word(raw: str) -> tuple[str, str]:
    """A begun word without its quotes, and the quote that is open in it."""
    place = find_place(raw)
    return place.word, place.quote


def begun_variable(place: Place) -> str | None:
    """The beginning of a `$NAME` at the end of the word, with its `$` or `${`."""
    if place.quote == "'" or (found := _BEGUN_VARIABLE.search(place.raw)) is None:
        return None
    escapes = len(place.raw[: found.start()]) - len(place.raw[: found.start()].rstrip("\\"))
    return None if escapes % 2 else found.group()


def expand_head(raw: str, lookup: Callable[[str], str | None], home: Callable[[str], str | None]) -> str:
    """A folder as it was typed, without quotes and with `~` and variables replaced. Forgiving: nothing else expands."""
    pieces, quote, at = [], "", 0
    tilde = re.match(r"~([\w.-]*)/", raw)
    if tilde and (folder := home(tilde.group(1))) is not None:
        pieces, at = [folder], tilde.end() - 1
    while at < len(raw):
        char = raw[at]
        if quote != "'" and char == "$" and (found := _VARIABLE.match(raw, at)):
            pieces.append(lookup(found.group(1) or found.group(2)) or "")
            at = found.end()
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif char == "\\" and quote != "'" and at + 1 < len(raw):
            at += 1
            pieces.append(raw[at] if not quote or raw[at] in '"\\$`' else "\\" + raw[at])
        else:
            pieces.append(char)
        at += 1
    return "".join(pieces)


def quote_word(word: str, quote: str = "", *, first: bool = True) -> str:
    """A word as it must be typed, outside of quotes or after an open one, which is not part of the result.

    `first` says whether the word begins here, so that a `~` would mean a home folder.
    """
    if quote == "'":
        return word.replace("'", "'\\''")
    if quote == '"':
        return "".join("\\" + char if char in '"\\$`' else char for char in word)
    if any(char < " " or char == "\x7f" for char in word):
        return "$'" + "".join(f"\\{ord(char):03o}" if char < " " or char in "\x7f\\'" else char for char in word) + "'"
    return "".join("\\" + char if char in _ESCAPED and (char != "~" or first) else char for char in word)
