"""Brace expansion: `a{b,c}d`, `{1..9..2}`, `{a..z}`. One word becomes several, before any other expansion."""

from __future__ import annotations

import re
from typing import cast

from llmos_shell.lang.ast import Literal, Part, Word
from llmos_shell.lang.errors import ExpansionError
from llmos_shell.lang.words import mark_tilde

LIMIT = 1_000_000
"""How many words one may become."""

Atom = tuple[str, int] | Part
"""An unquoted character with its offset, or a part that braces do not reach into."""

_SEQUENCE = re.compile(r"(?:(-?[0-9]+)\.\.(-?[0-9]+)|([A-Za-z])\.\.([A-Za-z]))(?:\.\.(-?[0-9]+))?\Z")
_PADDED = re.compile(r"-?0[0-9]")


def expand(word: Word) -> list[Word] | None:
    """The words that the braces make; None where there is nothing to expand. Raises `ExpansionError`."""
    atoms: list[Atom] = []
    for part in word.parts:
        if type(part) is Literal:
            atoms += [(char, part.offset + index) for index, char in enumerate(part.text)]
        else:
            atoms.append(part)
    found = _expand(atoms)
    return [_word(each, word.offset) for each in found] if len(found) > 1 or found[0] != atoms else None


def _char(atom: Atom) -> str:
    return atom[0] if type(atom) is tuple else ""


def _expand(atoms: list[Atom]) -> list[list[Atom]]:
    """All that the atoms stand for, the leftmost choice changing last."""
    done: list[list[Atom]] = [[]]
    at = 0
    while at < len(atoms):
        choices = _choices(atoms, at) if _char(atoms[at]) == "{" else None
        if choices is None:
            for each in done:
                each.append(atoms[at])
            at += 1
            continue
        alternatives, at = choices
        if len(done) * len(alternatives) > LIMIT:
            raise ExpansionError(f"the braces make more than {LIMIT} words")
        done = [[*each, *alternative] for each in done for alternative in alternatives]
    return done


def _choices(atoms: list[Atom], start: int) -> tuple[list[list[Atom]], int] | None:
    """The alternatives of the braces that begin at `start`, and where they end; None if they are plain text."""
    depth, commas, at = 0, [start], start  # type: tuple[int, list[int], int]
    while at < len(atoms):
        char = _char(atoms[at])
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if not depth:
                break
        elif char == "," and depth == 1:
            commas.append(at)
        at += 1
    else:
        return None
    if len(commas) == 1:
        inside = _sequence("".join(_char(atom) or "\0" for atom in atoms[start + 1 : at]))
        if inside is None:
            return None
        offset = cast(tuple[str, int], atoms[start])[1]
        return [[(char, offset) for char in text] for text in inside], at + 1
    found: list[list[Atom]] = []
    for first, last in zip(commas, [*commas[1:], at], strict=True):
        found += _expand(atoms[first + 1 : last])
        if len(found) > LIMIT:
            raise ExpansionError(f"the braces make more than {LIMIT} words")
    return found, at + 1


def _sequence(text: str) -> list[str] | None:
    """What stands between braces as a sequence of numbers or letters, if it is one."""
    match = _SEQUENCE.match(text)
    if match is None:
        return None
    low, high, first, last, step = match.groups()
    width = max(len(low), len(high)) if low and (_PADDED.match(low) or _PADDED.match(high)) else 0
    begin, end = (int(low), int(high)) if low else (ord(first), ord(last))
    stride = abs(int(step or 1)) or 1
    if abs(end - begin) // stride >= LIMIT:
        raise ExpansionError(f"the braces make more than {LIMIT} words")
    numbers = range(begin, end + 1, stride) if begin <= end else range(begin, end - 1, -stride)
    return [f"{number:0{width}d}" for number in numbers] if low else [chr(number) for number in numbers]


def _word(atoms: list[Atom], offset: int) -> Word:
    parts: list[Part] = []
    for atom in atoms:
        if type(atom) is not tuple:
            parts.append(cast(Part, atom))
        elif parts and type(parts[-1]) is Literal:
            parts[-1] = Literal(parts[-1].text + atom[0], parts[-1].offset)
        else:
            parts.append(Literal(atom[0], atom[1]))
    mark_tilde(parts)
    return Word(parts, offset)
