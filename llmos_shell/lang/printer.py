"""The syntax tree as text again, in one canonical form: `parse(program_text(parse(x))) == parse(x)`.

`program_text` is for reading and saving (functions, `type`), on several lines; `one_line` is for job listings, and
leaves out the bodies of here-documents.
"""

from __future__ import annotations

import re

from llmos_shell.lang.ast import (
    AndOr,
    AnsiQuoted,
    Arithmetic,
    ArithmeticCommand,
    ArrayValue,
    Ask,
    Assignment,
    Background,
    Case,
    Command,
    CommandSubstitution,
    Conditional,
    DoubleQuoted,
    Element,
    Escaped,
    For,
    ForArithmetic,
    Function,
    Group,
    If,
    Literal,
    Parameter,
    Part,
    Pipeline,
    ProcessSubstitution,
    Redirect,
    Redirected,
    Select,
    Sequence,
    Simple,
    SingleQuoted,
    Subshell,
    Test,
    TestBinary,
    TestList,
    TestNot,
    TestUnary,
    TestWord,
    Tilde,
    Timed,
    While,
    Word,
)
from llmos_shell.lang.compound import RESERVED
from llmos_shell.lang.parser import reads_as_index

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z|[0-9@*#?$!-]\Z")
_NAME_AND_BRACKET = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]*\[")
_NOT_BEHIND_COLON = frozenset("-=?+")
_NAME_FOLLOWS = re.compile(r"[A-Za-z0-9_]")


def program_text(node: Command | Sequence) -> str:
    """Canonical text on as many lines as it takes, ending with a newline unless empty."""
    text = _Printer(one_line=False).program(node)
    return f"{text}\n" if text else ""


def one_line(node: Command | Sequence) -> str:
    """Canonical text on one line; here-documents are only named."""
    return _Printer(one_line=True).command(node, "")


class _Printer:
    def __init__(self, *, one_line: bool) -> None:
        self._one_line = one_line
        self._bodies: list[str] = []  # here-documents to be written after the current line

    # -- commands ----------------------------------------------------------------------------------------------------

    def program(self, node: Command | Sequence) -> str:
        """Text of a whole program, without a newline at its end."""
        lines: list[str] = []
        for item in node.items if isinstance(node, Sequence) else [node]:
            line = self.command(item, "") + self._take_bodies()
            # Only a line of its own can be a question: a command that begins with `?` continues the line before.
            lines.append(f"\\\n{line}" if line.startswith("?") and not isinstance(item, Ask) else line)
        return "\n".join(lines)

    def command(self, node: Command | Sequence, indent: str) -> str:
        """Text of a command, without indentation before its first line and without a newline at its end."""
        text: str = getattr(self, f"_{type(node).__name__.lower()}")(node, indent)
        if not self._bodies or isinstance(node, Simple | Redirected | Pipeline | Timed | AndOr | Function):
            return text
        return text + self._take_bodies()

    def _take_bodies(self) -> str:
        """The pending here-documents, each from a line of its own; the last line's newline is left to the caller."""
        bodies, self._bodies = self._bodies, []
        return "".join(f"\n{body}" for body in bodies)

    def _sequence(self, node: Sequence, indent: str) -> str:
        lines: list[str] = []
        for item in node.items:
            lines.append(self.command(item, indent) + self._take_bodies())
        if not self._one_line:
            return f"\n{indent}".join(lines)
        text = ""
        for line in lines:
            text += line if not text else f" {line}" if text.endswith(" &") else f"; {line}"
        return text

    def _block(self, opening: str, body: Sequence, closing: str, indent: str) -> str:
        """`opening body closing`, the body indented on lines of its own."""
        if not self._one_line:
            head = opening + self._take_bodies()
            deeper = f"{indent}    "
            return f"{head}\n{deeper}{self._sequence(body, deeper)}\n{indent}{closing}"
        text = self._sequence(body, "")
        end = "" if text.endswith(" &") else ";"
        return f"{opening} {text}{end} {closing}" if text else f"{opening} {closing}"

    def _head(self, opening: str, condition: Sequence, closing: str, indent: str) -> str:
        """`opening condition; closing` on one line if the condition fits there."""
        if self._one_line or self._bodies:
            return self._block(opening, condition, closing, indent)
        text = self._sequence(condition, indent)
        if len(condition.items) > 1 or "\n" in text:
            return self._block(opening, condition, closing, indent)
        return f"{opening} {text}{'' if text.endswith(' &') else ';'} {closing}"

    def _ask(self, node: Ask, indent: str) -> str:
        return f"? {node.text}".rstrip()

    def _background(self, node: Background, indent: str) -> str:
        return f"{self.command(node.body, indent)} &"

    def _andor(self, node: AndOr, indent: str) -> str:
        text = self.command(node.commands[0], indent)
        for operator, command in zip(node.operators, node.commands[1:], strict=True):
            text = self._joined(text, operator, command, indent)
        return text

    def _pipeline(self, node: Pipeline, indent: str) -> str:
        text = "! " if node.negated else ""
        text += self.command(node.commands[0], indent)
        for command in node.commands[1:]:
            text = self._joined(text, "|", command, indent)
        return text

    def _timed(self, node: Timed, indent: str) -> str:
        text = "time -p" if node.portable else "time"
        return text if node.body is None else f"{text} {self.command(node.body, indent)}"

    def _joined(self, before: str, operator: str, command: Command, indent: str) -> str:
        """Two commands with an operator between them, on one line unless here-documents are pending before the second.

        Nor where they would be read as the index of an assignment: `a[ |` and `]=x`.
        """
        bodies = self._take_bodies() if self._bodies else ""
        after = self.command(command, indent)
        line = f"{before} {operator}"
        if bodies:
            return f"{line}{bodies}\n{indent}{after}"
        return f"{line}\n{indent}{after}" if _joins_an_index(line, after) else f"{line} {after}"

    def _simple(self, node: Simple, indent: str) -> str:
        pieces = [self._assignment(item) for item in node.assignments]
        words = [self.word(word) for word in node.words]
        redirects = [self._redirect(redirect) for redirect in node.redirects]
        if words and not pieces and words[0] in RESERVED:
            return " ".join(redirects + words)
        if redirects and len(words) > 1 and "[" in words[0] and reads_as_index(" ".join(words)):
            words[1:1], redirects = redirects, []
        return " ".join(pieces + words + redirects)

    def _assignment(self, node: Assignment) -> str:
        index = "" if node.index is None else f"[{self.word(node.index)}]"
        return f"{node.name}{index}{'+=' if node.append else '='}{self.word(node.value)}"

    def _redirect(self, node: Redirect) -> str:
        fd = "" if node.fd is None else f"{{{node.fd}}}" if isinstance(node.fd, str) else str(node.fd)
        if node.operator != "<<":
            space = " " if node.operator in (">", ">>", "<", "<>", ">|", "&>", "&>>", "<<<") else ""
            return f"{fd}{node.operator}{space}{self.word(node.target)}"
        part = node.target.parts[0]
        quoted = not isinstance(part, DoubleQuoted)
        body = part.text if isinstance(part, SingleQuoted) else self._here_body(part)
        delimiter = _fresh_delimiter(body)
        if not self._one_line:
            self._bodies.append(f"{body}{delimiter}")
        return f"{fd}<<'{delimiter}'" if quoted else f"{fd}<<{delimiter}"

    def _redirected(self, node: Redirected, indent: str) -> str:
        text = self.command(node.body, indent)
        return " ".join([text, *(self._redirect(redirect) for redirect in node.redirects)])

    def _group(self, node: Group, indent: str) -> str:
        return self._block("{", node.body, "}", indent)

    def _subshell(self, node: Subshell, indent: str) -> str:
        if not self._one_line:
            return self._block("(", node.body, ")", indent)
        return f"({_after_parenthesis(self._sequence(node.body, ''))})"

    def _if(self, node: If, indent: str) -> str:
        text = ""
        for index, (condition, body) in enumerate(node.branches):
            head = self._head("elif" if index else "if", condition, "then", indent)
            last = index == len(node.branches) - 1 and node.otherwise is None
            text += self._block(head, body, "fi" if last else "", indent)
        if node.otherwise is not None:
            text += self._block("else", node.otherwise, "fi", indent)
        return text

    def _while(self, node: While, indent: str) -> str:
        head = self._head("until" if node.until else "while", node.condition, "do", indent)
        return self._block(head, node.body, "done", indent)

    def _for(self, node: For, indent: str) -> str:
        return self._for_words("for", node, indent)

    def _select(self, node: Select, indent: str) -> str:
        return self._for_words("select", node, indent)

    def _for_words(self, opening: str, node: For, indent: str) -> str:
        head = f"{opening} {node.name}"
        if node.words is not None:
            head += "".join([" in", *(f" {self.word(word)}" for word in node.words)])
        return self._block(f"{head}; do", node.body, "done", indent)

    def _forarithmetic(self, node: ForArithmetic, indent: str) -> str:
        expressions = [self._parts(each.word.parts) for each in (node.start, node.condition, node.step)]
        return self._block(f"for (({'; '.join(expressions)})); do", node.body, "done", indent)

    def _arithmeticcommand(self, node: ArithmeticCommand, indent: str) -> str:
        return f"(({self._parts(node.expression.word.parts)}))"

    def _conditional(self, node: Conditional, indent: str) -> str:
        return f"[[ {self.test(node.test)} ]]"

    def test(self, node: Test) -> str:
        """A test as it stands in `[[ ]]`."""
        if isinstance(node, TestWord):
            return self.word(node.word)
        if isinstance(node, TestUnary):
            return f"{node.operator} {self.word(node.word)}"
        if isinstance(node, TestBinary):
            return f"{self.word(node.left)} {node.operator} {self.word(node.right)}"
        if isinstance(node, TestNot):
            text = self.test(node.test)
            return f"! ( {text} )" if isinstance(node.test, TestNot | TestList) else f"! {text}"
        pieces: list[str] = []
        for each in node.tests:
            grouped = isinstance(each, TestList) and (each.operator, node.operator) != ("&&", "||")
            pieces.append(f"( {self.test(each)} )" if grouped else self.test(each))
        return f" {node.operator} ".join(pieces)

    def _case(self, node: Case, indent: str) -> str:
        separator = " " if self._one_line else f"\n{indent}"
        text = f"case {self.word(node.word)} in{self._take_bodies()}"
        for arm in node.arms:
            text += f"{separator}({' | '.join(self.word(pattern) for pattern in arm.patterns)})"
            if arm.body.items:
                text += self._block("", arm.body, arm.end, indent)
            else:
                text += f"{self._take_bodies()}{separator}{arm.end}"
        return f"{text}{separator}esac"

    def _function(self, node: Function, indent: str) -> str:
        return f"{node.name}() {self.command(node.body, indent)}"

    # -- words -------------------------------------------------------------------------------------------------------

    def word(self, word: Word) -> str:
        """A word outside double quotes."""
        return self._parts(word.parts)

    def _parts(self, parts: list[Part]) -> str:
        texts = [self._part(part) for part in parts]
        for index, part in enumerate(parts[:-1]):
            if isinstance(part, Parameter) and not part.operator and not texts[index].endswith("}"):
                following = texts[index + 1]
                if _NAME_FOLLOWS.match(following) or following.startswith("["):
                    texts[index] = f"${{{part.name}}}"
        return "".join(texts)

    def _part(self, part: Part) -> str:
        kind = type(part)
        if kind is Literal:
            return part.text  # type: ignore[union-attr]
        if kind is Escaped:
            return f"\\{part.text}"  # type: ignore[union-attr]
        if kind is SingleQuoted:
            return f"'{part.text}'"  # type: ignore[union-attr]
        if kind is AnsiQuoted:
            return f"$'{part.text}'"  # type: ignore[union-attr]
        if isinstance(part, Tilde):
            return f"~{part.user}"
        if isinstance(part, DoubleQuoted):
            return f'"{self._parts(part.parts)}"'
        if isinstance(part, Parameter):
            return self._parameter(part)
        if isinstance(part, CommandSubstitution):
            return self._substitution(part)
        if isinstance(part, ProcessSubstitution):
            return f"{part.operator}({self._commands(part.body)})"
        if isinstance(part, ArrayValue):
            return f"({self._elements(part)})"
        assert isinstance(part, Arithmetic)
        return f"$(({self._parts(part.word.parts)}))"

    def _elements(self, part: ArrayValue) -> str:
        """The elements; one that begins with a bracket stands alone where it would be taken for an index."""
        text = ""
        for node in reversed(part.elements):
            element = self._element(node)
            joined = f"{element} {text}" if text else element
            alone = node.index is None and element.startswith("[") and reads_as_index(joined)
            text = f"{element}\n{text}" if alone else joined
        return text

    def _element(self, node: Element) -> str:
        if node.index is None:
            return self.word(node.value)
        return f"[{self.word(node.index)}]{'+=' if node.append else '='}{self.word(node.value)}"

    def _parameter(self, part: Parameter) -> str:
        operator = part.operator
        name = part.name if part.index is None else f"{part.name}[{self.word(part.index)}]"
        if operator == "len":
            return f"${{#{name}}}"
        if part.indirect or operator == "keys":
            name = f"!{name}"
        if operator[:5] == "names":
            return f"${{!{name}{operator[5:]}}}"
        if operator and operator != "keys":
            return f"${{{name}{operator}{self._operands(part)}}}"
        return f"${name}" if _PLAIN_NAME.match(name) else f"${{{name}}}"

    def _operands(self, part: Parameter) -> str:
        word = self._parts(part.word.parts) if part.word is not None else ""
        if part.operator == ":" and word[:1] in _NOT_BEHIND_COLON:
            word = f" {word}"
        if part.extra is None:
            return word
        extra = self._parts(part.extra.parts)
        return f"{word}{':' if part.operator == ':' else '/'}{extra}"

    def _substitution(self, part: CommandSubstitution) -> str:
        return f"$({self._commands(part.body)})"

    def _commands(self, body: Sequence) -> str:
        """Commands as they stand between `$(` and `)`."""
        inner = _Printer(one_line=self._one_line)
        text = _after_parenthesis(inner.command(body, ""))
        return f"{text}\n" if "\n" in text and "<<" in text else text

    def _here_body(self, part: Part) -> str:
        assert isinstance(part, DoubleQuoted)
        return self._parts(part.parts)


def _joins_an_index(before: str, after: str) -> bool:
    """Whether a name and a bracket in the last line are closed as an index by what would follow on that line."""
    if "]" not in after:
        return False
    line = before.rpartition("\n")[2]
    return any(
        reads_as_index(f"{line[found.start() :]} {after}") and not reads_as_index(line[found.start() :])
        for found in _NAME_AND_BRACKET.finditer(line)
    )


def _after_parenthesis(text: str) -> str:
    """The text, kept apart from an opening parenthesis before it: `((` would be arithmetic."""
    return f" {text}" if text.startswith("(") else text


def _fresh_delimiter(body: str) -> str:
    """A delimiter that is no line of the body, nor one that a backslash at the end of a line makes."""
    body, number = body.replace("\\\n", ""), 0
    while (delimiter := f"EOF{number or ''}") in body:
        number += 1
    return delimiter
