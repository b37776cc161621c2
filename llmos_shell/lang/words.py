"""Reads words: quotes, plain text, patterns. What begins with `$` is `substitutions.py`'s, tokens are `lexer.py`'s."""

from __future__ import annotations

import re

from llmos_shell.lang.ast import (
    AnsiQuoted,
    DoubleQuoted,
    Escaped,
    Literal,
    Part,
    ProcessSubstitution,
    SingleQuoted,
    Tilde,
    Word,
)
from llmos_shell.lang.errors import Source
from llmos_shell.lang.substitutions import SubstitutionReader

_LITERAL = re.compile(r"[^ \t\n|&;<>()\\'\"`$]+")
_TILDE = re.compile(r"~([A-Za-z_][A-Za-z0-9_.-]*)?(?=/|\Z)")
_ANSI_QUOTED = re.compile(r"(?:[^\\']|\\.)*", re.DOTALL)
_QUOTED_RUN = re.compile(r'[^\\"`$]+')
_HERE_RUN = re.compile(r"[^\\`$]+")
_BRACE_RUN = {"}": re.compile(r"[^\\'\"`$}]+"), "}/": re.compile(r"[^\\'\"`$}/]+")}
_BRACE_QUOTED_RUN = re.compile(r"[^\\\"`$}]+")
_EXTENDED_RUN = re.compile(r"[^\\'\"`$()]+")
_REGEX_RUN = re.compile(r"[^ \t\n|&;<>()\\'\"`$]+|\|(?!\|)")
_BEFORE_EXTENDED = frozenset("@?*+!")


class WordReader(SubstitutionReader):
    """Reads words of `text` from `position` on."""

    def __init__(self, source: Source, text: str, position: int, base: int, depth: int, more: bool) -> None:
        super().__init__(source, text, position, base, depth, more)
        self.extended = False  # whether words are patterns, in which `@(…)` and its like belong together

    def read_here_documents(self) -> None:
        """Reads the bodies of the pending here-documents, which begin at the current position; the lexer does."""
        raise NotImplementedError

    # -- words -------------------------------------------------------------------------------------------------------

    def read_word(self, start: int) -> Word:
        """The word that begins at `start`, which may be empty; `position` is set to its end."""
        text, position, parts = self.text, start, []  # type: tuple[str, int, list[Part]]
        end = len(text)
        while position < end:
            match = _LITERAL.match(text, position)
            if match is not None:
                self.add_literal(parts, match.group(), position)
                position = match.end()
                continue
            char = text[position]
            if char in "<>(":
                following = self._read_parenthesis(parts, char, position)
                if following == position:
                    break
                position = following
            elif char in " \t\n|&;)":
                break
            else:
                position = self.read_special(parts, char, position)
        self.position = position
        mark_tilde(parts)
        return Word(parts, start + self.base)

    def _read_parenthesis(self, parts: list[Part], char: str, position: int) -> int:
        """Reads `<(…)`, or where patterns stand `@(…)` from behind its first character; else stays where it is."""
        if char != "(":
            if not self.text.startswith("(", position + 1):
                return position
            body, end = self.read_commands(position + 2)
            parts.append(ProcessSubstitution(char, body, position + self.base))
            return end
        last = parts[-1] if parts else None
        if not self.extended or type(last) is not Literal or last.text[-1] not in _BEFORE_EXTENDED:
            return position
        return self._read_group(parts, position)

    def _read_group(self, parts: list[Part], position: int) -> int:
        """Reads parentheses of a pattern or a regular expression, with all that is in them."""
        self.add_literal(parts, "(", position)
        close = self.read_nested(parts, position, "()", _EXTENDED_RUN, self._read_of_regex)
        self.add_literal(parts, ")", close)
        return close + 1

    def read_regex(self, start: int) -> Word:
        """A regular expression: a word in which parentheses and `|` are plain text."""
        text, at, parts = self.text, start, []  # type: tuple[str, int, list[Part]]
        while at < len(text):
            match = _REGEX_RUN.match(text, at)
            char = text[at]
            if match is not None:
                self.add_literal(parts, match.group(), at)
                at = match.end()
            elif char == "(":
                at = self._read_group(parts, at)
            elif char in " \t\n|&;<>)":
                break
            else:
                at = self._read_of_regex(parts, char, at)
        self.position = at
        return Word(parts, start + self.base)

    def _read_of_regex(self, parts: list[Part], char: str, position: int) -> int:
        """Reads what is special in any word; but a lone `$` is an anchor."""
        before = len(parts)
        at = self.read_special(parts, char, position)
        if char == "$" and len(parts) > before and type(parts[-1]) is Escaped:
            parts.pop()
            self.add_literal(parts, "$", position)
        return at

    def read_special(self, parts: list[Part], char: str, position: int) -> int:
        """Reads the part that begins with a backslash, a quote, `$` or a backquote, outside double quotes."""
        text = self.text
        if char == "\\":
            return self._read_backslash(parts, position)
        if char == "'":
            close = text.find("'", position + 1)
            if close < 0:
                self.fail("unterminated ' quote", position, incomplete=True)
            parts.append(SingleQuoted(text[position + 1 : close], position + self.base))
            return close + 1
        if char == '"':
            return self._read_double_quoted(parts, position)
        if char == "$":
            following = text[position + 1 : position + 2]
            if following == "'":
                return self._read_ansi_quoted(parts, position)
            if following == '"':
                return self._read_double_quoted(parts, position + 1)
        return self.read_expansion(parts, char, position, quoted=False)

    def _read_backslash(self, parts: list[Part], position: int) -> int:
        following = self.text[position + 1 : position + 2]
        if not following:
            if self.more:
                self.fail("nothing follows the backslash", position, incomplete=True)
            parts.append(Escaped("\\", position + self.base))
            return position + 1
        if following != "\n":
            parts.append(Escaped(following, position + self.base))
        elif position + 2 >= len(self.text) and self.more:
            self.fail("nothing follows the backslash", position, incomplete=True)
        return position + 2

    def _read_ansi_quoted(self, parts: list[Part], position: int) -> int:
        close = _ANSI_QUOTED.match(self.text, position + 2).end()  # type: ignore[union-attr]
        if not self.text.startswith("'", close):
            self.fail("unterminated $' quote", position, incomplete=True)
        parts.append(AnsiQuoted(self.text[position + 2 : close], position + self.base))
        return close + 1

    def _read_double_quoted(self, parts: list[Part], position: int) -> int:
        text, inner, at = self.text, [], position + 1  # type: tuple[str, list[Part], int]
        while True:
            match = _QUOTED_RUN.match(text, at)
            if match is not None:
                self.add_literal(inner, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.fail('unterminated " quote', position, incomplete=True)
            char = text[at]
            if char == '"':
                parts.append(DoubleQuoted(inner, position + self.base))
                return at + 1
            if char == "\\":
                at = self.read_quoted_backslash(inner, at, '$`"\\')
            else:
                at = self.read_expansion(inner, char, at)

    def read_brace_word(self, at: int, position: int, quoted: bool, stop: str = "}") -> tuple[Word, int]:
        """The word inside `${x…}`, and where what ends it is.

        In double quotes, `'` means itself and `"` still quotes.
        """
        text, parts, start = self.text, [], at  # type: tuple[str, list[Part], int]
        run = _BRACE_QUOTED_RUN if quoted else _BRACE_RUN[stop]
        while True:
            match = run.match(text, at)
            if match is not None:
                self.add_literal(parts, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.fail("unterminated ${", position, incomplete=True)
            char = text[at]
            if char in stop:
                if not quoted:
                    mark_tilde(parts)
                return Word(parts, start + self.base), at
            if not quoted:
                at = self.read_special(parts, char, at)
            elif char == "\\":
                at = self.read_quoted_backslash(parts, at, '$`"\\}')
            elif char == '"':
                at = self._read_double_quoted(parts, at)
            else:
                at = self.read_expansion(parts, char, at)

    def read_here_body(self) -> list[Part]:
        """The parts of an unquoted here-document that is this lexer's whole text."""
        text, parts, at = self.text, [], 0  # type: tuple[str, list[Part], int]
        while True:
            match = _HERE_RUN.match(text, at)
            if match is not None:
                self.add_literal(parts, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.position = at
                self.read_here_documents()
                return parts
            if text[at] == "\\":
                at = self.read_quoted_backslash(parts, at, "$`\\")
            else:
                at = self.read_expansion(parts, text[at], at)


def mark_tilde(parts: list[Part]) -> None:
    """Makes a `~` that begins an unquoted word a `Tilde`, where it stands for a home folder."""
    first = parts[0] if parts else None
    if type(first) is not Literal or not first.text.startswith("~"):
        return
    match = _TILDE.match(first.text)
    if match is None or (match.end() == len(first.text) and len(parts) > 1):
        return
    rest = first.text[match.end() :]
    parts[:1] = [
        Tilde(match.group(1) or "", first.offset),
        *([Literal(rest, first.offset + match.end())] if rest else []),
    ]
