"""The shell's assistant: from a question to a prompt for the built-in model, and from its completion to a proposal.

Pure functions, no I/O: the shell sends `Prepared.prompt` as raw text with `Prepared.grammar` at temperature 0 and hands
the completion to `finish`. Names, numbers, paths and quoted texts never pass through the model: they are taken out of
the question, the model sees places (`<n1>`), and they are put back, quoted, into the command line it chose.
Nothing here runs a command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from llmos_shell.shell.assistant_forms import ANSWERS, FORMS, UNKNOWN
from llmos_shell.shell.assistant_slots import Slot, find_slots

MAX_TOKENS = 48
"""Enough for the longest answer."""

ASK, DO = "<ask>", "<do>"
"""The model's marks around a question. They are tokens of its vocabulary."""

_WRAPPED = re.compile(r"""^\s*(["'])((?:(?!\1).)+)\1\s*$""", re.DOTALL)
_PLACE = re.compile(r"<([nsmfjg])(\d)>")


@dataclass(frozen=True)
class Prepared:
    """A question, ready for the model. `grammar` is GBNF that admits only sensible answers."""

    prompt: str
    slots: tuple[Slot, ...]
    grammar: str | None


@dataclass(frozen=True)
class Proposal:
    """What to show: a command line for the edit buffer, or an answer in words. `unknown` carries an apology."""

    kind: Literal["command", "answer", "unknown"]
    text: str
    destructive: bool = False


def prepare(question: str, models: Sequence[str] = ()) -> Prepared:
    """Prompt, slots and grammar for a question; `models` are the names the registry knows.

    Quotes around the whole question are not part of it.
    """
    asked = _WRAPPED.sub(r"\2", question)
    slots = find_slots(asked, models)
    return Prepared(f"{ASK}{_text(asked, slots)}{DO}", slots, _grammar(candidates(slots)))


def finish(prepared: Prepared, completion: str) -> Proposal:
    """The proposal a completion stands for; `unknown` when it is neither a command line we know nor an answer."""
    said = completion.strip()
    if not said.startswith("$"):
        known = said in ANSWERS.values() and said != UNKNOWN
        return Proposal("answer", said) if known else Proposal("unknown", UNKNOWN)
    values = {slot.place: _quoted(slot) for slot in prepared.slots}
    form = _FORM_OF.get(said)
    if form is None or not set(places(form)) <= values.keys():
        return Proposal("unknown", UNKNOWN)
    line = _PLACE.sub(lambda found: values[found.group()], form)
    return Proposal("command", line, destructive=_is_destructive(line))


@cache
def wire(form: str) -> str:
    """A command form as the model writes it: `kill <n1>` is `$ kill<n1>`, since a place carries its own space."""
    return "$ " + re.sub(r" (?=<[nsmfj]\d>)", "", form)


@cache
def places(form: str) -> tuple[str, ...]:
    """The places of a form, in order."""
    return tuple(found.group() for found in _PLACE.finditer(form))


def candidates(slots: Sequence[Slot]) -> list[str]:
    """Completions that make sense for these slots.

    A quoted text, a file, a job or a signal was named for a purpose, so only forms that use as many of them as possible
    are admitted; numbers and models may be left unused. Answers in words are for questions that name nothing.
    """
    there = {slot.place for slot in slots}
    named = {slot.place for slot in slots if slot.kind in "sfjg"}
    possible = [(form, set(places(form))) for form in FORMS]
    possible = [(form, used) for form, used in possible if used <= there]
    most = max(len(used & named) for _, used in possible)
    commands = [wire(form) for form, used in possible if len(used & named) == most]
    return commands + ([UNKNOWN] if slots else list(ANSWERS.values()))


def _is_destructive(line: str) -> bool:
    """Whether the line ends a process or overwrites a file."""
    return line.split()[0] in ("kill", "ulimit") or " > " in line


def _grammar(completions: Iterable[str]) -> str:
    """GBNF for exactly these completions; an answer in words starts with a space."""
    texts = (text if text.startswith("$") else " " + text for text in completions)
    return "root ::= " + " | ".join('"' + text.replace("\\", r"\\").replace('"', r"\"") + '"' for text in texts)


_FORM_OF = {wire(form): form for form in FORMS}


# -- text ------------------------------------------------------------------------------------------------------------


def _text(question: str, slots: Sequence[Slot]) -> str:
    """The question in lower-case words without punctuation, each with a space before it, slots as places."""
    parts, at = [], 0
    for slot in slots:
        parts += [_words(question[at : slot.start]), slot.place, f" {slot.unit}" if slot.unit else ""]
        at = slot.end
    return "".join([*parts, _words(question[at:])])


def _words(text: str) -> str:
    bare = text.lower().replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    return "".join(f" {word}" for word in re.findall(r"[^\W_]+", bare))


def _quoted(slot: Slot) -> str:
    """The value as the shell has to read it."""
    value = slot.value
    if slot.kind in "ngj":
        return value
    if slot.kind == "s":
        return shlex.quote(value) if re.search(r'["\\$`!]', value) else f'"{value}"'
    tilde = "~/" if value.startswith("~/") else ""
    return value if value == "~" else tilde + (shlex.quote(value[len(tilde) :]) if value[len(tilde) :] else "")
