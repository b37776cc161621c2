"""The phrasing grammar: templates, what they expand to, and which of them are held out. Pure; see phrasings.toml."""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

KINDS = ("do", "ask", "say", "noun")
"""Kinds of templates: commands, questions, statements, keywords."""

_HELD_OUT_PERCENT = 17
_SPLIT = "final"  # drawn once, when the templates were complete
_TOKEN = re.compile(r"[()\[\]<>|]|\{\w\}|[A-Z]{2,}\d?(?![a-z])|[^()\[\]<>|{}A-Z]+|.")


@dataclass(frozen=True)
class Template:
    """One phrasing of one intent."""

    kind: str
    text: str
    held_out: bool


@dataclass(frozen=True)
class Intent:
    """What is asked for: a command with `{x}` slots, or (also) the name of an answer."""

    command: str
    answer: str
    templates: tuple[Template, ...]

    @property
    def name(self) -> str:
        """Unique name."""
        return self.command or f"say:{self.answer}"

    def chosen(self, held_out: bool) -> list[Template]:
        """Its templates on one side of the split."""
        return [template for template in self.templates if template.held_out == held_out]


@dataclass(frozen=True)
class Phrasings:
    """The whole grammar."""

    intents: tuple[Intent, ...]
    words: Mapping[str, list[str]]
    frames: Mapping[str, list[str]]
    named: Mapping[str, list[str]]  # what slots are called when nothing is named, by their letter
    processes: list[str]
    vague_processes: list[str]
    _parsed: dict[str, Alternatives] = field(default_factory=dict)

    def expand(self, template: str, rng: random.Random, concrete: bool) -> str:
        """A random expansion; `{x}` slots stay. `<…>` parts appear when `concrete`."""
        node = self._parsed.get(template)
        if node is None:
            node = self._parsed[template] = _parse(template)
        return _squeeze(self._say(node, rng, concrete))

    def _say(self, node: Node, rng: random.Random, concrete: bool) -> str:
        if isinstance(node, str):
            return rng.choice(self.words[node]) if node in self.words else node
        if isinstance(node, Alternatives):
            choice = rng.choice(node.choices)
            return "".join(self._say(part, rng, concrete) for part in choice)
        wanted = concrete if node.concrete else rng.random() < 0.5
        return self._say(node.inner, rng, concrete) if wanted else ""


@dataclass(frozen=True)
class Alternatives:
    """One of several sequences."""

    choices: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Perhaps:
    """A part that may be absent; with `concrete`, present exactly when the question names things."""

    inner: Alternatives
    concrete: bool


Node = str | Alternatives | Perhaps


def load() -> Phrasings:
    """The grammar that comes with the package."""
    data = tomllib.loads(files("llmos_shell.training").joinpath("phrasings.toml").read_text(encoding="utf-8"))
    return Phrasings(
        intents=tuple(_intent(entry) for entry in data["intent"]),
        words={name: text.split("|") for name, text in data["words"].items()},
        frames={kind: data["frames"][kind].split("\n")[:-1] for kind in KINDS},
        named={letter: text.split("|") for letter, text in data["named"].items()},
        processes=data["processes"]["do"].split("|"),
        vague_processes=data["processes"]["say"].split("|"),
    )


def _intent(entry: dict[str, Any]) -> Intent:
    """One `[[intent]]` table. The templates with the smallest hashes are held out, at least one of each intent."""
    command, answer = entry.get("command", ""), entry.get("answer", "")
    kinds = {line: kind for kind in reversed(KINDS) for line in entry.get(kind, "").split("\n") if line}
    order = sorted(kinds, key=lambda line: hashlib.sha256(f"{_SPLIT}|{command}|{answer}|{line}".encode()).digest())
    out = set(order[: max(1, round(len(kinds) * _HELD_OUT_PERCENT / 100))])
    return Intent(command, answer, tuple(Template(kind, line, line in out) for line, kind in kinds.items()))


def _squeeze(text: str) -> str:
    return re.sub(r" ,", ",", re.sub(r" +", " ", text)).strip()


def _parse(text: str) -> Alternatives:
    tokens = _TOKEN.findall(text)
    tree, rest = _alternatives(tokens, 0)
    if rest != len(tokens):
        raise ValueError(f"unbalanced brackets in template: {text}")
    return tree


def _alternatives(tokens: list[str], at: int) -> tuple[Alternatives, int]:
    choices: list[list[Node]] = [[]]
    while at < len(tokens) and tokens[at] not in (")", "]", ">"):
        token = tokens[at]
        if token == "|":
            choices.append([])
        elif token in "([<":
            inner, at = _alternatives(tokens, at + 1)
            if at >= len(tokens) or tokens[at] != {"(": ")", "[": "]", "<": ">"}[token]:
                raise ValueError(f"unbalanced brackets in template: {''.join(tokens)}")
            choices[-1].append(inner if token == "(" else Perhaps(inner, token == "<"))
        else:
            choices[-1].append(token)
        at += 1
    return Alternatives(tuple(tuple(choice) for choice in choices)), at
