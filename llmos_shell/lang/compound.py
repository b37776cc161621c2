"""Compound commands and functions. Lists, pipelines and simple commands are the parser's."""

from __future__ import annotations

import re
from typing import NoReturn

from llmos_shell.lang.ast import (
    Case,
    CaseArm,
    Command,
    For,
    Function,
    Group,
    If,
    Redirect,
    Redirected,
    Sequence,
    Subshell,
    While,
    Word,
)
from llmos_shell.lang.lexer import EOF, IO_NUMBER, NEWLINE, OPERATOR, WORD, Lexer

RESERVED = frozenset(
    (
        "!",
        "{",
        "}",
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "while",
        "until",
        "do",
        "done",
        "for",
        "in",
        "case",
        "esac",
        "function",
    )
)
"""Words that are no command names (`in` only after `for` and `case`)."""

CLOSING = frozenset({"}", "then", "elif", "else", "fi", "do", "done", "esac"})
REDIRECTS = frozenset({"<", ">", ">>", "<&", ">&", "<>", ">|", "&>", "&>>", "<<", "<<-", "<<<"})
_VALID_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
FUNCTION_NAME = re.compile(r"[^=$`'\"*?\[\]~#{}]+\Z")


class CompoundParser(Lexer):
    """Parses compound commands; the parser of lists and simple commands is made from it."""

    def read_command(self) -> Command:
        """One command; the parser implements it."""
        raise NotImplementedError

    def read_lines(self) -> list[Command]:
        """Commands on any number of lines, up to what ends a list; the parser implements it."""
        raise NotImplementedError

    def read_redirect(self) -> Redirect:
        """The redirection that the current token begins; the parser implements it."""
        raise NotImplementedError

    # -- compound commands -------------------------------------------------------------------------------------------

    def _compound(self, opening: str) -> Command:
        start = self.start
        self._enter(start)
        if opening == "function":
            self.advance()
            name = self.value
            if self.kind != WORD or not FUNCTION_NAME.match(name):
                self._unexpected("a function's name", opening="function", start=start)
            self.advance()
            self.depth -= 1
            return self._function(name, start)
        command: Command
        if opening == "{":
            self.advance()
            command = Group(self._body("}", "{", start), start + self.base)
        elif opening == "if":
            command = self._if(start)
        elif opening in ("while", "until"):
            self.advance()
            condition = self._body("do", opening, start)
            command = While(condition, self._do(opening, start), opening == "until", start + self.base)
        elif opening == "for":
            command = self._for(start)
        elif opening == "case":
            command = self._case(start)
        else:
            self._unexpected()
        self.advance()
        self.depth -= 1
        return self._redirected(command)

    def _redirected(self, command: Command) -> Command:
        redirects: list[Redirect] = []
        while self.kind == IO_NUMBER or (self.kind == OPERATOR and self.value in REDIRECTS):
            redirects.append(self.read_redirect())
        return Redirected(command, redirects, command.offset) if redirects else command

    def _subshell(self) -> Command:
        start = self.start
        self._enter(start)
        self.advance()
        body = self._body(")", "(", start)
        self.advance()
        self.depth -= 1
        return Subshell(body, start + self.base)

    def _do(self, opening: str, start: int) -> Sequence:
        """`do body`, from the `do` on; stops at `done`."""
        self.advance()
        return self._body("done", opening, start)

    def _if(self, start: int) -> If:
        branches: list[tuple[Sequence, Sequence]] = []
        otherwise = None
        while self.value in ("if", "elif"):
            self.advance()
            condition = self._body("then", "if", start)
            self.advance()
            branches.append((condition, self._body(("elif", "else", "fi"), "if", start)))
        if self.value == "else":
            self.advance()
            otherwise = self._body("fi", "if", start)
        return If(branches, otherwise, start + self.base)

    def _for(self, start: int) -> For:
        self.advance()
        name = self.value
        if self.kind != WORD or not _VALID_NAME.match(name):
            self._unexpected("a variable's name", opening="for", start=start)
        self.advance()
        words: list[Word] | None = None
        self._skip_newlines()
        if self.value == "in" and self.kind == WORD:
            words = []
            self.advance()
            while self.kind == WORD:
                assert self.word is not None
                words.append(self.word)
                self.advance()
            if self.value not in (";", "\n"):
                self._unexpected(opening="for", start=start)
        if self.value == ";" and self.kind == OPERATOR:
            self.advance()
        self._skip_newlines()
        if self.value != "do" or self.kind != WORD:
            self._unexpected("`do`", opening="for", start=start)
        return For(name, words, self._do("for", start), start + self.base)

    def _case(self, start: int) -> Case:
        self.advance()
        if self.kind != WORD:
            self._unexpected("a word", opening="case", start=start)
        word = self.word
        assert word is not None
        self.advance()
        self._skip_newlines()
        if self.value != "in" or self.kind != WORD:
            self._unexpected("`in`", opening="case", start=start)
        self.advance()
        self._skip_newlines()
        arms: list[CaseArm] = []
        while self.kind != WORD or self.value != "esac":
            arms.append(self._case_arm(start))
        return Case(word, arms, start + self.base)

    def _case_arm(self, start: int) -> CaseArm:
        at = self.start
        if self.value == "(" and self.kind == OPERATOR:
            self.advance()
        patterns: list[Word] = []
        while True:
            if self.kind != WORD:
                self._unexpected("a pattern", opening="case", start=start)
            assert self.word is not None
            patterns.append(self.word)
            self.advance()
            if self.value != "|" or self.kind != OPERATOR:
                break
            self.advance()
        if self.value != ")" or self.kind != OPERATOR:
            self._unexpected("`)`", opening="case", start=start)
        self.advance()
        body = Sequence(self.read_lines(), at + self.base)
        end = ";;"
        if self.kind == OPERATOR and self.value in (";;", ";&"):
            end = self.value
            self.advance()
            self._skip_newlines()
        elif self.kind != WORD or self.value != "esac":
            self._unexpected("`;;` or `esac`", opening="case", start=start)
        return CaseArm(patterns, body, end, at + self.base)

    def _function(self, name: str, start: int) -> Function:
        """The rest of a function's definition, from behind its name."""
        self._enter(start)
        if name in RESERVED:
            self.fail(f"`{name}` cannot be a function's name", start)
        if self.value == "(" and self.kind == OPERATOR:
            self.advance()
            if self.value != ")" or self.kind != OPERATOR:
                self._unexpected("`)`", opening=f"{name}()", start=start)
            self.advance()
        self._skip_newlines()
        if self.kind == EOF:
            self.fail(f"function `{name}` has no body", start, incomplete=True)
        if self.value in ("in", "function") or (self.value not in RESERVED and self.value != "("):
            self._unexpected("`{`")
        body = self.read_command()
        self.depth -= 1
        return Function(name, body, start + self.base)

    def _body(self, end: str | tuple[str, ...], opening: str, start: int) -> Sequence:
        """A non-empty list that ends before the reserved word (or `)`) `end`; the word is not consumed."""
        at = self.start
        items = self.read_lines()
        ends = (end,) if isinstance(end, str) else end
        if self.kind == EOF:
            self.fail(f"`{opening}` is not ended by `{ends[-1]}`", start, incomplete=True)
        if not items or self.value not in ends:
            line = self.source.position(start + self.base).line
            self._unexpected(f"`{ends[-1]}` for the `{opening}` of line {line}" if items else "a command")
        return Sequence(items, at + self.base)

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _skip_newlines(self) -> None:
        while self.kind == NEWLINE:
            self.advance()

    def _unexpected(self, wanted: str = "", *, opening: str = "", start: int = 0) -> NoReturn:
        """Fails because of the current token; at the end of the text, more of it may help."""
        if self.kind == EOF:
            message = f"`{opening}` is not finished" if opening else "unexpected end"
            self.fail(message, start if opening else self.start, incomplete=True)
        found = "end of line" if self.kind == NEWLINE else f"`{self.text[self.start : self.position][:40]}`"
        self.fail(f"unexpected {found}" + (f", expected {wanted}" if wanted else ""), self.start)
