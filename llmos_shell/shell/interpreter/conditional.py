"""`[[ ]]`: what its tests say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmos_shell.lang.arithmetic import evaluate
from llmos_shell.lang.ast import Test, TestBinary, TestList, TestNot, TestUnary
from llmos_shell.lang.errors import ExpansionError
from llmos_shell.lang.patterns import matches
from llmos_shell.lang.quoting import quote_word
from llmos_shell.lang.regex import compile_regex
from llmos_shell.shell.interpreter.arrays import Array
from llmos_shell.shell.interpreter.builtins_test import BINARY, UNARY, is_set, is_terminal, option_is_on
from llmos_shell.shell.interpreter.trace import trace

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

_NUMERIC = {
    "-eq": int.__eq__,
    "-ne": int.__ne__,
    "-lt": int.__lt__,
    "-le": int.__le__,
    "-gt": int.__gt__,
    "-ge": int.__ge__,
}


class _Wrong(Exception):
    """A test that has no answer; it was said why."""


def holds(shell: Shell, test: Test) -> int:
    """Status 0 if the test holds, 1 if not, 2 if it cannot be made."""
    try:
        return int(not _holds(shell, test))
    except _Wrong:
        return 2


def _holds(shell: Shell, test: Test) -> bool:
    if isinstance(test, TestBinary):
        return _compare(shell, test)
    if isinstance(test, TestUnary):
        return _check(shell, test)
    if isinstance(test, TestNot):
        return not _holds(shell, test.test)
    if isinstance(test, TestList):
        every = test.operator == "&&"
        return all(_holds(shell, each) for each in test.tests) if every else any(_holds(shell, e) for e in test.tests)
    text = shell._expander.string(test.word)
    _trace(shell, f"-n {quote_word(text)}")
    return bool(text)


def _check(shell: Shell, test: TestUnary) -> bool:
    operator, text = test.operator, shell._expander.string(test.word)
    _trace(shell, f"{operator} {quote_word(text)}")
    if operator == "-v":
        return is_set(shell, text)
    if operator == "-o":
        return option_is_on(shell, text)
    if operator == "-t":
        return is_terminal(shell, text)
    return UNARY["-e" if operator == "-a" else operator](text)


def _compare(shell: Shell, test: TestBinary) -> bool:
    operator, expander = test.operator, shell._expander
    left = expander.string(test.left)
    if operator in ("=", "==", "!="):
        pattern = expander.pattern(test.right)
        _trace(shell, f"{quote_word(left)} {operator} {pattern}")
        return matches(pattern, left, extended=True) is (operator != "!=")
    if operator == "=~":
        return _search(shell, test, left)
    right = expander.string(test.right)
    _trace(shell, f"{quote_word(left)} {operator} {quote_word(right)}")
    if operator in _NUMERIC:
        return bool(_NUMERIC[operator](_number(shell, left, test), _number(shell, right, test)))
    return BINARY[operator](left, right)


def _number(shell: Shell, text: str, test: Test) -> int:
    try:
        return evaluate(text, shell)
    except ExpansionError as error:
        error.offset = test.offset
        shell._complain_of(error)
        raise _Wrong from None


def _search(shell: Shell, test: TestBinary, text: str) -> bool:
    """`=~`; the match and its groups go to `BASH_REMATCH`."""
    pieces = shell._expander.pieces(test.right)
    _trace(shell, f"{quote_word(text)} =~ {''.join(piece for piece, _ in pieces)}")
    try:
        match: re.Match[str] | None = compile_regex(pieces).search(text)
    except ExpansionError as error:
        error.offset = test.right.offset
        shell._complain_of(error)
        raise _Wrong from None
    found = [match.group(), *(group or "" for group in match.groups())] if match is not None else []
    shell.variables.set_array("BASH_REMATCH", Array(items=dict(enumerate(found))))
    return match is not None


def _trace(shell: Shell, text: str) -> None:
    if shell.options.xtrace:
        trace(shell, f"[[ {text} ]]")
