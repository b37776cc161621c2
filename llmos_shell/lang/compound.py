"""Compound commands and functions. Lists, pipelines and simple commands are the parser's."""

from __future__ import annotations

import re
from typing import NoReturn

from llmos_shell.lang.ast import (
    Arithmetic,
    ArithmeticCommand,
    Case,
    CaseArm,
    Command,
    Conditional,
    For,
    ForArithmetic,
    Function,
    Group,
    If,
    Literal,
    Part,
    Redirect,
    Redirected,
    Select,
    Sequence,
    Subshell,
    Test,
    TestBinary,
    TestList,
    TestNot,
    TestUnary,
    TestWord,
    While,
    Word,
)
from llmos_shell.lang.lexer import EOF, IO_NUMBER, NEWLINE, OPERATOR, WORD, Lexer
from llmos_shell.lang.substitutions import stripped

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
        "select",
        "[[",
        "]]",
    )
)
"""Words that are no command names (`in` only after `for` and `case`)."""

CLOSING = frozenset({"}", "then", "elif", "else", "fi", "do", "done", "esac"})
REDIRECTS = frozenset({"<", ">", ">>", "<&", ">&", "<>", ">|", "&>", "&>>", "<<", "<<-", "<<<"})
_VALID_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
UNARY_TESTS = frozenset(f"-{letter}" for letter in "abcdefghknoprstuvwxzGLNOS")
BINARY_TESTS = frozenset(
    ("=", "==", "!=", "=~", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef")
)
_BLANKS = re.compile(r"(?:[ \t]+|\\\n)*")
_DESCRIPTOR_NAME = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}(?=[<>](?!\())")
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
        self.enter(start)
        if opening == "function":
            self.advance()
            name = self.value
            if self.kind != WORD or not FUNCTION_NAME.match(name):
                self._unexpected("a function's name", opening="function", start=start)
            self.advance()
            self.depth -= 1
            return self.read_function(name, start)
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
        elif opening in ("for", "select"):
            command = self._for(start, opening)
        elif opening == "case":
            command = self._case(start)
        elif opening == "[[":
            command = Conditional(self._conditional(start), start + self.base)
        else:
            self._unexpected()
        self.advance()
        self.depth -= 1
        return self._redirected(command)

    def _redirected(self, command: Command) -> Command:
        redirects: list[Redirect] = []
        while self.at_redirect():
            redirects.append(self.read_redirect())
        return Redirected(command, redirects, command.offset) if redirects else command

    def at_redirect(self) -> bool:
        """Whether the current token begins a redirection."""
        if self.kind == WORD:
            return _DESCRIPTOR_NAME.match(self.text, self.start) is not None
        return self.kind == IO_NUMBER or (self.kind == OPERATOR and self.value in REDIRECTS)

    def read_parenthesis(self) -> Command:
        """What an opening parenthesis begins: an arithmetic command or a subshell."""
        start = self.start
        if self.text.startswith("(", self.past_joins(self.position)) and start not in self.not_arithmetic:
            found = self.read_arithmetic(start, self.past_joins(self.position) + 1, "((")
            if found is not None:
                word, end = found
                self.take(start, end)
                self.advance()
                return self._redirected(ArithmeticCommand(Arithmetic(word, word.offset), start + self.base))
        return self._redirected(self._subshell())

    def _subshell(self) -> Command:
        start = self.start
        self.enter(start)
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

    def _for(self, start: int, opening: str) -> For | ForArithmetic:
        self.advance()
        if self.kind == OPERATOR and opening == "for" and self.text.startswith("((", self.start):
            return self._for_arithmetic(start)
        name = self.value
        if self.kind != WORD or not _VALID_NAME.match(name):
            self._unexpected("a variable's name", opening=opening, start=start)
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
                self._unexpected(opening=opening, start=start)
        kind = Select if opening == "select" else For
        return kind(name, words, self._loop_body(opening, start), start + self.base)

    def _loop_body(self, opening: str, start: int) -> Sequence:
        """The `do` … `done` of a loop, behind an optional semicolon."""
        if self.value == ";" and self.kind == OPERATOR:
            self.advance()
        self._skip_newlines()
        if self.value != "do" or self.kind != WORD:
            self._unexpected("`do`", opening=opening, start=start)
        return self._do(opening, start)

    def _for_arithmetic(self, start: int) -> ForArithmetic:
        at = self.start
        found = self.read_arithmetic(at, self.position + 1, "((")
        if found is None:
            self.fail("`((` is not ended by `))`", at)
        word, end = found
        self.take(at, end)
        expressions = split_expressions(word)
        if len(expressions) != 3:
            self.fail("`for ((` wants three expressions with `;` between them", at)
        self.advance()
        first, condition, step = expressions
        return ForArithmetic(first, condition, step, self._loop_body("for", start), start + self.base)

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
        self.extended = True
        self.advance()
        self._skip_newlines()
        arms: list[CaseArm] = []
        while self.kind != WORD or self.value != "esac":
            arms.append(self._case_arm(start))
        self.extended = False
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
        self.extended = False
        self.advance()
        body = Sequence(self.read_lines(), at + self.base)
        end = ";;"
        if self.kind == OPERATOR and self.value in (";;", ";&", ";;&"):
            end = self.value
            self.extended = True
            self.advance()
            self._skip_newlines()
        elif self.kind != WORD or self.value != "esac":
            self._unexpected("`;;` or `esac`", opening="case", start=start)
        return CaseArm(patterns, body, end, at + self.base)

    def read_function(self, name: str, start: int) -> Function:
        """The rest of a function's definition, from behind its name."""
        self.enter(start)
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

    # -- [[ ]] -------------------------------------------------------------------------------------------------------

    def _conditional(self, start: int) -> Test:
        """The test in `[[ ]]`; stops at `]]`."""
        self.advance()
        test = self._test_list("||", start)
        if self.kind != WORD or self.value != "]]":
            self._unexpected("`]]`", opening="[[", start=start)
        return test

    def _test_list(self, operator: str, start: int) -> Test:
        """Tests joined by an operator."""
        tests = [self._test_list("&&", start) if operator == "||" else self._test(start)]
        self._skip_newlines()
        while self.kind == OPERATOR and self.value == operator:
            self.advance()
            tests.append(self._test_list("&&", start) if operator == "||" else self._test(start))
            self._skip_newlines()
        return TestList(operator, tests, tests[0].offset) if len(tests) > 1 else tests[0]

    def _test(self, start: int) -> Test:
        self._skip_newlines()
        at, negated = self.start + self.base, False
        while self.kind == WORD and self.value == "!":
            negated = not negated
            self.advance()
            self._skip_newlines()
        if self.kind == OPERATOR and self.value == "(":
            self.enter(self.start)
            self.advance()
            test = self._test_list("||", start)
            if self.kind != OPERATOR or self.value != ")":
                self._unexpected("`)`", opening="[[", start=start)
            self.depth -= 1
            self.advance()
        else:
            test = self._primary_test(start)
        return TestNot(test, at) if negated else test

    def _primary_test(self, start: int) -> Test:
        if self.value == "]]":
            self._unexpected("a test", opening="[[", start=start)
        unary, first = self.value, self._test_word(start)
        if unary in UNARY_TESTS and self.kind in (WORD, IO_NUMBER) and self.value != "]]":
            return TestUnary(unary, self._test_word(start), first.offset)
        operator = self.value
        if operator == "]]" or self.kind not in (WORD, OPERATOR) or operator not in BINARY_TESTS:
            if self.kind == WORD and operator != "]]":
                self._unexpected("an operator such as `==`", opening="[[", start=start)
            return TestWord(first, first.offset)
        if operator == "=~":
            at = self.start
            right = self.read_regex(_BLANKS.match(self.text, self.position).end())  # type: ignore[union-attr]
            self.take(at, self.position)
            if not right.parts:
                self.advance()
                self._unexpected("a regular expression", opening="[[", start=start)
            self.advance()
            return TestBinary(first, operator, right, first.offset)
        self.extended = operator in ("=", "==", "!=")
        self.advance()
        self.extended = False
        return TestBinary(first, operator, self._test_word(start), first.offset)

    def _test_word(self, start: int) -> Word:
        if self.kind == IO_NUMBER:
            self.word = Word([Literal(self.value, self.start + self.base)], self.start + self.base)
        elif self.kind != WORD or self.value == "]]":
            self._unexpected("a word", opening="[[", start=start)
        word = self.word
        assert word is not None
        self.advance()
        return word

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


def split_expressions(word: Word) -> list[Arithmetic]:
    """The expressions of `for ((…))`, which semicolons separate."""
    found: list[list[Part]] = [[]]
    offsets = [word.offset]
    for part in word.parts:
        if type(part) is not Literal:
            found[-1].append(part)
            continue
        at = part.offset
        for number, text in enumerate(part.text.split(";")):
            if number:
                found.append([])
                offsets.append(at)
            if text:
                found[-1].append(Literal(text, at))
            at += len(text) + 1
    return [Arithmetic(Word(stripped(parts), at), at) for parts, at in zip(found, offsets, strict=True)]
