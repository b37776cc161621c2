"""All manuals and topics there are: finding one by name, and searching in all of them.

A name may be a command's and a topic's at once (`jobs`, `models`); then it has both pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from llmos_shell.lang.compound import RESERVED
from llmos_shell.shell import commands, topics
from llmos_shell.shell.command import Manual
from llmos_shell.shell.interpreter.language_help import LANGUAGE
from llmos_shell.shell.manpage import option_rows
from llmos_shell.shell.topics import Topic

FAMILIES = {
    "models": "Models and prompts",
    "processes": "Processes",
    "shell": "The shell",
    "system": "The system",
    "help": "Help",
}
"""Headings of `help`, in this order; the language's own commands follow."""


class Hit(Struct, frozen=True):
    """What a search found. `kind` is `command`, `language` or `topic`."""

    name: str
    kind: str
    summary: str
    score: int


def find_manual(name: str) -> Manual | None:
    """The manual of a command; of one that is also part of the language, the language's gives way."""
    return commands.find(name) or LANGUAGE.get(name)


def find_topic(name: str) -> Topic | None:
    """The topic of that name; a keyword of the grammar is explained by the topic on the language."""
    if name in topics.NAMES:
        return topics.load(name)
    return topics.load("language") if name in RESERVED else None


def has_page(name: str) -> bool:
    """Whether there is anything to read about it."""
    return name in commands.names() or name in LANGUAGE or name in topics.NAMES or name in RESERVED


def page_names() -> list[str]:
    """All names that have a page, sorted."""
    return sorted({*commands.names(), *LANGUAGE, *topics.NAMES})


def all_manuals() -> Iterator[Manual]:
    """Of every command once, those of the language last."""
    for name in commands.names():
        command = commands.find(name)
        if command is not None:
            yield command
    yield from (manual for name, manual in LANGUAGE.items() if name not in commands.names())


# -- searching -------------------------------------------------------------------------------------------------------

_NAME, _NAME_PART, _SUMMARY, _TOPIC, _OPTION, _EXAMPLE, _TEXT = 100, 40, 20, 12, 6, 5, 4
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ers", "ed", "es", "er", "s", "e", "y")


def search(words: Sequence[str]) -> list[Hit]:
    """What has to do with the words, best first: all that matches every word; nothing such, what matches the most."""
    words = [word for word in words if word.strip()]
    patterns = [_pattern(word) for word in words]
    found: list[tuple[int, Hit]] = []
    for kind, name, summary, fields in _entries():
        scores = [_score(pattern, word, name, fields) for pattern, word in zip(patterns, words, strict=True)]
        matched = sum(score > 0 for score in scores)
        if matched:
            found.append((matched, Hit(name, kind, summary, sum(scores))))
    most = max((matched for matched, _ in found), default=0)
    hits = [hit for matched, hit in found if matched == most]
    return sorted(hits, key=lambda hit: (-hit.score, hit.name, hit.kind))


def _entries() -> Iterator[tuple[str, str, str, tuple[tuple[int, str], ...]]]:
    """Kind, name, summary, and texts with the weight of a word found in them."""
    for manual in all_manuals():
        options = " ".join(f"{flags} {text}" for flags, text in option_rows(manual))
        operands = " ".join(f"{operand.name} {operand.help}" for operand in manual.operands)
        examples = " ".join(f"{example.line} {example.does}" for example in manual.examples)
        fields = (
            (_SUMMARY, manual.summary),
            (_OPTION, f"{options} {operands}"),
            (_EXAMPLE, examples),
            (_TEXT, manual.description),
        )
        yield "language" if manual.name not in commands.names() else "command", manual.name, manual.summary, fields
    for topic in map(topics.load, topics.NAMES):
        yield "topic", topic.name, topic.summary, ((_TOPIC, topic.summary), (_TEXT, topic.text))


def _score(pattern: re.Pattern[str], word: str, name: str, fields: Sequence[tuple[int, str]]) -> int:
    score = _NAME if name == word.lower() else _NAME_PART if pattern.search(name) else 0
    return score + sum(weight for weight, text in fields if pattern.search(text))


def _pattern(word: str) -> re.Pattern[str]:
    """Finds the word and its forms at the beginning of words; anything that is no word, anywhere."""
    if not word.isalpha():
        return re.compile(re.escape(word), re.IGNORECASE)
    stem = word.lower()
    for ending in _ENDINGS:
        if stem.endswith(ending) and len(stem) - len(ending) >= 3:
            stem = stem.removesuffix(ending)
            break
    if len(stem) >= 4 and stem[-1] == stem[-2]:
        stem = stem[:-1]  # stopped, running
    return re.compile(rf"\b{re.escape(stem)}", re.IGNORECASE)
