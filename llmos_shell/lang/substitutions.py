"""Reads what begins with `$` or a backquote: parameters, commands, arithmetic. `$(…)` calls back into the parser.

Quotes and whole words are `words.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from llmos_shell.lang.ast import (
    Arithmetic,
    CommandSubstitution,
    Escaped,
    Literal,
    Parameter,
    Part,
    Redirect,
    Sequence,
    Word,
)
from llmos_shell.lang.errors import ShellSyntaxError, Source

MAX_DEPTH = 64
"""How deep commands and substitutions may nest."""

_DOLLAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_BRACED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
_NAME_GOES_ON = re.compile(r"[A-Za-z0-9_]+")
_INDIRECT = re.compile(r"!(?:\\\n)*(?=[A-Za-z0-9_]|[#@*](?:\\\n)*\})")
_PREFIX_END = re.compile(r"(?:\\\n)*([@*])(?:\\\n)*\}")
_BRACE_CLOSE = re.compile(r"(?:\\\n)*\}")
_OPERATOR = re.compile(r"(?:\\\n)*(?:(:?[-=?+]|##?|%%?|\^\^?|,,?)|(//|/#|/%|/)|(@[QUuLEa])(?=\})|(:))")
_ARITHMETIC_RUN = re.compile(r"[^\\`$()]+")
_SUBSCRIPT_RUN = re.compile(r"[^\\'\"`$\[\]]+")
_SLICE_RUN = re.compile(r"[^\\'\"`$(){}:?\[\]]+")
_BLANKS = " \t\n"


class SubstitutionReader:
    """Reads `text` from `position` on. `base` is added to all offsets (for text cut out of a larger one)."""

    def __init__(self, source: Source, text: str, position: int, base: int, depth: int, more: bool) -> None:
        self.source = source
        self.text = text
        self.position = position
        self.base = base
        self.depth = depth
        self.more = more  # the user may type more, so an unfinished here-document is incomplete
        self.pending: list[tuple[Redirect, str, bool]] = []  # here-documents: node, delimiter, quoted
        self.not_arithmetic: set[int] = set()  # where `((` turned out to begin two subshells
        if depth > MAX_DEPTH:
            self.fail("nested too deeply", position)

    def fail(self, message: str, offset: int, *, incomplete: bool = False) -> NoReturn:
        """Raises a syntax error at an offset of this reader's text."""
        raise ShellSyntaxError(message, self.source.position(offset + self.base), incomplete)

    def nested(self, position: int, text: str | None = None, base: int = 0, more: bool = True) -> SubstitutionReader:
        """A reader one level deeper; the parser overrides this so that it is a parser."""
        raise NotImplementedError

    def read_until_close(self) -> Sequence:
        """Parses commands up to the closing parenthesis; the parser implements it."""
        raise NotImplementedError

    def read_all(self) -> Sequence:
        """Parses commands up to the end of the text; the parser implements it."""
        raise NotImplementedError

    def read_here_body(self) -> list[Part]:
        """The parts of an unquoted here-document that is this reader's whole text; `words.py` implements it."""
        raise NotImplementedError

    def read_special(self, parts: list[Part], char: str, position: int) -> int:
        """Reads a backslash, a quote, `$` or a backquote, outside double quotes; `words.py` implements it."""
        raise NotImplementedError

    def read_brace_word(self, at: int, position: int, quoted: bool, stop: str = "}") -> tuple[Word, int]:
        """The word inside `${x…}`, and where what ends it is; `words.py` implements it."""
        raise NotImplementedError

    # -- pieces ------------------------------------------------------------------------------------------------------

    def add_literal(self, parts: list[Part], text: str, position: int) -> None:
        """Adds plain text to the parts of a word."""
        if parts and type(parts[-1]) is Literal:
            last = parts[-1]
            parts[-1] = Literal(last.text + text, last.offset)
        else:
            parts.append(Literal(text, position + self.base))

    def read_quoted_backslash(self, parts: list[Part], position: int, special: str) -> int:
        """A backslash where it only escapes the characters in `special`."""
        following = self.text[position + 1 : position + 2]
        if following and following in special:
            parts.append(Escaped(following, position + self.base))
            return position + 2
        if following == "\n":
            return position + 2
        self.add_literal(parts, "\\", position)
        return position + 1

    def past_joins(self, at: int) -> int:
        """Where the text goes on behind backslashes at the ends of lines."""
        while self.text.startswith("\\\n", at):
            at += 2
        return at

    def _rest_of_name(self, name: str, end: int) -> tuple[str, int]:
        """A name that may go on on the next line, behind a backslash."""
        while name[0].isalpha() or name[0] == "_":
            match = _NAME_GOES_ON.match(self.text, self.past_joins(end))
            if match is None:
                break
            name, end = name + match.group(), match.end()
        return name, end

    def enter(self, position: int) -> None:
        """Counts how deep things nest."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail("nested too deeply", position)

    # -- expansions --------------------------------------------------------------------------------------------------

    def read_expansion(self, parts: list[Part], char: str, position: int, *, quoted: bool = True) -> int:
        """Reads what begins with `$` or a backquote; `quoted` says whether it is inside double quotes or alike."""
        if char == "`":
            return self._read_backquoted(parts, position)
        text, at = self.text, position + 1
        if text.startswith("\\\n", at):
            at = self.past_joins(at)
        following = text[at : at + 1]
        if following == "(":
            if text.startswith("(", at + 1) and position not in self.not_arithmetic:
                found = self.read_arithmetic(position, at + 2, "$((")
                if found is not None:
                    parts.append(Arithmetic(found[0], position + self.base))
                    return found[1]
            body, end = self.read_commands(at + 1)
            parts.append(CommandSubstitution(body, position + self.base))
            return end
        if following == "{":
            return self._read_braced(parts, position, at + 1, quoted)
        match = _DOLLAR_NAME.match(text, at)
        if match is None:
            parts.append(Escaped("$", position + self.base))
            return position + 1
        name, end = match.group(), match.end()
        if text.startswith("\\\n", end):
            name, end = self._rest_of_name(name, end)
        parts.append(Parameter(name, offset=position + self.base))
        return end

    def read_commands(self, at: int) -> tuple[Sequence, int]:
        """Commands up to a closing parenthesis, and where the text goes on behind it."""
        inner = self.nested(at)
        inner.not_arithmetic = self.not_arithmetic
        body = inner.read_until_close()
        self.pending += inner.pending
        return body, inner.position

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

    def read_arithmetic(self, position: int, at: int, opening: str) -> tuple[Word, int] | None:
        """Reads from `at` on up to `))`, and gives where the text goes on behind them.

        None when it turns out that `((` at `position` begins two subshells.
        """
        self.enter(position)
        text, start, inner, depth = self.text, at, [], 0  # type: tuple[str, int, list[Part], int]
        pending = len(self.pending)
        while True:
            match = _ARITHMETIC_RUN.match(text, at)
            if match is not None:
                self.add_literal(inner, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.fail(f"unterminated {opening}", position, incomplete=True)
            char = text[at]
            if depth > MAX_DEPTH or (char == ")" and not depth and not text.startswith(")", self.past_joins(at + 1))):
                del self.pending[pending:]  # what is inside is read again
                self.not_arithmetic.add(position)
                self.depth -= 1
                return None
            if char == "(" or (char == ")" and depth):
                depth += 1 if char == "(" else -1
                self.add_literal(inner, char, at)
                at += 1
            elif char == ")":
                self.depth -= 1
                return Word(inner, start + self.base), self.past_joins(at + 1) + 1
            elif char == "\\":
                at = self.read_quoted_backslash(inner, at, "$`\\")
            else:
                at = self.read_expansion(inner, char, at)

    # -- ${…} --------------------------------------------------------------------------------------------------------

    def _read_braced(self, parts: list[Part], position: int, at: int, quoted: bool) -> int:
        """Reads `${…}` from behind the brace."""
        text = self.text
        at = self.past_joins(at)
        if text.startswith("#", at):
            end = self._read_length(parts, position, at + 1)
            if end:
                return end
        match = _INDIRECT.match(text, at)
        indirect = match is not None
        if match is not None:
            at = match.end()
        match = _BRACED_NAME.match(text, at)
        if match is None:
            self.fail("bad substitution", position, incomplete=at >= len(text))
        name, at = self._rest_of_name(match.group(), match.end())
        match = _PREFIX_END.match(text, at) if indirect else None
        if match is not None:
            parts.append(Parameter(name, f"names{match.group(1)}", offset=position + self.base))
            return match.end()
        index, at = self._read_index(name, at)
        part = Parameter(name, offset=position + self.base, index=index, indirect=indirect)
        if indirect and index is not None and index.literal() in ("@", "*"):
            part.operator, part.indirect = "keys", False
            close = _BRACE_CLOSE.match(text, at)
            if close is None:
                self.fail("bad substitution", position, incomplete=at >= len(text))
            end = close.end()
        else:
            end = self._read_operator(part, position, at, quoted)
        parts.append(part)
        return end

    def _read_length(self, parts: list[Part], position: int, at: int) -> int:
        """Reads the rest of `${#name}`; 0 when the `#` is the parameter `$#` itself."""
        at = self.past_joins(at)
        match = _BRACED_NAME.match(self.text, at)
        if match is None:
            return 0
        name, end = self._rest_of_name(match.group(), match.end())
        index, end = self._read_index(name, end)
        close = _BRACE_CLOSE.match(self.text, end)
        if close is None:
            if name in "#?$!@*-":
                return 0
            self.fail("bad substitution", position, incomplete=end >= len(self.text))
        parts.append(Parameter(name, "len", offset=position + self.base, index=index))
        return close.end()

    def _read_index(self, name: str, at: int) -> tuple[Word | None, int]:
        if not self.text.startswith("[", at) or not (name[0].isalpha() or name[0] == "_"):
            return None, at
        index, end = self.read_subscript(at)
        if not index.parts:
            self.fail("the index is missing", at)
        return index, end

    def read_subscript(self, position: int) -> tuple[Word, int]:
        """The index in brackets that begin at `position`, and where the text goes on behind them."""
        self.enter(position)
        parts: list[Part] = []
        close = self.read_nested(parts, position, "[]", _SUBSCRIPT_RUN, self.read_special)
        self.depth -= 1
        return Word(parts, position + 1 + self.base), close + 1

    def read_nested(
        self,
        parts: list[Part],
        position: int,
        pair: str,
        run: re.Pattern[str],
        read_special: Callable[[list[Part], str, int], int],
    ) -> int:
        """Reads what is between the bracket at `position` and its partner; where that is. Pairs inside are plain text.

        `run` matches what is plain text besides, `read_special` reads the rest.
        """
        text, at, depth = self.text, position + 1, 0
        while True:
            match = run.match(text, at)
            if match is not None:
                self.add_literal(parts, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.fail(f"unterminated {pair[0]}", position, incomplete=True)
            char = text[at]
            if char == pair[1] and not depth:
                return at
            if char in pair:
                depth += 1 if char == pair[0] else -1
                self.add_literal(parts, char, at)
                at += 1
            else:
                at = read_special(parts, char, at)

    def _read_operator(self, part: Parameter, position: int, at: int, quoted: bool) -> int:
        """Reads what follows the name in `${name…}`, the brace included."""
        text = self.text
        close = _BRACE_CLOSE.match(text, at)
        if close is not None:
            return close.end()
        match = _OPERATOR.match(text, at)
        if match is None:
            self.fail("bad substitution", position, incomplete=at >= len(text))
        self.enter(position)
        part.operator, at = match.group(match.lastindex or 0), match.end()
        if match.lastindex == 1:
            pattern = part.operator[0] in "#%^,"
            part.word, at = self.read_brace_word(at, position, quoted and not pattern)
        elif match.lastindex == 2:
            at = self._read_replacement(part, position, at)
        elif match.lastindex == 4:
            at = self._read_slice(part, position, at)
        self.depth -= 1
        return at + 1

    def _read_replacement(self, part: Parameter, position: int, at: int) -> int:
        """Reads pattern and replacement; a pattern for `//` may begin with a slash. Returns where the brace is."""
        first: list[Part] = []
        if part.operator == "//" and self.text.startswith("/", at):
            first = [Literal("/", at + self.base)]
        word, at = self.read_brace_word(at + len(first), position, False, "}/")
        if first:
            rest = word.parts
            if rest and type(rest[0]) is Literal:
                first, rest = [Literal("/" + rest[0].text, first[0].offset)], rest[1:]
            word = Word([*first, *rest], first[0].offset)
        part.word = word
        if self.text[at] == "/":
            part.extra, at = self.read_brace_word(at + 1, position, False)
        return at

    def _read_slice(self, part: Parameter, position: int, at: int) -> int:
        """Reads offset and length. Returns where the brace is."""
        part.word, end = self._read_slice_word(at, position)
        if self.text[end] == ":":
            part.extra, end = self._read_slice_word(end + 1, position)
        elif not part.word.parts:
            self.fail("bad substitution", position)
        return end

    def _read_slice_word(self, at: int, position: int) -> tuple[Word, int]:
        """An expression up to a colon that is not part of `?:`, or to the brace."""
        text, start, parts = self.text, at, []  # type: tuple[str, int, list[Part]]
        depth = choices = 0
        while True:
            match = _SLICE_RUN.match(text, at)
            if match is not None:
                self.add_literal(parts, match.group(), at)
                at = match.end()
            if at >= len(text):
                self.fail("unterminated ${", position, incomplete=True)
            char = text[at]
            if char == "}" or (char == ":" and not depth and not choices):
                return Word(stripped(parts), start + self.base), at
            if char in "()[]{?:":
                depth += (char in "([") - (char in ")]")
                choices += 0 if depth else (char == "?") - (char == ":")
                self.add_literal(parts, char, at)
                at += 1
            else:
                at = self.read_special(parts, char, at)


def stripped(parts: list[Part]) -> list[Part]:
    """The parts without blanks at the beginning and the end."""
    if parts and type(parts[0]) is Literal:
        text = parts[0].text.lstrip(_BLANKS)
        parts[:1] = [Literal(text, parts[0].offset + len(parts[0].text) - len(text))] if text else []
    if parts and type(parts[-1]) is Literal:
        text = parts[-1].text.rstrip(_BLANKS)
        parts[-1:] = [Literal(text, parts[-1].offset)] if text else []
    return parts
