"""Colours for a command line while it is typed, from the tokens the real lexer sees.

`spans` is pure; the adapter for prompt_toolkit is in `editing`. Where the text is not yet a program, what the lexer
read so far is coloured, and what it could not read is looked at forgivingly: an open quote is shown as such.
"""

from __future__ import annotations

import re
from typing import Protocol

from llmos_shell.lang.ast import (
    AnsiQuoted,
    Arithmetic,
    CommandSubstitution,
    DoubleQuoted,
    Parameter,
    Part,
    ProcessSubstitution,
    Redirect,
    SingleQuoted,
    Word,
)
from llmos_shell.lang.compound import RESERVED
from llmos_shell.lang.errors import ShellSyntaxError, Source
from llmos_shell.lang.lexer import EOF, IO_NUMBER, NEWLINE, OPERATOR
from llmos_shell.lang.parser import Parser

MAX_LENGTH = 50_000
"""A longer text is not coloured."""

MAX_DEPTH = 20
"""Substitutions inside one another that are."""

Span = tuple[int, int, str]
"""From and to (in characters), and a class of `themes.CLASSES`; where spans overlap, the later one wins."""

_COMMAND_FOLLOWS = frozenset({"|", "&", ";", "&&", "||", "(", "|&"})
_ARM_ENDS = frozenset({";;", ";&", ";;&"})
_REDIRECTS = frozenset({"<", ">", ">>", "<&", ">&", "<>", ">|", "&>", "&>>", "<<", "<<-", "<<<"})
_COMMAND_COMES = frozenset({"!", "{", "if", "then", "elif", "else", "while", "until", "do"})
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\[[^]]*\])?\+?=")
_FUNCTION = re.compile(r"[ \t]*\([ \t]*\)")
_DYNAMIC = re.compile(r"[$`'\"\\*?\[]")


class Names(Protocol):
    """What words mean. Asked for every word at every keystroke: no answer may take long."""

    def kind(self, word: str) -> str:
        """`builtin`, `function`, `alias` or `program`; empty for what cannot be run."""

    def is_model(self, word: str) -> bool:
        """Whether a model has this name."""

    def is_path(self, word: str) -> bool:
        """Whether a file or folder is there."""


def spans(text: str, names: Names) -> list[Span]:
    """What to colour, in order."""
    if len(text) > MAX_LENGTH or "\0" in text:
        return []
    if text.lstrip().startswith("?"):
        return [(len(text) - len(text.lstrip()), len(text), "question")]
    painter = _Painter(text, names)
    painter.paint(0, len(text))
    return painter.found


class _Painter:
    """Walks over tokens, knowing where a command stands, and where an argument."""

    def __init__(self, text: str, names: Names) -> None:
        self.text = text
        self.names = names
        self.source = Source(text)
        self.depth = 0
        self.defined: set[str] = set()  # functions of the text itself
        self.found: list[Span] = []

    def add(self, start: int, end: int, kind: str) -> None:
        """Colours a piece."""
        if start < end:
            self.found.append((start, end, kind))

    def paint(self, start: int, stop: int) -> None:
        """Colours the commands in a part of the text: all of it, or the inside of a substitution."""
        if self.depth > MAX_DEPTH:
            return
        self.depth += 1
        self._paint(start, stop)
        self.depth -= 1

    def _paint(self, start: int, stop: int) -> None:
        lexer = Parser(self.source, text=self.text[:stop], position=start, more=True)
        walk = _Walk(self, lexer)
        end = start
        try:
            while True:
                here = bool(lexer.pending)
                lexer.advance()
                self._comment(end, lexer.start)
                if lexer.kind == EOF:
                    return
                end = lexer.position
                if here and lexer.kind == NEWLINE:
                    self.add(lexer.start + 1, end, "string")
                walk.take()
                end = lexer.position
        except ShellSyntaxError:
            if here and self.text.startswith("\n", lexer.start):
                self.add(lexer.start + 1, stop, "string")
            else:
                self._unfinished(lexer.start, stop)

    def _comment(self, start: int, end: int) -> None:
        at = self.text.find("#", start, end)
        if at >= 0:
            self.add(at, end, "comment")

    def _unfinished(self, at: int, stop: int) -> None:
        """Colours a word that does not end: what is open in it, and the commands inside."""
        text = self.text
        while at < stop:
            char = text[at]
            if char == "\\":
                at += 1
            elif char == "'":
                close = text.find("'", at + 1, stop)
                self.add(at, close + 1 if close >= 0 else stop, "string" if close >= 0 else "unfinished")
                if close < 0:
                    return
                at = close
            elif char == '"':
                close = self._unfinished_quote(at, stop)
                if close < 0:
                    return
                at = close
            elif char == "`":
                self.add(at, at + 1, "variable")
                self.paint(at + 1, stop)
                return
            elif text.startswith("$(", at):
                self._unfinished_substitution(at, stop)
                return
            elif text.startswith("${", at):
                self.add(at, stop, "variable")
                return
            at += 1

    def _unfinished_quote(self, at: int, stop: int) -> int:
        """Colours what a double quote begins; where it ends, -1 when it does not."""
        text, start, at = self.text, at, at + 1
        while at < stop:
            if text[at] == '"':
                self.add(start, at + 1, "string")
                return at
            if text.startswith("$(", at):
                self.add(start, at, "unfinished")
                self._unfinished_substitution(at, stop)
                return -1
            at += 2 if text[at] == "\\" else 1
        self.add(start, stop, "unfinished")
        return -1

    def _unfinished_substitution(self, at: int, stop: int) -> None:
        if self.text.startswith("$((", at):
            self.add(at, stop, "variable")
        else:
            self.add(at, at + 2, "variable")
            self.paint(at + 2, stop)

    def parts(self, word: Word, end: int) -> None:
        """Colours quotes and expansions inside a word."""
        self._parts(word.parts, end)

    def _parts(self, parts: list[Part], end: int) -> None:
        starts = [part.offset for part in parts[1:]] + [end]
        for part, stop in zip(parts, starts, strict=False):
            if isinstance(part, SingleQuoted | AnsiQuoted):
                self.add(part.offset, stop, "string")
            elif isinstance(part, DoubleQuoted):
                self.add(part.offset, stop, "string")
                self._parts(part.parts, stop - 1)
            elif isinstance(part, CommandSubstitution | ProcessSubstitution):
                self._substitution(part.offset, stop)
            elif isinstance(part, Parameter | Arithmetic):
                self.add(part.offset, stop, "variable")

    def _substitution(self, start: int, stop: int) -> None:
        opening = 2 if self.text.startswith("(", start + 1) else 1
        self.add(start, stop, "plain")
        self.add(start, start + opening, "variable")
        if opening == 2 or "\\" not in self.text[start:stop]:
            self.paint(start + opening, stop - 1)
        self.add(stop - 1, stop, "variable")


class _Walk:
    """The state between tokens of one list of commands."""

    def __init__(self, painter: _Painter, lexer: Parser) -> None:
        self.painter = painter
        self.lexer = lexer
        self.command_next = True
        self.target = ""  # the redirection whose target comes next
        self.wanted = ""  # `name` after `for`, `word` after `case`, `in` after either
        self.cases: list[bool] = []  # for each `case` that is open: whether a pattern comes next
        self.case_comes = False
        self.kind = ""  # of the command whose arguments these are
        self.test = False  # inside `[[ ]]`
        self.elements = 0  # parentheses of an array that are open
        self.assigning = False  # the array is assigned before a command, and not an argument

    def take(self) -> None:
        """Colours the lexer's present token."""
        lexer = self.lexer
        if lexer.kind == OPERATOR:
            self._operator(lexer.value)
        elif lexer.kind == NEWLINE:
            self._separate()
        elif lexer.kind == IO_NUMBER:
            self.painter.add(lexer.start, lexer.position, "operator")
        else:
            self._word()

    def _separate(self) -> None:
        if not self.elements and not self.test:
            self.command_next, self.target = not self.wanted, ""

    def _operator(self, value: str) -> None:
        lexer, painter = self.lexer, self.painter
        here = self.command_next or self.wanted == "name"
        if value == "(" and here and not self.elements and lexer.text.startswith("(", lexer.position):
            self._arithmetic(lexer.start)
            return
        painter.add(lexer.start, lexer.position, "operator")
        if self.elements:
            self.elements += (value == "(") - (value == ")")
            self.command_next = not self.elements and self.assigning
        elif self.test:
            pass
        elif value in _REDIRECTS:
            self.target = value
        elif value in _ARM_ENDS and self.cases:
            self.cases[-1] = True
        elif value == ")" and self.cases and self.cases[-1]:
            self.cases[-1], self.command_next = False, True
        elif value in _COMMAND_FOLLOWS:
            self.command_next, self.wanted, self.target = True, "", ""
        else:
            self.command_next = False

    def _arithmetic(self, start: int) -> None:
        """`((…))`, which the lexer reads as parentheses."""
        lexer = self.lexer
        close = lexer.text.find("))", start)
        end = close + 2 if close >= 0 else len(lexer.text)
        self.painter.add(start, end, "variable")
        lexer.position = end
        self.command_next, self.wanted = False, ""

    def _word(self) -> None:
        lexer, painter = self.lexer, self.painter
        assert lexer.word is not None
        start, end = lexer.start, lexer.position
        text = lexer.text[start:end]
        if self.target:
            self._redirection_target(lexer.word, text)
        elif self.cases and self.cases[-1]:
            self._pattern(text)
        elif self.wanted:
            self._after_keyword(text)
        elif self.test or self.elements:
            self._in_test(text)
        elif self.command_next:
            self._first(text)
        else:
            self._argument(text)
        painter.parts(lexer.word, end)

    def _pattern(self, text: str) -> None:
        if text == "esac":
            self._keyword(text)
        else:
            self.painter.add(self.lexer.start, self.lexer.position, "string")

    def _redirection_target(self, word: Word, text: str) -> None:
        lexer = self.lexer
        if self.target in ("<<", "<<-"):
            delimiter = re.sub(r"['\"\\]", "", text)
            lexer.pending.append((Redirect(None, self.target, word), delimiter, delimiter != text))
        elif self.painter.names.is_path(lexer.value):
            self.painter.add(lexer.start, lexer.position, "path")
        self.target = ""

    def _after_keyword(self, text: str) -> None:
        lexer = self.lexer
        if self.wanted == "in":
            self.wanted = ""
            if text == "in":
                self.painter.add(lexer.start, lexer.position, "keyword")
                if self.case_comes:
                    self.cases.append(True)
            else:
                self.command_next = True
                self._first(text)
            self.case_comes = False
        elif self.wanted == "name":
            self.painter.add(lexer.start, lexer.position, "variable")
            self.wanted = "in"
        elif self.wanted == "function":
            self.painter.add(lexer.start, lexer.position, "command.function")
            self.painter.defined.add(text)
            self.wanted, self.command_next = "", True
        else:
            self.wanted = "in"

    def _in_test(self, text: str) -> None:
        lexer = self.lexer
        if self.test and text == "]]":
            self.painter.add(lexer.start, lexer.position, "keyword")
            self.test = False
        elif self.test and text.startswith("-"):
            self.painter.add(lexer.start, lexer.position, "option")
        self.command_next = False

    def _first(self, text: str) -> None:
        """A word where a command is expected."""
        lexer, painter = self.lexer, self.painter
        start, end = lexer.start, lexer.position
        if text in RESERVED or text in ("[[", "select"):
            self._keyword(text)
            return
        assignment = _ASSIGNMENT.match(text)
        if assignment is not None:
            painter.add(start, start + assignment.end(1), "variable")
            self._begin_array(text)
            return
        if text.startswith("-"):  # of `time`
            painter.add(start, end, "option")
            return
        self.command_next = False
        parentheses = _FUNCTION.match(lexer.text, end)
        if parentheses is not None:
            painter.add(start, end, "command.function")
            painter.defined.add(text)
            painter.add(end, parentheses.end(), "operator")
            lexer.position, self.command_next = parentheses.end(), True
        elif not _DYNAMIC.search(text):
            self.kind = "function" if text in painter.defined else painter.names.kind(text)
            self.command_next = text == "time"
            painter.add(start, end, f"command.{self.kind}" if self.kind else "unknown")
        else:
            self.kind = ""

    def _begin_array(self, text: str) -> None:
        """`x=(`, whose parentheses enclose words."""
        lexer = self.lexer
        if text.endswith("=") and lexer.text.startswith("(", lexer.position):
            self.elements, self.assigning = 1, self.command_next
            lexer.advance()
            self.painter.add(lexer.start, lexer.position, "operator")
            lexer.word = Word([], lexer.start)

    def _keyword(self, text: str) -> None:
        lexer = self.lexer
        self.painter.add(lexer.start, lexer.position, "keyword")
        self.command_next = text in _COMMAND_COMES
        self.test = text == "[["
        self.kind = ""
        if text in ("for", "select"):
            self.wanted = "name"
        elif text == "case":
            self.wanted, self.case_comes = "word", True
        elif text == "function":
            self.wanted = "function"
        elif text == "esac" and self.cases:
            self.cases.pop()

    def _argument(self, text: str) -> None:
        lexer, names = self.lexer, self.painter.names
        start, end = lexer.start, lexer.position
        if text.startswith("-") and len(text) > 1:
            equals = text.find("=")
            self.painter.add(start, start + equals if equals > 0 else end, "option")
        elif _ASSIGNMENT.match(text):
            self._begin_array(text)
        elif _DYNAMIC.search(text):
            return
        elif self.kind == "builtin" and names.is_model(text):
            self.painter.add(start, end, "model")
        elif names.is_path(text):
            self.painter.add(start, end, "path")
