"""Noise for training questions: slips of the keyboard, filler words, telegraphic style. Pure.

It works on the words of a prompt; places such as `<n1>` are never touched.
"""

from __future__ import annotations

import random
import re

_WORD = re.compile(r" [^ <]+|<\w+>")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_EMPTY = frozenset(
    _words(
        "a an the of to for me my i it is are do does did can could would please you how what which that this there in "
        "on with and now be want like need just so id whats tell show"
    )
)
_FILLERS = _words(
    "please hey now just well actually maybe kindly really quickly um ok then again dear computer here today thanks "
    "there somehow perhaps possibly simply first quick friend machine all right if so also sir buddy mate"
)
_KEYS = {a: b for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm") for a, b in zip(row, row[1:] + row[-2], strict=True)}


def noisy(prompt: str, rng: random.Random) -> str:
    """The prompt with one or more slips, or unchanged."""
    words = _WORD.findall(prompt)
    if rng.random() < 0.12:
        words = [word for word in words if word[1:] not in _EMPTY] or words
    if rng.random() < 0.20:
        words = [word for word in words if word[0] == "<" or rng.random() > 0.12] or words
    if rng.random() < 0.15:
        words.insert(rng.randint(1, len(words)), " " + rng.choice(_FILLERS))
    if rng.random() < 0.10:
        at = rng.randrange(len(words))
        if words[at][1:] in _EMPTY:
            words[at] = " " + _invented(rng)
    if rng.random() < 0.06 and len(words) > 2:
        at = rng.randrange(len(words) - 1)
        if words[at][0] != "<" and words[at + 1][0] != "<":
            words[at], words[at + 1] = words[at + 1], words[at]
    if rng.random() < 0.25:
        words = [" " + slip(word[1:], rng) if word[0] == " " and rng.random() < 0.2 else word for word in words]
    return "".join(words)


def slip(word: str, rng: random.Random) -> str:
    """A word with one typing mistake; short words stay."""
    if len(word) < 4:
        return word
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    if kind == 2:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + _KEYS.get(word[at], rng.choice(_LETTERS)) + word[at + 1 :]


def _invented(rng: random.Random) -> str:
    """A word that means nothing."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
