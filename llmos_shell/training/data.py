"""What `tiny` is trained and measured on: generated pairs of both sides of the split, and hand-written questions."""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files

from llmos_shell.shell.assistant import prepare
from llmos_shell.training.pairs import Generator, Pair
from llmos_shell.training.phrases import Intent, Phrasings, Template

_HELD_OUT_SEED, _TRAINING_SEED, _SEEN_SEED = 1, 2, 3


@dataclass(frozen=True)
class Fresh:
    """Hand-written questions with the answers that are right, and the model names the shell knows."""

    models: list[str]
    questions: dict[str, list[str]]


def fresh() -> Fresh:
    """The questions of fresh.toml."""
    data = tomllib.loads(files("llmos_shell.training").joinpath("fresh.toml").read_text(encoding="utf-8"))
    return Fresh(data["models"], data["questions"])


def prompts_to_avoid(held_out: Iterable[Pair], questions: Fresh) -> frozenset[str]:
    """Prompts of both evaluations, which training must not contain."""
    asked = (prepare(question, questions.models) for question in questions.questions)
    return frozenset(pair.prepared.prompt for pair in held_out) | frozenset(prepared.prompt for prepared in asked)


def held_out_pairs(phrasings: Phrasings, per_template: int) -> list[Pair]:
    """The same number of pairs from every held-out template; the same ones every time."""
    return _each_template(Generator(phrasings, _HELD_OUT_SEED), phrasings, per_template, held_out=True)


def seen_pairs(phrasings: Phrasings, per_template: int) -> list[Pair]:
    """Pairs from the training templates, for comparison."""
    return _each_template(Generator(phrasings, _SEEN_SEED), phrasings, per_template, held_out=False)


def training_pairs(phrasings: Phrasings, count: int, avoid: frozenset[str]) -> Iterator[Pair]:
    """`count` pairs from training templates whose prompts are none of `avoid`."""
    generator, rng = Generator(phrasings, _TRAINING_SEED), random.Random(_TRAINING_SEED)
    choices = [(intent, intent.chosen(held_out=False)) for intent in phrasings.intents]
    weights = [_weight(intent, templates) for intent, templates in choices]
    while count:
        intent, templates = rng.choices(choices, weights)[0]
        pair = generator.pair(intent, rng.choice(templates))
        if pair.target is not None and pair.prepared.prompt not in avoid:
            count -= 1
            yield pair


def _weight(intent: Intent, templates: list[Template]) -> float:
    """How often an intent is drawn: more for those with many phrasings or many outcomes."""
    outcomes = 4.0 if "{c}" in intent.command else 1.6 if intent.answer and intent.command else 1.0
    return outcomes * math.sqrt(len(templates))


def _each_template(generator: Generator, phrasings: Phrasings, count: int, held_out: bool) -> list[Pair]:
    return [
        generator.pair(intent, template)
        for intent in phrasings.intents
        for template in intent.chosen(held_out)
        for _ in range(count)
    ]
