"""Reads words with all their parts: quotes, parameters, substitutions. `$(…)` calls back into the parser.

Tokens are `lexer.py`'s.
"""

from __future__ import annotations

import re
from typing import NoReturn

from llmos_shell.lang.ast import (
    AnsiQuoted,
    Arithmetic,
    CommandSubstitution,
    DoubleQuoted,
    Escaped,
    Literal,
    Parameter,
    Part,
    Redirect,
    Sequence,
    SingleQuoted,
    Tilde,
    Word,
)
from llmos_shell.lang.errors import ShellSyntaxError, Source

MAX_DEPTH = 64
"""How deep commands and substitutions may nest."""

_LITERAL = re.compile(r"[^ \t\n|&;<>()\\'\"`$]+")
_DOLLAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_BRACED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
_BRACE_CLOSE = re.compile(r"(?:\\\n)*\}")
_PARAMETER_OPERATOR = re.compile(r":?[-=?+]|##?|%%?")
_TILDE = re.compile(r"~([A-Za-z_][A-Za-z0-9_.-]*)?(?=/|\Z)")
_ANSI_QUOTED = re.compile(r"(?:[^\\']|\\.)*", re.DOTALL)
_QUOTED_RUN = re.compile(r'[^\\"`$]+')
_HERE_RUN = re.compile(r"[^\\`$]+")
_ARITHMETIC_RUN = re.compile(r"[^\\`$()]+")
_BRACE_RUN = re.compile(r"[^\\'\"`$}]+")
_BRACE_QUOTED_RUN = re.compile(r"[^\\\"`$}]+")


class WordReader:
    """Reads words of `text` from `position` on. `base` is added to all offsets (for text cut out of a larger one)."""

    def __init__(self, source: Source, text: str, position: int, base: int, depth: int, more: bool) -> None:
        self.source = source
        self.text = text
        self.position = position
        self.base = base
        self.depth = depth
        self.more = more  # the user may type more, so an unfinished here-document is incomplete
        self.pending: list[tuple[Redirect, str, bool]] = []  # here-documents: node, delimiter, quoted
        self._not_arithmetic: set[int] = set()
        if depth > MAX_DEPTH:
            self.fail("nested too deeply", position)

    def fail(self, message: str, offset: int, *, incomplete: bool = False) -> NoReturn:
        """Raises a syntax error at an offset of this lexer's text."""
        raise ShellSyntaxError(message, self.source.position(offset + self.base), incomplete)

    def nested(self, position: int, text: str | None = None, base: int = 0, more: bool = True) -> WordReader:
        """A lexer one level deeper; the parser overrides this so that it is a parser."""
        raise NotImplementedError

    def read_until_close(self) -> Sequence:
        """Parses commands up to the closing parenthesis; the parser implements it."""
        raise NotImplementedError

    def read_all(self) -> Sequence:
        """Parses commands up to the end of the text; the parser implements it."""
        raise NotImplementedError

    def read_here_documents(self) -> None:
        """Reads the bodies of the pending here-documents, which begin at the current position; the lexer does."""
        raise NotImplementedError

    # -- words -------------------------------------------------------------------------------------------------------

    def _read_word(self, start: int) -> Word:
        text, position, parts = self.text, start, []  # type: tuple[str, int, list[Part]]
        end = len(text)
        while position < end:
            match = _LITERAL.match(text, position)
            if match is not None:
                self._add_literal(parts, match.group(), position)
                position = match.end()
                continue
            char = text[position]
            if char in " \t\n|&;<>()":
                break
            position = self._read_special(parts, char, position)
        self.position = position
        _mark_tilde(parts)
        return Word(parts, start + self.base)

    def _read_special(self, parts: list[Part], char: str, position: int) -> int:
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
        return self._read_expansion(parts, char, position, quoted=False)

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
                self._add_literal(inner, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.fail('unterminated " quote', position, incomplete=True)
            char = text[at]
            if char == '"':
                parts.append(DoubleQuoted(inner, position + self.base))
                return at + 1
            if char == "\\":
                at = self._read_quoted_backslash(inner, at, '$`"\\')
            else:
                at = self._read_expansion(inner, char, at)

    def _read_quoted_backslash(self, parts: list[Part], position: int, special: str) -> int:
        """A backslash where it only escapes the characters in `special`."""
        following = self.text[position + 1 : position + 2]
        if following and following in special:
            parts.append(Escaped(following, position + self.base))
            return position + 2
        if following == "\n":
            return position + 2
        self._add_literal(parts, "\\", position)
        return position + 1

    def _add_literal(self, parts: list[Part], text: str, position: int) -> None:
        if parts and type(parts[-1]) is Literal:
            last = parts[-1]
            parts[-1] = Literal(last.text + text, last.offset)
        else:
            parts.append(Literal(text, position + self.base))

    # -- expansions --------------------------------------------------------------------------------------------------

    def _read_expansion(self, parts: list[Part], char: str, position: int, *, quoted: bool = True) -> int:
        """Reads what begins with `$` or a backquote; `quoted` says whether it is inside double quotes or alike."""
        if char == "`":
            return self._read_backquoted(parts, position)
        text = self.text
        following = text[position + 1 : position + 2]
        if following == "(":
            if text.startswith("(", position + 2) and position not in self._not_arithmetic:
                end = self._read_arithmetic(parts, position)
                if end:
                    return end
                self._not_arithmetic.add(position)
            return self._read_substitution(parts, position)
        if following == "{":
            return self._read_braced(parts, position, quoted)
        match = _DOLLAR_NAME.match(text, position + 1)
        if match is None:
            parts.append(Escaped("$", position + self.base))
            return position + 1
        parts.append(Parameter(match.group(), offset=position + self.base))
        return match.end()

    def _read_substitution(self, parts: list[Part], position: int) -> int:
        inner = self.nested(position + 2)
        inner._not_arithmetic = self._not_arithmetic
        body = inner.read_until_close()
        self.pending += inner.pending
        parts.append(CommandSubstitution(body, position + self.base))
        return inner.position

    def _read_backquoted(self, parts: list[Part], position: int) -> int:
        text, at, pieces = self.text, position + 1, []  # type: tuple[str, int, list[str]]
        while True:
            if at >= len(text):
                self.fail("unterminated ` quote", position, incomplete=True)
            char = text[at]
            if char == "`":
                break
            if char == "\\" and text[at + 1 : at + 2] in ("`", "$", "\\"):
                at += 1
                char = text[at : at + 1]
            pieces.append(char)
            at += 1
        body = self.nested(0, "".join(pieces), self.base + position + 1, more=False).read_all()
        parts.append(CommandSubstitution(body, position + self.base))
        return at + 1

    def _read_arithmetic(self, parts: list[Part], position: int) -> int:
        """Reads `$((…))`; 0 when it turns out to be a command substitution that begins with a subshell."""
        self._enter(position)
        text, at, inner, depth = self.text, position + 3, [], 0  # type: tuple[str, int, list[Part], int]
        pending = len(self.pending)
        while True:
            match = _ARITHMETIC_RUN.match(text, at)
            if match is not None:
                self._add_literal(inner, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.fail("unterminated $((", position, incomplete=True)
            char = text[at]
            if char == "(" or (char == ")" and depth):
                depth += 1 if char == "(" else -1
                self._add_literal(inner, char, at)
                at += 1
            elif char == ")":
                self.depth -= 1
                if not text.startswith(")", at + 1):
                    del self.pending[pending:]  # what is inside is read again
                    return 0
                parts.append(Arithmetic(Word(inner, position + 3 + self.base), position + self.base))
                return at + 2
            elif char == "\\":
                at = self._read_quoted_backslash(inner, at, "$`\\")
            else:
                at = self._read_expansion(inner, char, at)

    def _enter(self, position: int) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail("nested too deeply", position)

    def _read_braced(self, parts: list[Part], position: int, quoted: bool) -> int:
        """Reads `${…}`."""
        text, at = self.text, position + 2
        length = text.startswith("#", at) and not text.startswith("}", at + 1)
        match = _BRACED_NAME.match(text, at + 1 if length else at)
        if length and (match is None or not _BRACE_CLOSE.match(text, match.end())):
            length, match = False, _BRACED_NAME.match(text, at)
        if match is None:
            self.fail("bad substitution", position, incomplete=at >= len(text))
        name, at = match.group(), match.end()
        close = _BRACE_CLOSE.match(text, at)
        if close is not None:
            parts.append(Parameter(name, "len" if length else "", offset=position + self.base))
            return close.end()
        operator = _PARAMETER_OPERATOR.match(text, at)
        if operator is None:
            self.fail("bad substitution", position, incomplete=at >= len(text))
        pattern = operator.group()[0] in "#%"
        self._enter(position)
        word, at = self._read_brace_word(operator.end(), position, quoted and not pattern)
        self.depth -= 1
        parts.append(Parameter(name, operator.group(), word, position + self.base))
        return at

    def _read_brace_word(self, at: int, position: int, quoted: bool) -> tuple[Word, int]:
        """The word inside `${x…}` and where it ends. In double quotes, `'` means itself and `"` still quotes."""
        text, parts, start = self.text, [], at  # type: tuple[str, list[Part], int]
        run = _BRACE_QUOTED_RUN if quoted else _BRACE_RUN
        while True:
            match = run.match(text, at)
            if match is not None:
                self._add_literal(parts, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.fail("unterminated ${", position, incomplete=True)
            char = text[at]
            if char == "}":
                if not quoted:
                    _mark_tilde(parts)
                return Word(parts, start + self.base), at + 1
            if not quoted:
                at = self._read_special(parts, char, at)
            elif char == "\\":
                at = self._read_quoted_backslash(parts, at, '$`"\\}')
            elif char == '"':
                at = self._read_double_quoted(parts, at)
            else:
                at = self._read_expansion(parts, char, at)

    def read_here_body(self) -> list[Part]:
        """The parts of an unquoted here-document that is this lexer's whole text."""
        text, parts, at = self.text, [], 0  # type: tuple[str, list[Part], int]
        while True:
            match = _HERE_RUN.match(text, at)
            if match is not None:
                self._add_literal(parts, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.position = at
                self.read_here_documents()
                return parts
            if text[at] == "\\":
                at = self._read_quoted_backslash(parts, at, "$`\\")
            else:
                at = self._read_expansion(parts, text[at], at)


def _mark_tilde(parts: list[Part]) -> None:
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
