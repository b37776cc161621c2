"""Arithmetic of `$((…))` and `((…))`: 64-bit signed integers, C's operators and precedence, `**`, assignments and `,`.

An expression is compiled once to nested functions of a `Variables`; the compiled forms are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from llmos_shell.lang.errors import ExpansionError


class Variables(Protocol):
    """Where names get their values."""

    def lookup(self, name: str) -> str | None:
        """A variable's value, None when unset."""

    def assign(self, name: str, value: str) -> None:
        """Sets a variable."""

    def subscript(self, name: str, index: str) -> str:
        """The text of an index that means the same, and changes nothing when it is evaluated."""

    def element(self, name: str, index: str) -> str | None:
        """An element of an array, by the text of its index; None when unset."""

    def assign_element(self, name: str, index: str, value: str) -> None:
        """Sets an element."""


Compiled = Callable[[Variables], int]

MAX_DEPTH = 64
_TOKEN = re.compile(
    r"\s*(?:(0[xX][0-9a-fA-F]+|[0-9]+#[0-9a-zA-Z]+|[0-9][0-9a-zA-Z]*)|([A-Za-z_][A-Za-z0-9_]*)"
    r"|(<<=|>>=|\*\*|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%&|^!~<>=?:(),]))"
)
_INTEGER = re.compile(r"[ \t\n]*([-+]?(?:0|[1-9][0-9]*))[ \t\n]*\Z")
_BINARY: tuple[frozenset[str], ...] = tuple(
    frozenset(level.split())
    for level in ("||", "&&", "|", "^", "&", "== !=", "< > <= >=", "<< >>", "+ -", "* / %", "**")
)
_ASSIGNMENTS = frozenset(["=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="])
_CACHE_LIMIT = 512
_compiled: dict[str, Compiled] = {}


def evaluate(text: str, variables: Variables) -> int:
    """The value of an expression; an empty one is 0. Raises `ExpansionError`."""
    try:
        compiled = _compiled.get(text)
        if compiled is None:
            compiled = compile_expression(text)
            if len(_compiled) >= _CACHE_LIMIT:
                _compiled.clear()
            _compiled[text] = compiled
        return compiled(variables)
    except RecursionError:
        raise ExpansionError("arithmetic: the expression is too long") from None


def compile_expression(text: str) -> Compiled:
    """An expression as a function of the variables. Raises `ExpansionError` if it is none."""
    return _Compiler(text).compile()


def wrap(value: int) -> int:
    """The value in 64 bits, two's complement."""
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return value
    return ((value + 0x8000000000000000) & 0xFFFFFFFFFFFFFFFF) - 0x8000000000000000


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise ExpansionError("division by zero")
    quotient = abs(left) // abs(right)
    return wrap(quotient if (left < 0) == (right < 0) else -quotient)


def _remainder(left: int, right: int) -> int:
    if right == 0:
        raise ExpansionError("division by zero")
    remainder = abs(left) % abs(right)
    return -remainder if left < 0 else remainder


def _power(left: int, right: int) -> int:
    if right < 0:
        raise ExpansionError("negative exponent")
    return wrap(pow(left, right, 1 << 64)) if right else 1


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    ">": lambda a, b: int(a > b),
    "<=": lambda a, b: int(a <= b),
    ">=": lambda a, b: int(a >= b),
    "<<": lambda a, b: wrap(a << (b & 63)),
    ">>": lambda a, b: a >> (b & 63),
    "+": lambda a, b: wrap(a + b),
    "-": lambda a, b: wrap(a - b),
    "*": lambda a, b: wrap(a * b),
    "/": _divide,
    "%": _remainder,
    "**": _power,
}


def _constant(text: str) -> int:
    try:
        if "#" in text:
            base, digits = text.split("#", 1)
            return wrap(int(digits, int(base)))
        if text[:2] in ("0x", "0X"):
            return wrap(int(text, 16))
        return wrap(int(text, 8 if text[0] == "0" else 10))
    except ValueError:
        raise ExpansionError(f"arithmetic: {text[:40]} is no number") from None


def _variable(name: str) -> Compiled:
    base, bracket, rest = name.partition("[")
    index = rest[:-1]
    if bracket:
        return lambda variables: _value(base, variables.element(base, index), variables)
    return lambda variables: _value(base, variables.lookup(base), variables)


def _value(name: str, text: str | None, variables: Variables) -> int:
    if not text:
        return 0
    match = _INTEGER.match(text)
    if match is not None and len(text) < 20:
        return wrap(int(match.group(1)))
    return _indirect(name, text, variables)


_nesting = 0


def _indirect(name: str, text: str, variables: Variables) -> int:
    """A variable whose value is an expression itself."""
    global _nesting
    if _nesting >= MAX_DEPTH:
        raise ExpansionError(f"arithmetic: {name}: the value refers to itself")
    _nesting += 1
    try:
        return evaluate(text, variables)
    except ExpansionError as error:
        error.within = None
        raise
    finally:
        _nesting -= 1


class _Compiler:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[int, str]] = []  # (1 number, 2 name, 3 operator)
        self._places: list[int] = []  # where they begin
        self._at = 0
        self._depth = 0
        position, end = 0, len(text.rstrip())
        while position < end:
            if text[position] == "[" and self._tokens and self._tokens[-1][0] == 2:
                position = self._add_index(position)
                continue
            match = _TOKEN.match(text, position)
            if match is None:
                found = text[position:].lstrip()
                self._at = len(self._places)
                self._places.append(len(text) - len(found))
                raise self._error(found.rstrip()[:20])
            assert match.lastindex is not None
            self._places.append(match.start(match.lastindex))
            self._tokens.append((match.lastindex, match.group(match.lastindex)))
            position = match.end()
        self._tokens.append((0, ""))
        self._places.append(end)

    def _add_index(self, position: int) -> int:
        """Adds what is in brackets to the name before them; where the text goes on."""
        depth, at = 0, position
        while at < len(self._text):
            depth += (self._text[at] == "[") - (self._text[at] == "]")
            at += 1
            if not depth:
                self._tokens[-1] = (2, self._tokens[-1][1] + self._text[position:at])
                return at
        self._at = len(self._tokens) - 1
        raise self._error(self._text[position:].rstrip()[:20])

    def compile(self) -> Compiled:
        if len(self._tokens) == 1:
            return lambda variables: 0
        compiled = self._comma()
        if self._tokens[self._at][0]:
            raise self._error(self._tokens[self._at][1])
        return compiled

    def _error(self, found: str) -> ExpansionError:
        what = f"unexpected `{found}`" if found else "unexpected end"
        error = ExpansionError(f"arithmetic: {what} in `{self._text.strip()[:60]}`")
        error.within = self._places[self._at]
        return error

    def _accept(self, operators: frozenset[str] | tuple[str, ...]) -> str:
        kind, text = self._tokens[self._at]
        if kind == 3 and text in operators:
            self._at += 1
            return text
        return ""

    def _expect(self, operator: str) -> None:
        if not self._accept((operator,)):
            raise self._error(self._tokens[self._at][1])

    def _comma(self) -> Compiled:
        left = self._assignment()
        while self._accept((",",)):
            first, second = left, self._assignment()
            left = lambda variables, a=first, b=second: (a(variables), b(variables))[1]  # type: ignore[misc]  # noqa: E731
        return left

    def _assignment(self) -> Compiled:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpansionError("arithmetic: nested too deeply")
        kind, name = self._tokens[self._at]
        following = self._tokens[self._at + 1] if kind == 2 else (0, "")
        if kind == 2 and following[0] == 3 and following[1] in _ASSIGNMENTS:
            self._at += 2
            value = self._assignment()
            compiled = _assign(name, value, following[1][:-1])
        else:
            compiled = self._conditional()
        self._depth -= 1
        return compiled

    def _conditional(self) -> Compiled:
        condition = self._binary(0)
        if not self._accept(("?",)):
            return condition
        yes = self._comma()
        self._expect(":")
        no = self._assignment()
        return lambda variables: yes(variables) if condition(variables) else no(variables)

    def _binary(self, level: int) -> Compiled:
        if level == len(_BINARY):
            return self._unary()
        operators = _BINARY[level]
        left = self._binary(level + 1)
        while operator := self._accept(operators):
            right = self._binary(level if operator == "**" else level + 1)
            left = _combine(operator, left, right)
        return left

    def _unary(self) -> Compiled:
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == 1:
            number = _constant(text)
            return lambda variables: number
        if kind == 2:
            operator = self._accept(("++", "--"))
            return _step(text, operator, after=True) if operator else _variable(text)
        if text in ("++", "--") and self._tokens[self._at][0] == 2:
            self._at += 1
            return _step(self._tokens[self._at - 1][1], text, after=False)
        if text == "(":
            inner = self._comma()
            self._expect(")")
            return inner
        if kind != 3 or text not in ("+", "-", "!", "~", "++", "--"):
            self._at -= 1
            raise self._error(text)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpansionError("arithmetic: nested too deeply")
        operand = self._unary()
        self._depth -= 1
        if text == "-":
            return lambda variables: wrap(-operand(variables))
        if text == "!":
            return lambda variables: int(not operand(variables))
        if text == "~":
            return lambda variables: ~operand(variables)
        return operand


def _combine(operator: str, left: Compiled, right: Compiled) -> Compiled:
    if operator == "&&":
        return lambda variables: int(bool(left(variables) and right(variables)))
    if operator == "||":
        return lambda variables: int(bool(left(variables) or right(variables)))
    operation = _OPERATIONS[operator]
    return lambda variables: operation(left(variables), right(variables))


class _Place:
    """What can be assigned to: a variable, or an element of an array, whose index is evaluated once for each use."""

    def __init__(self, name: str) -> None:
        self._name, self._bracket, rest = name.partition("[")
        self._index = rest[:-1]

    def change(
        self, variables: Variables, new: Callable[[Variables, int], int], *, first: bool = True
    ) -> tuple[int, int]:
        """Sets it to what `new` makes of its value; the value before and after."""
        if not self._bracket:
            old = _value(self._name, variables.lookup(self._name), variables) if first else 0
            result = new(variables, old)
            variables.assign(self._name, str(result))
            return old, result
        index = variables.subscript(self._name, self._index)
        old = _value(self._name, variables.element(self._name, index), variables) if first else 0
        result = new(variables, old)
        variables.assign_element(self._name, index, str(result))
        return old, result


def _assign(name: str, value: Compiled, operator: str) -> Compiled:
    place, operation = _Place(name), _OPERATIONS.get(operator)
    if operation is None:
        return lambda variables: place.change(variables, lambda given, _: value(given), first=False)[1]
    return lambda variables: place.change(variables, lambda given, old: operation(old, value(given)))[1]


def _step(name: str, operator: str, *, after: bool) -> Compiled:
    place, change = _Place(name), 1 if operator == "++" else -1
    which = 0 if after else 1
    return lambda variables: place.change(variables, lambda _, old: wrap(old + change))[which]
