"""A program's text with canonical indentation and spacing (`llmos fmt`). Comments, line breaks, single blank lines,
here-documents and all quoting stay as they are; what the program means does too.

The parser's own reading says where tokens are and which lists they stand in; the text between two tokens is made anew.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from contextlib import suppress
from typing import NamedTuple

from llmos_shell.lang.ast import ArrayValue, CaseArm, Command, Sequence
from llmos_shell.lang.ast import Case as CaseNode
from llmos_shell.lang.ast import Redirect as RedirectNode
from llmos_shell.lang.compound import RESERVED
from llmos_shell.lang.errors import ShellSyntaxError, Source, char_width
from llmos_shell.lang.lexer import EOF, IO_NUMBER, NEWLINE, OPERATOR, WORD
from llmos_shell.lang.parser import Parser, parse

INDENT = "    "
_TRIVIA = re.compile(r"((?:[ \t]+|\\\n)*)(#[^\n]*)?\Z")
_SPACED_REDIRECTS = frozenset({">", ">>", "<", "<>", ">|", "&>", "&>>", "<<<"})


class LayoutError(Exception):
    """The text with another layout would mean something else: a mistake of this module."""


def format_text(text: str, name: str = "") -> str:
    """The text in canonical layout. Raises `ShellSyntaxError`, or `LayoutError`, which should not happen."""
    tree = parse(text, name, ask=True)
    record = _read(text, name)
    for spacing in (True, False):
        formatted = _Writer(text, record, spacing=spacing).write()
        with suppress(ShellSyntaxError):
            if parse(formatted, name, ask=True) == tree:
                return formatted
    raise LayoutError("its layout cannot be changed safely")


# -- reading ---------------------------------------------------------------------------------------------------------


class _Token(NamedTuple):
    start: int
    end: int
    kind: int
    opens: bool = False  # a word's part that a command substitution follows,
    closes: bool = False  # or that follows one


class _Record:
    """What the parsers of a text (its command substitutions have their own) found in it."""

    def __init__(self) -> None:
        self.tokens: list[_Token] = []
        self.lists: list[tuple[int, int]] = []  # from where to where lines are indented once more
        self.substitutions: list[tuple[int, int]] = []  # from behind `$(` to behind `)`
        self.joints: set[int] = set()  # operators between commands
        self.redirects: dict[int, str] = {}  # operators by where they are

    def forget(self, position: int) -> None:
        """Reading begins again at a position: what was found behind it was taken for something else."""
        while self.tokens and self.tokens[-1].start >= position:
            self.tokens.pop()
        for found in (self.lists, self.substitutions):
            while found and found[-1][0] > position:
                found.pop()


def _read(text: str, name: str) -> _Record:
    record = _Record()
    parser = _LayoutParser(Source(text, name), ask=True)
    parser.record = record
    while parser.next_command() is not None:
        pass
    return record


class _LayoutParser(Parser):
    """Takes notes while it parses."""

    record: _Record
    _array_start = -1  # where the word of the present array begins,
    _array_opening = -1  # and where its elements do
    _broken = 0  # where the present list of commands is first broken behind an operator

    def advance(self) -> None:
        self.record.forget(self.position)
        super().advance()
        if self.kind != EOF:
            self.record.tokens.append(_Token(self.start, self.position, self.kind))

    def take(self, start: int, end: int) -> None:
        super().take(start, end)
        if start == self._array_start:  # its elements stand in a list of their own
            opening = self._array_opening
            self.record.substitutions.append((opening, end))
            self.record.lists.append((opening, end - 1))
            self.record.tokens = [token for token in self.record.tokens if not start <= token.start < opening]
        else:
            self.record.forget(start)
        self.record.tokens.append(_Token(start, end, WORD))

    def _array_value(self) -> ArrayValue:
        self._array_start, self._array_opening = self.start, self.position + 1
        return super()._array_value()

    def nested(self, position: int, text: str | None = None, base: int | None = None, more: bool = True) -> Parser:
        if text is not None:
            return super().nested(position, text, base, more)  # cut out of the text: stays as it is
        inner = _LayoutParser(
            self.source, position=position, base=self.base, depth=self.depth + 1, more=more and self.more
        )
        inner.record = self.record
        return inner

    def read_until_close(self) -> Sequence:
        start = self.position
        body = super().read_until_close()
        self.record.substitutions.append((start, self.position))
        return body

    def read_lines(self) -> list[Command]:
        start = self.start
        items = super().read_lines()
        ends_arm = self.kind == OPERATOR and self.value[:2] in (";;", ";&")
        self.record.lists.append((start, self.position if ends_arm else self.start))
        return items

    def _case(self, start: int) -> CaseNode:
        node = super()._case(start)
        behind = bisect_left(self.record.tokens, (node.word.offset - self.base + 1,))
        opening = next(token for token in self.record.tokens[behind:] if token.kind == WORD and self._is_in(token))
        self.record.lists.append((opening.end, self.start))
        return node

    def _is_in(self, token: _Token) -> bool:
        return self.text[token.start : token.end] == "in"

    def _case_arm(self, start: int) -> CaseArm:
        arm = super()._case_arm(start)
        for pattern in arm.patterns[1:]:
            before = bisect_left(self.record.tokens, (pattern.offset - self.base,)) - 1
            self.record.joints.add(self.record.tokens[before].start)
        return arm

    def _and_or(self) -> Command:
        outer, self._broken = self._broken, 0
        command = super()._and_or()
        if self._broken:
            self.record.lists.append((self._broken, self.start))
        self._broken = outer
        return command

    def _advance_to_command(self) -> None:
        end, joins = self.position, self.kind == OPERATOR  # `!` does not
        if joins:
            self.record.joints.add(self.start)
        super()._advance_to_command()
        if joins and not self._broken and "\n" in self.text[end : self.start]:
            self._broken = end

    def read_redirect(self) -> RedirectNode:
        start = self.start
        redirect = super().read_redirect()
        self.record.redirects[start] = redirect.operator
        return redirect


# -- writing ---------------------------------------------------------------------------------------------------------


class _Line:
    """One line of the result; `code` may hold the line ends of a quoted text, `rest` is what follows as it stands."""

    __slots__ = ("code", "comment", "indent", "rest")

    def __init__(self) -> None:
        self.indent = 0
        self.code = ""
        self.comment = ""
        self.rest = ""

    @property
    def blank(self) -> bool:
        return not self.code and not self.comment

    @property
    def aligned(self) -> bool:
        """Whether its comment stands in one column with those of its neighbours."""
        return bool(self.code and self.comment) and "\n" not in self.code

    @property
    def width(self) -> int:
        return len(INDENT) * self.indent + sum(map(char_width, self.code))


class _Writer:
    def __init__(self, text: str, record: _Record, *, spacing: bool) -> None:
        self._text = text
        self._record = record
        self._spacing = spacing  # spaces between tokens are made anew too, not only indentation
        self._source = Source(text)
        self._tokens = _pieces(record)
        self._lists = sorted(record.lists, key=lambda found: (found[0], -found[1]))
        self._open: list[tuple[int, int]] = []  # where the lists end that the present place is in, and their lines
        self._next_list = 0
        self._lines = [_Line()]

    def write(self) -> str:
        """The whole text."""
        previous: _Token | None = None
        for index, token in enumerate(self._tokens):
            self._write_gap(previous, token, index)
            if token.kind == NEWLINE:
                self._lines[-1].rest = self._text[token.start + 1 : token.end]
                self._lines.append(_Line())
            else:
                self._lines[-1].code += _without_joint(self._text[token.start : token.end])
            previous = token
        end = previous.end if previous is not None else 0
        comment = self._text[end:].lstrip(" \t\\\n")
        if comment:
            self._add_comment(comment, len(self._text) - len(comment))
        return self._join()

    def _write_gap(self, previous: _Token | None, token: _Token, index: int) -> None:
        """What stands between two tokens, or before the first."""
        start = previous.end if previous is not None else 0
        gap = self._text[start : token.start]
        if previous is not None and _joint_end(self._text[previous.start : start]):
            gap = f"\\\n{gap}"
        match = _TRIVIA.match(gap)
        line = self._lines[-1]
        if match is None:
            if line.blank:
                gap = gap.lstrip(" \t")
            line.code += gap  # a question to the assistant
            return
        blanks, comment = match.groups()
        if comment:
            self._add_comment(comment, token.start - len(comment))
            return
        if token.kind == NEWLINE:
            return
        continued = "\\\n" in blanks and bool(line.code or self._text.startswith("?", token.start))
        if continued:
            line.code += " \\" if line.code else "\\"
            line = _Line()
            self._lines.append(line)
        if not line.code:
            within_list = previous is not None and previous.start in self._record.joints
            line.indent = self._level(token.start) + (continued and not within_list)
        elif previous is not None:
            line.code += self._space(previous, token, index, blanks)

    def _add_comment(self, comment: str, offset: int) -> None:
        line = self._lines[-1]
        line.comment = comment.rstrip(" \t")
        if not line.code:
            line.indent = self._level(offset)

    def _level(self, offset: int) -> int:
        """How often a line that begins here is indented: once for each line that began a list it is in."""
        while self._next_list < len(self._lists) and self._lists[self._next_list][0] <= offset:
            start, end = self._lists[self._next_list]
            self._open.append((end, self._source.position(start).line))
            self._next_list += 1
        self._open = [found for found in self._open if found[0] > offset]
        return len({line for _, line in self._open})

    def _space(self, previous: _Token, token: _Token, index: int, blanks: str) -> str:
        """The space between two tokens on a line."""
        text, given = self._text, " " if blanks else ""
        if not self._spacing:
            return given
        if previous.opens:
            return given if text.startswith("(", token.start) else ""
        if token.closes:
            return ""
        before, after = text[previous.start : previous.end], text[token.start : token.end]
        if previous.kind == IO_NUMBER or (
            previous.kind == WORD and token.start in self._record.redirects and not given
        ):
            return "" if previous.kind == IO_NUMBER else " "
        if token.kind == OPERATOR and token.start not in self._record.redirects:
            return self._space_before_operator(before, after, token, index, given)
        if previous.kind == OPERATOR:
            return self._space_behind_operator(before, after, previous, index, given)
        return given

    def _space_before_operator(self, before: str, after: str, token: _Token, index: int, given: str) -> str:
        if after == ";":
            return ""
        if after in ("&", ";;", ";&", ";;&") or token.start in self._record.joints:
            return " "
        if after == ")":
            return ""
        if after == "(" and before not in RESERVED and self._text_of(index + 1) == ")":
            return ""
        if after == "(" and before == "(":
            return given
        return " " if before in (";", "&") else given

    def _space_behind_operator(self, before: str, after: str, previous: _Token, index: int, given: str) -> str:
        redirect = self._redirect_of(index - 1)
        if redirect:
            return " " if before in _SPACED_REDIRECTS else ""
        if before == "(":
            return ""
        if before in (";", "&", ";;", ";&", ";;&", ")") or previous.start in self._record.joints:
            return " "
        return given

    def _redirect_of(self, index: int) -> bool:
        """Whether the token there is the operator of a redirection, perhaps behind a number."""
        token = self._tokens[index]
        if token.start in self._record.redirects:
            return True
        return index > 0 and self._tokens[index - 1].kind == IO_NUMBER

    def _text_of(self, index: int) -> str:
        if index >= len(self._tokens):
            return ""
        return self._text[self._tokens[index].start : self._tokens[index].end]

    def _join(self) -> str:
        lines = self._lines
        out: list[str] = []
        for index, line in enumerate(lines):
            if line.blank and not line.rest:
                if out and out[-1] != "\n" and any(not each.blank for each in lines[index:]):
                    out.append("\n")
                continue
            text = "" if line.blank else INDENT * line.indent + line.code
            if line.comment:
                text += f"{' ' * self._padding(index)}{line.comment}" if line.code else line.comment
            out.append(f"{text}\n{line.rest}")
        text = "".join(out)
        return text.removesuffix("\n") if _joint_end(text) else text  # a lone backslash at the end stays one

    def _padding(self, index: int) -> int:
        """Spaces before the comment of a line, so that comments of lines in a row stand below each other."""
        lines, first, last = self._lines, index, index
        if not lines[index].aligned:
            return 2
        while first > 0 and lines[first - 1].aligned and not lines[first - 1].rest:
            first -= 1
        while last + 1 < len(lines) and lines[last + 1].aligned and not lines[last].rest:
            last += 1
        return max(line.width for line in lines[first : last + 1]) - lines[index].width + 2


def _pieces(record: _Record) -> list[_Token]:
    """The tokens in order; words around command substitutions are cut at these."""
    substitutions = sorted(record.substitutions)
    tokens: list[_Token] = []
    for token in record.tokens:
        at = bisect_left(substitutions, (token.start + 1,))
        if token.kind != WORD or at >= len(substitutions) or substitutions[at][0] > token.end:
            tokens.append(token)
            continue
        place, closes = token.start, False
        for start, end in substitutions[at:]:
            if start >= token.end:
                break
            if start < place:
                continue  # inside the one before
            tokens.append(_Token(place, start, WORD, True, closes))
            place, closes = end, True
        if place < token.end:
            tokens.append(_Token(place, token.end, WORD, False, True))
    return sorted(tokens)


def _joint_end(text: str) -> bool:
    """Whether a word ends in a backslash and a line end, which belong to what follows it."""
    if not text.endswith("\\\n"):
        return False
    rest = text[:-1]
    return (len(rest) - len(rest.rstrip("\\"))) % 2 == 1


def _without_joint(text: str) -> str:
    while _joint_end(text):
        text = text[:-2]
    return text
