"""What the operators of `${…}` do to values: substrings, sublists, case, quoting. Patterns are `patterns.py`'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmos_shell.lang.errors import ExpansionError
from llmos_shell.lang.patterns import matches
from llmos_shell.lang.quoting import decode_ansi, quote_value


def substring(value: str, start: int, length: int | None) -> str:
    """`${x:start:length}`: a negative start counts from the end, a negative length leaves out that much there."""
    if start < 0:
        start += len(value)
        if start < 0:
            return ""
    if length is None:
        return value[start:]
    end = start + length if length >= 0 else len(value) + length
    if end < start and length < 0:
        raise ExpansionError(f"{length}: the substring would end before it begins")
    return value[start:end]


def sublist(values: list[str], start: int, length: int | None) -> list[str]:
    """`${a[@]:start:length}` where positions are indexes; a start before the first gives nothing."""
    if length is not None and length < 0:
        raise ExpansionError(f"{length}: the length is negative")
    if start < 0:
        return []
    return values[start:] if length is None else values[start : start + length]


def subarray(items: Mapping[int, str], start: int, length: int | None) -> list[str]:
    """`${a[@]:start:length}`: elements from an index on; a negative one counts from behind the last."""
    indexes = list(items)
    if start < 0:
        start += (indexes[-1] if indexes else -1) + 1
        if start < 0:
            return sublist([], 0, length)
    return sublist([items[index] for index in indexes if index >= start], 0, length)


def change_case(operator: str, value: str, pattern: str) -> str:
    """`^` and `,` for the first character, `^^` and `,,` for all, of those that match (any, if there is no pattern)."""
    change = str.upper if operator[0] == "^" else str.lower
    if len(operator) == 1:
        return change(value[:1]) + value[1:] if _fits(value[:1], pattern) else value
    if not pattern:
        return change(value)
    return "".join(change(char) if matches(pattern, char) else char for char in value)


def _fits(char: str, pattern: str) -> bool:
    return not pattern or (char != "" and matches(pattern, char))


TRANSFORMATIONS: dict[str, Callable[[str], str]] = {
    "@Q": quote_value,
    "@U": str.upper,
    "@u": lambda value: value[:1].upper() + value[1:],
    "@L": str.lower,
    "@E": decode_ansi,
}
