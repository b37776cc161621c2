"""The syntax tree. Quoting stays in the tree as word parts; every node knows the offset where it begins.

Nodes compare by structure, not by offset. `cache` slots belong to the interpreter (compiled forms).
"""

from __future__ import annotations

from typing import Any, ClassVar


class Node:
    """What all nodes have in common."""

    __slots__ = ("offset",)
    fields: ClassVar[tuple[str, ...]] = ()
    offset: int

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.fields)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.fields)})"


# -- words -----------------------------------------------------------------------------------------------------------


class Literal(Node):
    """Unquoted text, or plain text inside double quotes. Unquoted, `*`, `?` and `[` in it are pattern characters."""

    __slots__ = ("text",)
    fields = ("text",)

    def __init__(self, text: str, offset: int = 0) -> None:
        self.text = text
        self.offset = offset


class Escaped(Literal):
    """One character behind a backslash. A lone `$` is also read as one."""

    __slots__ = ()


class SingleQuoted(Literal):
    """`'text'`."""

    __slots__ = ()


class AnsiQuoted(Literal):
    """`$'text'`; `text` is as written, with its escapes."""

    __slots__ = ()


class Tilde(Node):
    """`~` or `~user` where it stands for a home folder."""

    __slots__ = ("user",)
    fields = ("user",)

    def __init__(self, user: str, offset: int = 0) -> None:
        self.user = user
        self.offset = offset


class DoubleQuoted(Node):
    """`"parts"`."""

    __slots__ = ("parts",)
    fields = ("parts",)

    def __init__(self, parts: list[Part], offset: int = 0) -> None:
        self.parts = parts
        self.offset = offset


class Parameter(Node):
    """`$name`, or `${name[index]` operator word `}`.

    Operators without a word: `len` (`${#name}`), `keys` (`${!name[@]}`), `names@` and `names*` (`${!prefix@}`), and
    `@Q` and its like. With two words, the second in `extra`: `:` (offset and length), `/`, `//`, `/#` and `/%` (pattern
    and replacement). With `indirect` (`${!name}`) the value of the parameter says which one is meant.
    """

    __slots__ = ("extra", "index", "indirect", "name", "operator", "word")
    fields = ("name", "operator", "word", "index", "extra", "indirect")

    def __init__(
        self,
        name: str,
        operator: str = "",
        word: Word | None = None,
        offset: int = 0,
        *,
        index: Word | None = None,
        extra: Word | None = None,
        indirect: bool = False,
    ) -> None:
        self.name = name
        self.operator = operator
        self.word = word
        self.offset = offset
        self.index = index
        self.extra = extra
        self.indirect = indirect


class CommandSubstitution(Node):
    """`$(body)`; backquotes give the same node."""

    __slots__ = ("body",)
    fields = ("body",)

    def __init__(self, body: Sequence, offset: int = 0) -> None:
        self.body = body
        self.offset = offset


class Arithmetic(Node):
    """`$((expression))`; the expression is a word that is expanded as in double quotes, then evaluated."""

    __slots__ = ("cache", "word")
    fields = ("word",)

    def __init__(self, word: Word, offset: int = 0) -> None:
        self.word = word
        self.offset = offset
        self.cache: Any = None


class ProcessSubstitution(Node):
    """`<(body)` or `>(body)`: a file to read the output of commands from, or to write their input to."""

    __slots__ = ("body", "operator")
    fields = ("operator", "body")

    def __init__(self, operator: str, body: Sequence, offset: int = 0) -> None:
        self.operator = operator
        self.body = body
        self.offset = offset


class Element(Node):
    """An element of an array's value: `value`, `[index]=value`, or with `append` `[index]+=value`."""

    __slots__ = ("append", "index", "value")
    fields = ("index", "value", "append")

    def __init__(self, index: Word | None, value: Word, append: bool = False, offset: int = 0) -> None:
        self.index = index
        self.value = value
        self.append = append
        self.offset = offset


class ArrayValue(Node):
    """`(elements)`, all that follows the `=` of an assignment."""

    __slots__ = ("elements",)
    fields = ("elements",)

    def __init__(self, elements: list[Element], offset: int = 0) -> None:
        self.elements = elements
        self.offset = offset


Part = Literal | Tilde | DoubleQuoted | Parameter | CommandSubstitution | Arithmetic | ProcessSubstitution | ArrayValue


class Word(Node):
    """A word: parts without space between them."""

    __slots__ = ("cache", "parts")
    fields = ("parts",)

    def __init__(self, parts: list[Part], offset: int = 0) -> None:
        self.parts = parts
        self.offset = offset
        self.cache: Any = None

    def literal(self) -> str | None:
        """The text, if the word is nothing but unquoted text."""
        parts = self.parts
        if len(parts) == 1 and type(parts[0]) is Literal:
            return parts[0].text
        return None


# -- commands --------------------------------------------------------------------------------------------------------


class Assignment(Node):
    """`name=value` or `name[index]=value`, with `append` `+=`. An array's value is a word of one `ArrayValue`."""

    __slots__ = ("append", "index", "name", "value")
    fields = ("name", "index", "value", "append")

    def __init__(
        self, name: str, value: Word, append: bool = False, offset: int = 0, index: Word | None = None
    ) -> None:
        self.name = name
        self.value = value
        self.append = append
        self.offset = offset
        self.index = index

    def holds_array(self) -> bool:
        """Whether it is `name=(…)`."""
        parts = self.value.parts
        return bool(parts) and type(parts[0]) is ArrayValue


class Redirect(Node):
    """A redirection; `fd` is a name where the descriptor is to be chosen and kept in that variable (`{name}>file`).

    For a here-document (`<<`) the target is its body, as one quoted part.
    """

    __slots__ = ("fd", "operator", "target")
    fields = ("fd", "operator", "target")

    def __init__(self, fd: int | str | None, operator: str, target: Word, offset: int = 0) -> None:
        self.fd = fd
        self.operator = operator
        self.target = target
        self.offset = offset


class Simple(Node):
    """Assignments, words and redirections."""

    __slots__ = ("assignments", "cache", "redirects", "words")
    fields = ("assignments", "words", "redirects")

    def __init__(
        self, assignments: list[Assignment], words: list[Word], redirects: list[Redirect], offset: int = 0
    ) -> None:
        self.assignments = assignments
        self.words = words
        self.redirects = redirects
        self.offset = offset
        self.cache: Any = None


class Ask(Node):
    """A line beginning with `?`: a question to the assistant, exactly as typed."""

    __slots__ = ("text",)
    fields = ("text",)

    def __init__(self, text: str, offset: int = 0) -> None:
        self.text = text
        self.offset = offset


class Sequence(Node):
    """Commands one after the other."""

    __slots__ = ("items",)
    fields = ("items",)

    def __init__(self, items: list[Command], offset: int = 0) -> None:
        self.items = items
        self.offset = offset


class Background(Node):
    """`body &`."""

    __slots__ = ("body",)
    fields = ("body",)

    def __init__(self, body: Command, offset: int = 0) -> None:
        self.body = body
        self.offset = offset


class AndOr(Node):
    """Two or more commands joined by `&&` and `||`; there is one operator less than commands."""

    __slots__ = ("commands", "operators")
    fields = ("commands", "operators")

    def __init__(self, commands: list[Command], operators: list[str], offset: int = 0) -> None:
        self.commands = commands
        self.operators = operators
        self.offset = offset


class Pipeline(Node):
    """Commands joined by `|`, or a negated one."""

    __slots__ = ("commands", "negated")
    fields = ("commands", "negated")

    def __init__(self, commands: list[Command], negated: bool = False, offset: int = 0) -> None:
        self.commands = commands
        self.negated = negated
        self.offset = offset


class Timed(Node):
    """`time body`, `portable` with `-p`; the body is a pipeline, or nothing."""

    __slots__ = ("body", "portable")
    fields = ("body", "portable")

    def __init__(self, body: Command | None, portable: bool = False, offset: int = 0) -> None:
        self.body = body
        self.portable = portable
        self.offset = offset


class Redirected(Node):
    """A compound command with redirections."""

    __slots__ = ("body", "redirects")
    fields = ("body", "redirects")

    def __init__(self, body: Command, redirects: list[Redirect], offset: int = 0) -> None:
        self.body = body
        self.redirects = redirects
        self.offset = offset


class Group(Node):
    """`{ body }`."""

    __slots__ = ("body",)
    fields = ("body",)

    def __init__(self, body: Sequence, offset: int = 0) -> None:
        self.body = body
        self.offset = offset


class Subshell(Node):
    """`( body )`."""

    __slots__ = ("body",)
    fields = ("body",)

    def __init__(self, body: Sequence, offset: int = 0) -> None:
        self.body = body
        self.offset = offset


class If(Node):
    """`if` and its `elif`s as (condition, body) pairs, and the `else` part."""

    __slots__ = ("branches", "otherwise")
    fields = ("branches", "otherwise")

    def __init__(self, branches: list[tuple[Sequence, Sequence]], otherwise: Sequence | None, offset: int = 0) -> None:
        self.branches = branches
        self.otherwise = otherwise
        self.offset = offset


class While(Node):
    """`while condition`, or with `until` the opposite."""

    __slots__ = ("body", "condition", "until")
    fields = ("condition", "body", "until")

    def __init__(self, condition: Sequence, body: Sequence, until: bool = False, offset: int = 0) -> None:
        self.condition = condition
        self.body = body
        self.until = until
        self.offset = offset


class For(Node):
    """`for name in words`; `words` is None when the positional parameters are meant."""

    __slots__ = ("body", "name", "words")
    fields = ("name", "words", "body")

    def __init__(self, name: str, words: list[Word] | None, body: Sequence, offset: int = 0) -> None:
        self.name = name
        self.words = words
        self.body = body
        self.offset = offset


class Select(For):
    """`select name in words`: a menu, again and again."""

    __slots__ = ()


class ForArithmetic(Node):
    """`for ((start; condition; step))`; each of them is the text of an expression, as in `$((…))`."""

    __slots__ = ("body", "condition", "start", "step")
    fields = ("start", "condition", "step", "body")

    def __init__(
        self, start: Arithmetic, condition: Arithmetic, step: Arithmetic, body: Sequence, offset: int = 0
    ) -> None:
        self.start = start
        self.condition = condition
        self.step = step
        self.body = body
        self.offset = offset


class ArithmeticCommand(Node):
    """`((expression))`."""

    __slots__ = ("expression",)
    fields = ("expression",)

    def __init__(self, expression: Arithmetic, offset: int = 0) -> None:
        self.expression = expression
        self.offset = offset


class CaseArm(Node):
    """`patterns) body` and how it ends: `;;`, `;&` to fall through, or `;;&` to go on with the next patterns."""

    __slots__ = ("body", "end", "patterns")
    fields = ("patterns", "body", "end")

    def __init__(self, patterns: list[Word], body: Sequence, end: str = ";;", offset: int = 0) -> None:
        self.patterns = patterns
        self.body = body
        self.end = end
        self.offset = offset


class Case(Node):
    """`case word in arms esac`."""

    __slots__ = ("arms", "word")
    fields = ("word", "arms")

    def __init__(self, word: Word, arms: list[CaseArm], offset: int = 0) -> None:
        self.word = word
        self.arms = arms
        self.offset = offset


class Function(Node):
    """`name() body`."""

    __slots__ = ("body", "name")
    fields = ("name", "body")

    def __init__(self, name: str, body: Command, offset: int = 0) -> None:
        self.name = name
        self.body = body
        self.offset = offset


# -- conditions: what stands in [[ ]] ----------------------------------------------------------------------------------


class TestWord(Node):
    """A word: whether it is not empty."""

    __slots__ = ("word",)
    fields = ("word",)

    def __init__(self, word: Word, offset: int = 0) -> None:
        self.word = word
        self.offset = offset


class TestUnary(Node):
    """`-f word` and its like."""

    __slots__ = ("operator", "word")
    fields = ("operator", "word")

    def __init__(self, operator: str, word: Word, offset: int = 0) -> None:
        self.operator = operator
        self.word = word
        self.offset = offset


class TestBinary(Node):
    """`left operator right`. The right side of `=`, `==` and `!=` is a pattern, that of `=~` a regular expression."""

    __slots__ = ("left", "operator", "right")
    fields = ("left", "operator", "right")

    def __init__(self, left: Word, operator: str, right: Word, offset: int = 0) -> None:
        self.left = left
        self.operator = operator
        self.right = right
        self.offset = offset


class TestNot(Node):
    """`! test`."""

    __slots__ = ("test",)
    fields = ("test",)

    def __init__(self, test: Test, offset: int = 0) -> None:
        self.test = test
        self.offset = offset


class TestList(Node):
    """Two or more tests joined by `&&`, or by `||`."""

    __slots__ = ("operator", "tests")
    fields = ("operator", "tests")

    def __init__(self, operator: str, tests: list[Test], offset: int = 0) -> None:
        self.operator = operator
        self.tests = tests
        self.offset = offset


Test = TestWord | TestUnary | TestBinary | TestNot | TestList


class Conditional(Node):
    """`[[ test ]]`."""

    __slots__ = ("test",)
    fields = ("test",)

    def __init__(self, test: Test, offset: int = 0) -> None:
        self.test = test
        self.offset = offset


Command = (
    Simple
    | Ask
    | Background
    | AndOr
    | Pipeline
    | Timed
    | Redirected
    | Group
    | Subshell
    | If
    | While
    | For
    | ForArithmetic
    | ArithmeticCommand
    | Conditional
    | Case
    | Function
)
