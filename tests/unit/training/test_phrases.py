"""The phrasing grammar, the split and the generated pairs."""

from __future__ import annotations

import random

import pytest

from llmos_shell.shell.assistant import finish, wire
from llmos_shell.shell.assistant_forms import ANSWERS, FORMS, HELP_TOPICS
from llmos_shell.training import data, noise, phrases
from llmos_shell.training.measure import right_text

PHRASINGS = phrases.load()


def test_every_intent_holds_out_templates_that_are_not_trained_on() -> None:
    for intent in PHRASINGS.intents:
        held_out = {template.text for template in intent.chosen(held_out=True)}
        trained = {template.text for template in intent.chosen(held_out=False)}
        assert held_out and trained and not held_out & trained, intent.name
    templates = [template for intent in PHRASINGS.intents for template in intent.templates]
    assert sum(template.held_out for template in templates) >= 0.15 * len(templates)


def test_held_out_pairs_are_valid_and_come_back_through_the_pipeline() -> None:
    for pair in data.held_out_pairs(PHRASINGS, 2):
        assert pair.target is not None, pair.question
        proposal = finish(pair.prepared, pair.target)
        assert proposal.text == pair.right, pair.question
        assert pair.prepared.grammar is not None


def test_training_pairs_are_valid_and_avoid_what_is_measured() -> None:
    held_out, fresh = data.held_out_pairs(PHRASINGS, 4), data.fresh()
    avoid = data.prompts_to_avoid(held_out, fresh)
    measured = {template.text for intent in PHRASINGS.intents for template in intent.chosen(held_out=True)}
    own = {(i.name, t.text) for i in PHRASINGS.intents for t in i.chosen(held_out=False)}
    for pair in data.training_pairs(PHRASINGS, 2000, avoid):
        assert pair.target is not None
        assert finish(pair.prepared, pair.target).text == pair.right
        assert pair.prepared.prompt not in avoid
        assert pair.template not in measured or any(name for name, text in own if text == pair.template)


def test_generation_is_reproducible() -> None:
    one, two = ([pair.question for pair in data.training_pairs(PHRASINGS, 50, frozenset())] for _ in range(2))
    assert one == two


def test_fresh_questions_expect_what_can_be_said() -> None:
    for values in data.fresh().questions.values():
        for value in values:
            assert value == "unknown" or not value.startswith("say:") or right_text(value) in ANSWERS.values()


def test_every_form_is_generated() -> None:
    missing = {wire(form) for form in FORMS} | {f"$ help {topic}" for topic in HELP_TOPICS}
    for pair in data.training_pairs(PHRASINGS, 20_000, frozenset()):
        missing.discard(str(pair.target))
        if not missing:
            break
    assert missing == set()


@pytest.mark.parametrize("template", ["a (b|c", "a [b", "a) b", "<a"])
def test_unbalanced_templates_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="unbalanced"):
        PHRASINGS.expand(template, random.Random(0), concrete=True)


def test_noise_leaves_places_alone() -> None:
    rng = random.Random(0)
    for _ in range(500):
        noisy = noise.noisy(" please kill process<n1> and<m1> now", rng)
        assert set(noisy.replace("<n1>", "").replace("<m1>", "")).isdisjoint("<>")


def test_slip_changes_one_word_a_little() -> None:
    rng = random.Random(1)
    assert noise.slip("the", rng) == "the"
    assert all(abs(len(noise.slip("process", rng)) - 7) <= 1 for _ in range(50))
