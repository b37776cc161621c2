"""Tokens to syntax tree. Tells *incomplete* programs (the REPL asks for another line) from *wrong* ones.

`Parser.next_command` gives one complete command at a time, so that a shell executes what stands before an error and
aliases take effect on the next line; `parse` reads a whole program.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Mapping

from llmos_shell.lang.ast import (
    AndOr,
    ArrayValue,
    Ask,
    Assignment,
    Background,
    Command,
    DoubleQuoted,
    Element,
    Function,
    Literal,
    Parameter,
    Part,
    Pipeline,
    ProcessSubstitution,
    Redirect,
    Redirected,
    Sequence,
    Simple,
    Tilde,
    Timed,
    Word,
)
from llmos_shell.lang.compound import CLOSING, FUNCTION_NAME, REDIRECTS, RESERVED, CompoundParser
from llmos_shell.lang.errors import Source
from llmos_shell.lang.lexer import EOF, IO_NUMBER, NEWLINE, OPERATOR, WORD

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=)")
_PIECE = (
    r"""[^\[\]()\\'"`$\n;<>]|[<>](?!\()|\\[\s\S]|'[^']*'|\$\{[^{}()`]*\}|\$(?![{('"])"""
    r"""|"(?:[^"\\`$]|\\.|\$(?![({])|\$\{[^{}()`]*\})*" """
).strip()
_FLAT = rf"{_PIECE}|\[(?:{_PIECE})*\]"
_INNER = rf"{_FLAT}|\((?:{_FLAT}|\((?:{_FLAT})*\))*\)"
_INDEX = rf"\[(?:{_INNER})+\]\+?="
_INDEXED = re.compile(_INDEX)
_SUBSCRIPTED = re.compile(rf"(?:[A-Za-z_][A-Za-z0-9_]*)(?={_INDEX})")
_JOINED_LINES = re.compile(r"(?:[^\\\n]|\\[\s\S])*")
_ESCAPED = re.compile(r"\\[\s\S]")
_NAME_AND_BRACKET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?=\[)")
_SIGN = re.compile(r"(?:\\\n)*\+?(?:\\\n)*=")
_BRACKET_END = re.compile(r"\](\+?)=")
DECLARATIONS = frozenset({"declare", "typeset", "local", "export", "readonly"})
"""Commands whose arguments may be assignments."""

_ENDS_PIPELINE = frozenset({";", "&", "&&", "||", "|"})
_DEFINES = re.compile(r"[ \t]*\([ \t]*\)")
_ASK = re.compile(r"[ \t]*\?([^\n]*)")
_TILDES = re.compile(r"(?:(?<=:)|\A)~([A-Za-z_][A-Za-z0-9_.-]*)?(?=[/:]|\Z)")


def parse(text: str, name: str = "", *, ask: bool = False, more: bool = False) -> Sequence:
    """Parses a whole program. With `ask`, lines beginning with `?` are questions to the assistant.

    With `more`, an unfinished here-document or a last backslash is incomplete, as for a user who is still typing.
    Raises `ShellSyntaxError`.
    """
    parser = Parser(Source(text, name), ask=ask, more=more)
    items: list[Command] = []
    collecting = gc.isenabled()
    gc.disable()  # a tree is made of many small objects and no garbage: this is three times as fast
    try:
        while (command := parser.next_command()) is not None:
            items += command.items
    finally:
        if collecting:
            gc.enable()
    return Sequence(items)


class Parser(CompoundParser):
    """Parses one program, or one command substitution of it."""

    def __init__(
        self,
        source: Source,
        *,
        text: str | None = None,
        position: int = 0,
        base: int = 0,
        depth: int = 0,
        more: bool = False,
        ask: bool = False,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(source, source.text if text is None else text, position, base, depth, more)
        self._ask = ask
        self._aliases = aliases
        self._alias_next = 0  # where the word stands that an alias ending in a blank lets be one too
        self._alias_ends: dict[str, int] = {}  # where the text that an alias gave ends; until there it is not replaced
        self._nul = self.text.find("\0", position) if depth == 0 else -1

    def next_command(self) -> Sequence | None:
        """The commands up to the end of a line (or more lines, if they belong together); None at the end."""
        try:
            command = self._next_command()
        except RecursionError:
            self.fail("nested too deeply", self.start)
        if self._nul >= 0:
            nul = self.text.find("\0", self._nul)  # an alias may have moved it
            if nul < self.position:
                self.fail("NUL character", nul)
        return command

    # -- lists -------------------------------------------------------------------------------------------------------

    def _next_command(self) -> Sequence | None:
        while self.kind == NEWLINE:
            if self._ask:
                match = _ASK.match(self.text, self.position)
                if match is not None:
                    start, self.position = self.position, match.end()
                    self.advance()
                    return Sequence([Ask(match.group(1).strip(), start)], start)
            self.advance()
        if self.kind == EOF:
            return None
        start = self.start
        items = self._items()
        if self.kind not in (NEWLINE, EOF):
            self._unexpected()
        return Sequence(items, start + self.base)

    def nested(self, position: int, text: str | None = None, base: int | None = None, more: bool = True) -> Parser:
        """A parser one level deeper, on the same text or on one cut out of it."""
        return Parser(
            self.source,
            text=self.text if text is None else text,
            position=position,
            base=self.base if base is None else base,
            depth=self.depth + 1,
            more=more and self.more,
        )

    def read_until_close(self) -> Sequence:
        """The commands up to the closing parenthesis, which is consumed."""
        start = self.position
        self.advance()
        items = self.read_lines()
        if self.value != ")":
            if self.kind == EOF:
                opening = max(start - 2, 0)
                self.fail(f"unterminated {self.text[opening:start]}", opening, incomplete=True)
            self._unexpected()
        return Sequence(items, start + self.base)

    def read_all(self) -> Sequence:
        """The commands up to the end of the text, as inside backquotes."""
        self.advance()
        items = self.read_lines()
        if self.kind != EOF:
            self._unexpected()
        return Sequence(items, self.base)

    def read_lines(self) -> list[Command]:
        """Commands on any number of lines, up to what ends a list."""
        items: list[Command] = []
        while True:
            while self.kind == NEWLINE:
                self.advance()
            if self._at_end_of_list():
                return items
            items += self._items()
            if self.kind != NEWLINE:
                return items

    def _items(self) -> list[Command]:
        """Commands on one line, separated by `;` and `&`."""
        items: list[Command] = []
        while True:
            command = self._and_or()
            separator = self.value if self.kind == OPERATOR else ""
            if separator == "&":
                items.append(Background(command, command.offset))
            else:
                items.append(command)
            if separator not in ("&", ";"):
                return items
            self.advance()
            if self.kind in (NEWLINE, EOF) or self._at_end_of_list():
                return items

    def _at_end_of_list(self) -> bool:
        if self.kind == WORD:
            return self.value in CLOSING
        return self.kind == EOF or (self.kind == OPERATOR and self.value in (")", ";;", ";&", ";;&"))

    # -- pipelines ---------------------------------------------------------------------------------------------------

    def _and_or(self) -> Command:
        first = self._pipeline()
        if self.value not in ("&&", "||"):
            return first
        commands, operators = [first], []
        while self.kind == OPERATOR and self.value in ("&&", "||"):
            operators.append(self.value)
            self._advance_to_command()
            commands.append(self._pipeline())
        return AndOr(commands, operators, first.offset)

    def _advance_to_command(self) -> None:
        """Goes past an operator that needs a command after it."""
        operator, at = self.value, self.start
        self.advance()
        while self.kind == NEWLINE:
            self.advance()
        if self.kind == EOF:
            self.fail(f"no command after `{operator}`", at, incomplete=True)

    def _pipeline(self) -> Command:
        if self.value == "time" and self.kind == WORD and not _DEFINES.match(self.text, self.position):
            return self._timed()
        start, negated = self.start, False
        while self.value == "!" and self.kind == WORD:
            negated = not negated
            self._advance_to_command()
        first = self.read_command()
        if self.value not in ("|", "|&") and not negated:
            return first
        commands = [first]
        while self.value in ("|", "|&") and self.kind == OPERATOR:
            if self.value == "|&":
                commands[-1] = _with_errors(commands[-1], self.start + self.base)
            self._advance_to_command()
            commands.append(self.read_command())
        return Pipeline(commands, negated, start + self.base)

    def _timed(self) -> Command:
        """`time` before a pipeline, or alone."""
        start, portable = self.start, False
        self.enter(start)
        self.advance()
        if self.value == "-p" and self.kind == WORD:
            portable = True
            self.advance()
        ends = self.kind in (NEWLINE, EOF) or (self.kind == OPERATOR and self.value in _ENDS_PIPELINE)
        body = None if ends or self._at_end_of_list() else self._pipeline()
        self.depth -= 1
        return Timed(body, portable, start + self.base)

    def read_command(self) -> Command:
        """A simple or compound command."""
        if self.kind == WORD:
            value = self.value
            if value in RESERVED and value != "in":
                return self._compound(value)
            return self._simple()
        if self.kind == OPERATOR:
            if self.value == "(":
                return self.read_parenthesis()
            if self.value not in REDIRECTS:
                self._unexpected()
            return self._simple()
        if self.kind != IO_NUMBER:
            self._unexpected()
        return self._simple()

    # -- simple commands ---------------------------------------------------------------------------------------------

    def _simple(self) -> Command:
        start = self.start
        assignments: list[Assignment] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        if self._aliases:
            self._expand_alias()
        while True:
            if self._alias_next and self.start >= self._alias_next:
                self._alias_next = 0
                self._expand_alias()
            if self.kind == WORD:
                word = self.word
                assert word is not None
                literal = self.value
                if not words:
                    assignment = self._assignment(word)
                    if assignment is not None:
                        assignments.append(assignment)
                        self.advance()
                        continue
                if literal and literal[0] == "{" and self.at_redirect():
                    redirects.append(self.read_redirect())
                    continue
                if words and literal and literal[-1] == "=" and self.text.startswith("(", self.position):
                    word = self._declared_array(words[0].literal(), literal, word)
                words.append(word)
                self.advance()
                if self.value == "(" and self.kind == OPERATOR and len(words) == 1:
                    if not (assignments or redirects) and literal and FUNCTION_NAME.match(literal):
                        return self.read_function(literal, start)
                    self._unexpected()
            elif self.kind == IO_NUMBER or (self.kind == OPERATOR and self.value in REDIRECTS):
                redirects.append(self.read_redirect())
            else:
                return Simple(assignments, words, redirects, start + self.base)

    def _assignment(self, word: Word) -> Assignment | None:
        """The current word as an assignment, if it is one; what the lexer cut off inside brackets is read too."""
        first = word.parts[0] if word.parts else None
        if type(first) is not Literal:
            return None
        match = _NAME_AND_BRACKET.match(first.text) if "[" in first.text else None
        assignment = as_assignment(word) if match is None else self._indexed(word, match.group())
        if assignment is not None and not assignment.value.parts and self.text.startswith("(", self.position):
            if assignment.index is not None:
                self.fail("an array cannot be an element of one", self.position)
            assignment.value = Word([self._array_value()], assignment.value.offset)
        return assignment

    def _indexed(self, word: Word, name: str) -> Assignment | None:
        """The current word as an assignment to an element, if it is one."""
        found = _split_index(word, len(name))
        if found is None:
            if not _is_subscripted(self.text, self.start):
                return None
            found = self._read_index_and_value(self.text.index("[", self.start))
        index, value, append = found
        return Assignment(name, value, append, word.offset, index)

    def _read_index_and_value(self, bracket: int) -> tuple[Word, Word, bool]:
        """Reads `[index]=value` (the text is known to be that) where the lexer saw more than one word."""
        self.reread(bracket)
        index, at = self.read_subscript(bracket)
        sign = _SIGN.match(self.text, at)
        if sign is None:
            self.fail("`=` is missing behind the index", at)
        append, at = "+" in sign.group(), sign.end()
        value = self.read_word(at)
        self.take(self.start, self.position)
        return index, Word(_mark_tildes(value.parts), at + self.base), append

    def _declared_array(self, command: str | None, literal: str, word: Word) -> Word:
        """`name=(…)` as a word of `declare` and its like."""
        if command not in DECLARATIONS or not _ASSIGNMENT.fullmatch(literal):
            return word
        return Word([*word.parts, self._array_value()], word.offset)

    def _array_value(self) -> ArrayValue:
        """The elements in parentheses; the text goes on behind the closing one."""
        start, opening = self.start, self.position
        self.position += 1
        elements: list[Element] = []
        while True:
            self.advance()
            while self.kind == NEWLINE:
                self.advance()
            if self.kind == EOF:
                self.fail("unterminated (", opening, incomplete=True)
            if self.kind == OPERATOR and self.value == ")":
                self.take(start, self.position)
                return ArrayValue(elements, opening + self.base)
            if self.kind != WORD:
                if self.kind != IO_NUMBER:
                    self._unexpected("a value or `)`")
                self.word = Word([Literal(self.value, self.start + self.base)], self.start + self.base)
            elements.append(self._element())

    def _element(self) -> Element:
        start = self.start
        assert self.word is not None
        found = None
        if self.text.startswith("[", start):
            found = _split_index(self.word, 0)
            if found is None and _INDEXED.match(self.text, start):
                found = self._read_index_and_value(start)
        if found is None:
            return Element(None, self.word, offset=start + self.base)
        index, value, append = found
        return Element(index, value, append, start + self.base)

    def _expand_alias(self) -> None:
        """Replaces the current word by the text of its alias, if it has one."""
        assert self._aliases is not None
        while self.kind == WORD and self.value in self._aliases and self.start >= self._alias_ends.get(self.value, 0):
            name, text = self.value, self._aliases[self.value]
            if "\0" in text:
                return
            grown = len(text) + 1 - len(name)
            self._alias_ends = {key: end + grown for key, end in self._alias_ends.items()}
            self._alias_ends[name] = self.start + len(text) + 1
            if text[-1:] in (" ", "\t"):
                self._alias_next = self._alias_ends[name]
            self.text = f"{self.text[: self.start]}{text} {self.text[self.start + len(name) :]}"
            self.source.replace(self.text)
            self.position = self.start
            self.advance()

    def read_redirect(self) -> Redirect:
        """The redirection that the current token begins."""
        start = self.start
        fd: int | str | None = None
        if self.kind == WORD:
            fd = self.value[1:-1]
            self.advance()
        elif self.kind == IO_NUMBER:
            if len(self.value) > 4:
                self.fail(f"{self.value[:12]} is no file descriptor", start)
            fd = int(self.value)
            self.advance()
        operator = self.value
        self.advance()
        if self.kind != WORD:
            if self.kind == EOF:
                self.fail(f"no file after `{operator}`", start, incomplete=True)
            self._unexpected()
        assert self.word is not None
        redirect = Redirect(fd, operator, self.word, start + self.base)
        if operator in ("<<", "<<-"):
            delimiter, quoted = _delimiter(self.word)
            self.pending.append((redirect, delimiter, quoted))
        self.advance()
        return redirect


def _with_errors(command: Command, offset: int) -> Command:
    """What `|&` makes of the command before it."""
    redirect = Redirect(2, ">&", Word([Literal("1", offset)], offset), offset)
    if isinstance(command, Simple | Redirected):
        command.redirects.append(redirect)
        return command
    return command if isinstance(command, Function) else Redirected(command, [redirect], command.offset)


def _split_index(word: Word, bracket: int) -> tuple[Word, Word, bool] | None:
    """Index, value and whether it is `+=`, of a word that is all of `[index]=value` from this place of its text on."""
    index: list[Part] = []
    depth = 0
    for number, part in enumerate(word.parts):
        if type(part) is not Literal:
            if type(part) is ProcessSubstitution:
                return None
            index.append(part)
            continue
        text, first = part.text, 0 if number else bracket + 1
        for at in range(first, len(text)):
            if text[at] == "[":
                depth += 1
            elif text[at] == "]":
                depth -= 1
            if depth < 0:
                match = _BRACKET_END.match(text, at)
                index += [Literal(text[first:at], part.offset + first)] if at > first else []
                if match is None or not index:
                    return None
                start = part.offset + match.end()
                rest: list[Part] = [Literal(text[match.end() :], start)] if match.end() < len(text) else []
                value = Word(_mark_tildes([*rest, *word.parts[number + 1 :]]), start)
                return Word(index, word.offset + bracket + 1), value, match.group(1) == "+"
        index += [Literal(text[first:], part.offset + first)] if len(text) > first else []
    return None


def _is_subscripted(text: str, start: int) -> bool:
    """Whether `name[index]=` begins there, be it of several words or of lines that are joined."""
    if _SUBSCRIPTED.match(text, start) is not None:
        return True
    line = _JOINED_LINES.match(text, start)
    if line is None or "\\\n" not in line.group():
        return False
    joined = _ESCAPED.sub(lambda found: "" if found.group() == "\\\n" else found.group(), line.group())
    return _SUBSCRIPTED.match(joined) is not None


def as_assignment(word: Word) -> Assignment | None:
    """The word as an assignment to a variable, if it is one; tildes in the value are marked."""
    first = word.parts[0] if word.parts else None
    if type(first) is not Literal or "=" not in first.text:
        return None
    match = _ASSIGNMENT.match(first.text)
    if match is None:
        return None
    rest = first.text[match.end() :]
    at = first.offset + match.end()
    parts = [*([Literal(rest, at)] if rest else []), *word.parts[1:]]
    return Assignment(match.group(1), Word(_mark_tildes(parts), at), match.group(2) == "+=", word.offset)


def reads_as_index(text: str) -> bool:
    """Whether text that begins with a bracket, perhaps behind a name, is read as `[index]=` there."""
    return _INDEXED.match(text) is not None or _SUBSCRIPTED.match(text) is not None


def mark_assignment_tildes(word: Word) -> Word:
    """A word such as `name=~/x`, given to a built-in that takes assignments, with the tildes of its value marked."""
    assignment = as_assignment(word)
    if assignment is None or not any(type(part) is Tilde for part in assignment.value.parts):
        return word
    prefix = Literal(f"{assignment.name}{'+=' if assignment.append else '='}", word.offset)
    return Word([prefix, *assignment.value.parts], word.offset)


def _mark_tildes(parts: list[Part]) -> list[Part]:
    if not any(type(part) is Literal and "~" in part.text for part in parts):
        return parts
    marked: list[Part] = []
    last = len(parts) - 1
    for index, part in enumerate(parts):
        if type(part) is not Literal:
            marked.append(part)
            continue
        at = 0
        for match in _TILDES.finditer(part.text):
            start = match.start()
            if (start == 0 and index > 0) or (match.end() == len(part.text) and index < last):
                continue
            if start > at:
                marked.append(Literal(part.text[at:start], part.offset + at))
            marked.append(Tilde(match.group(1) or "", part.offset + start))
            at = match.end()
        if at < len(part.text):
            marked.append(Literal(part.text[at:], part.offset + at))
    return marked


def _delimiter(word: Word) -> tuple[str, bool]:
    """A here-document's delimiter without its quotes, and whether it had any."""
    pieces: list[str] = []
    quoted = False
    for part in word.parts:
        if isinstance(part, DoubleQuoted):
            quoted = True
            pieces.append(_delimiter(Word(part.parts))[0])
        elif isinstance(part, Literal):
            quoted = quoted or type(part) is not Literal
            pieces.append(part.text)
        elif isinstance(part, Tilde):
            pieces.append(f"~{part.user}")
        elif isinstance(part, Parameter):
            pieces.append(f"${part.name}")
        else:
            pieces.append("$()")
    return "".join(pieces), quoted
