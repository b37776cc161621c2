"""Pairs of question and right answer, generated from the phrasing grammar with random names, numbers and paths."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from llmos_shell.shell.assistant import Prepared, places, prepare, wire
from llmos_shell.shell.assistant_forms import ANSWERS, FORMS, HELP_TOPICS
from llmos_shell.shell.assistant_slots import Slot
from llmos_shell.training.phrases import Intent, Phrasings, Template


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MODELS = _words(
    "tiny stories15m llama-3.2-1b qwen2.5-0.5b-instruct smollm2 gemma-3-270m phi3 mistral-7b-v0.3 demo my-model "
    "writer coder tinyllama-1.1b.gguf assistant-v2 small big"
)
"""Names the shell is told when questions are generated."""

_FOLDERS = _words("docs/ notes/2026 ./data src/ projects/llm ~/texts ~/projects /tmp /var/log ../old ./in ~/a/b")
_FILES = _words(
    "notes.txt README.md data.json out.txt story.md report.csv log.txt answer.txt main.py poem.txt letter.md"
)
_TEXTS = (
    "hello world",
    "write a poem about rain",
    "why is the sky blue",
    "count to ten",
    "once upon a time",
    "summarise this",
    "tell me a joke",
    "list all primes below 100",
    "translate to French",
    "kill process 42",
    "the cat sat on the mat",
    "what is 2 + 2?",
    "how are you",
)
_SIGNALS = ("HUP", "INT", "KILL", "TERM", "STOP", "CONT")
_DURATIONS = (("{} seconds", 1), ("{} s", 1), ("{}s", 1), ("{} minutes", 60), ("{} min", 60), ("{} hours", 3600))
_NUMERALS = dict(enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], 2))
_QUOTES = ('"{}"', "'{}'", "“{}”", '"{}"')
_JOBS = ("%", "job #", "job number #", "%", "job %", "the job #", "background job #")
_JOB_SHARE = 0.12  # of processes are named as jobs
_SLOT = re.compile(r"\{(\w)\}")


@dataclass(frozen=True)
class Pair:
    """A question as a person would type it, what is right, and the template it came from."""

    intent: str
    template: str
    question: str
    right: str  # a command line with `{x}` filled in, or an answer in words
    prepared: Prepared
    target: str | None  # the completion that gives it; None when the slots were not found


class Generator:
    """Draws pairs; the same seed gives the same pairs."""

    def __init__(self, phrasings: Phrasings, seed: int) -> None:
        self._phrasings = phrasings
        self._rng = random.Random(seed)

    def pair(self, intent: Intent, template: Template) -> Pair:
        """One pair from a template, as a command or (if the intent has an answer) as a how-to question."""
        concrete = bool(intent.command) and not (intent.answer and self._rng.random() < 0.35)
        if concrete and "{" in intent.command and not self._fits(intent, template):
            concrete = False
        return self._command(intent, template) if concrete else self._answer(intent, template)

    @staticmethod
    def _fits(intent: Intent, template: Template) -> bool:
        """Whether the template can name everything the command needs."""
        return all(f"{{{letter}}}" in template.text for letter in _SLOT.findall(intent.command))

    def _command(self, intent: Intent, template: Template) -> Pair:
        rng, needed = self._rng, set(_SLOT.findall(intent.command))
        for _ in range(100):
            text = self._phrasings.expand(template.text, rng, concrete=True)
            if set(_SLOT.findall(text)) == needed:
                break
        else:
            raise ValueError(f"template never names {needed}: {template.text}")
        values: dict[str, str] = {}
        question = _SLOT.sub(lambda found: self._value(found.group(1), values, intent), text)
        question = self._framed(template.kind, question)
        right = _SLOT.sub(lambda found: values[found.group(1)], intent.command)
        prepared = prepare(question, MODELS)
        target = _target(intent.command, values, prepared.slots)
        return Pair(intent.name, template.text, question, right, prepared, target)

    def _answer(self, intent: Intent, template: Template) -> Pair:
        rng = self._rng
        text = self._phrasings.expand(template.text, rng, concrete=False)
        question = self._framed(template.kind, _SLOT.sub(lambda found: self._vague(found.group(1)), text))
        right = ANSWERS[intent.answer]
        return Pair(f"say:{intent.answer}", template.text, question, right, prepare(question, MODELS), " " + right)

    def _framed(self, kind: str, text: str) -> str:
        return self._rng.choice(self._phrasings.frames[kind]).replace("{}", text)

    def _vague(self, letter: str) -> str:
        return self._rng.choice(self._phrasings.vague_processes if letter == "p" else self._phrasings.named[letter])

    def _value(self, letter: str, values: dict[str, str], intent: Intent) -> str:
        """A random value for a slot, as it is written in the question; what the command needs goes into `values`."""
        rng = self._rng
        taken = set(values.values())
        value, written = self._draw(letter, intent)
        while value in taken:
            value, written = self._draw(letter, intent)
        values[letter] = value
        if letter == "p" and not value.startswith("%"):
            return rng.choice(self._phrasings.processes).replace("<p>", value)
        return written

    def _draw(self, letter: str, intent: Intent) -> tuple[str, str]:
        rng = self._rng
        if letter == "j" or (letter == "p" and rng.random() < _JOB_SHARE):
            value = f"%{rng.randint(1, 12)}"
            return value, rng.choice(_JOBS).replace("%", value).replace("#", value[1:])
        if letter == "p":
            value = str(rng.randint(1, 10 ** rng.randint(1, 5)))
            return value, value
        if letter == "n":
            return self._number(intent.command)
        if letter == "h":
            value = f"{rng.choice((0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2))}"
            return value, value
        if letter == "t":
            amount, (words, factor) = rng.randint(2, 120), rng.choice(_DURATIONS)
            return str(amount * factor), words.format(amount)
        if letter == "c":
            value = rng.choice(HELP_TOPICS)
            return value, value
        if letter == "s":
            value = rng.choice(_TEXTS)
            return f'"{value}"', rng.choice(_QUOTES).format(value)
        pool = {"m": MODELS, "f": _FILES, "d": _FOLDERS, "g": _SIGNALS}[letter]
        value = rng.choice(pool)
        if letter == "f" and rng.random() < 0.3:
            value = f"{rng.choice(_FOLDERS).rstrip('/')}/{value}"
        written = rng.choice(("SIG{}", "SIG{}", "signal {}", "sig{}")).format(value) if letter == "g" else value
        return value, written

    def _number(self, command: str) -> tuple[str, str]:
        rng = self._rng
        if command.startswith("fork"):
            value = rng.randint(2, 10)
            return str(value), _NUMERALS[value] if rng.random() < 0.5 else str(value)
        if command.startswith(("renice", "nice")):
            value = rng.randint(-20, 19)
            return str(value), f"minus {-value}" if value < 0 and rng.random() < 0.3 else str(value)
        value = rng.choice((5, 10, 20, 32, 50, 64, 100, 128, 200, 256, 500, 1000, 2048)) + rng.choice((0, 0, 0, 1, 7))
        return str(value), str(value)


def _target(command: str, values: dict[str, str], slots: tuple[Slot, ...]) -> str | None:
    """The completion that, with these slots, gives the command with these values; None when there is none."""
    right = _SLOT.sub(lambda found: values[found.group(1)].strip('"'), command)
    there = {slot.place: slot.value for slot in slots}
    best: str | None = None
    for form in FORMS:
        used = places(form)
        if len(used) == len(set(used)) and set(used) <= there.keys():
            line = form
            for place in used:
                line = line.replace(place, there[place])
            if line == right and (best is None or len(used) > len(places(best))):
                best = form
    return None if best is None else wire(best)
