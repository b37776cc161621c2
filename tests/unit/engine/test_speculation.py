"""Guessing tokens: the guesses, when they pay, and that they change nothing but the number of steps."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.types import Sampling
from llmos_shell.engine.loop import Loop
from llmos_shell.engine.speculation import (
    FIRST_PAUSE,
    LONGEST_GUESS,
    LONGEST_PAUSE,
    NGRAM,
    PLAIN_EVERY,
    TRIAL_STEPS,
    Lengths,
    Lookup,
    Speculation,
)
from llmos_shell.testing.scripted import BOS, load


class Always(Speculation):
    """Guesses whenever it can."""

    def wanted(self, sequences: int) -> bool:
        return True


def always(loop: Loop) -> Loop:
    loop.guessing.lookup = Always()
    loop.guessing.draft = Always()
    return loop


def generate(reply: str, sampling: Sampling, *, guess: bool, count: int = 1, **options: Any) -> tuple[Any, int, Loop]:
    """What sequences say: (text, tokens, reason) of each, the number of steps, and the loop."""
    engine = load(abi.Load(PROTOCOL, "scripted:", options={"reply": reply, "most_guesses": 16 * guess, **options}))
    loop = always(Loop(engine))
    for seq in range(count):
        loop.handle(abi.Open(seq, (BOS, *b"say>"), 5, sampling))
    loop.handle(abi.Run(tuple(abi.Grant(seq, engine.info.context) for seq in range(count)), 64))
    said: dict[int, list[Any]] = {seq: ["", [], ""] for seq in range(count)}
    while loop.ready:
        for step in loop.step():
            assert isinstance(step, abi.Step)
            for row in step.rows:
                said[row.seq][0] += row.text
                said[row.seq][1].append(row.token)
            for done in step.finished:
                said[done.seq][0] += done.text
                said[done.seq][2] = done.reason
    sequences = loop._table._sequences.values()
    assert engine.usage().used_tokens == sum(sequence.kv for sequence in sequences)
    assert all(0 <= len(sequence.tokens) - sequence.kv <= 1 for sequence in sequences)
    return said, loop.steps, loop


REPEATING = "the cat sat on the mat, the cat sat on the mat, the cat sat on the hat"


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(temperature=0, max_tokens=37),
        Sampling(temperature=0, stop=("mat, the cat sat on the h",)),
        Sampling(temperature=0.0, repeat_penalty=1.0001),
        Sampling(temperature=0.5, seed=7, logprobs=2),
        Sampling(temperature=0, ignore_eos=True, max_tokens=120),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_guesses_change_nothing_but_the_number_of_steps(sampling: Sampling, count: int) -> None:
    plain, steps, _ = generate(REPEATING, sampling, guess=False, count=count)
    guessed, fewer, loop = generate(REPEATING, sampling, guess=True, count=count)
    assert guessed == plain
    assert fewer < steps and loop.guessing.right > 0


@given(reply=st.text("ab", min_size=1, max_size=60), most=st.integers(1, 80))
def test_any_text_is_said_as_without_guesses(reply: str, most: int) -> None:
    sampling = Sampling(temperature=0, max_tokens=most)
    assert generate(reply, sampling, guess=True)[0] == generate(reply, sampling, guess=False)[0]


def test_guesses_stay_within_the_grant() -> None:
    engine = load(abi.Load(PROTOCOL, "scripted:", options={"reply": "ab" * 40, "most_guesses": 16}))
    loop = always(Loop(engine))
    loop.handle(abi.Open(1, (BOS, *b"say>"), 5, Sampling(temperature=0)))
    for limit in range(6, 60, 7):
        loop.handle(abi.Run((abi.Grant(1, limit),), 64))
        while loop.ready:
            loop.step()
            assert engine.usage().used_tokens <= limit


# -- guesses -----------------------------------------------------------------------------------------------------------


def naive(tokens: list[int], most: int) -> list[int]:
    for end in range(len(tokens) - 1, NGRAM - 1, -1):
        if tokens[end - NGRAM : end] == tokens[-NGRAM:]:
            return tokens[end : end + most]
    return []


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, LONGEST_GUESS), st.data())
def test_a_guess_is_what_followed_last_time(tokens: list[int], most: int, data: st.DataObject) -> None:
    lookup = Lookup()
    lookup.length = LONGEST_GUESS
    for size in sorted(data.draw(st.sets(st.integers(0, len(tokens))))):
        assert lookup.guess(tokens[:size], most) == naive(tokens[:size], most)


def test_a_sequence_that_was_cut_is_read_again() -> None:
    lookup = Lookup()
    lookup.guess([1, 2, 3, 4, 5, 6, 7], 4)
    assert lookup.guess([1, 2, 3], 4) == []
    assert lookup.guess([1, 2, 3, 9, 1, 2, 3], 4) == [9, 1, 2, 3]


def test_the_length_follows_success() -> None:
    lookup = Lookup()
    for _ in range(9):
        lookup.judge(lookup.length, lookup.length)
    assert lookup.length == LONGEST_GUESS
    lookup.judge(16, 2)
    assert lookup.length == 3
    lookup.judge(3, 0)
    assert lookup.length == 1


# -- when they pay -----------------------------------------------------------------------------------------------------


def steps_with_guesses(right_of_four: int, row_seconds: float, steps: int) -> int:
    """How many of so many steps of one sequence had guesses, where a step costs 1 s and each further row so much."""
    speculation, guessed = Speculation(), 0
    for _ in range(steps):
        if speculation.wanted(1):
            guessed += 1
            speculation.note(1, 4, right_of_four, 1.0 + 4 * row_seconds)
        else:
            speculation.note_plain(1, 1.0)
    return guessed


def test_it_is_on_where_it_pays() -> None:
    assert steps_with_guesses(3, 0.1, 1000) == (1000 - FIRST_PAUSE) - (1000 - FIRST_PAUSE) // (PLAIN_EVERY + 1)


@pytest.mark.parametrize(("right", "row_seconds"), [(0, 0.01), (3, 1.0), (1, 0.3)])
def test_it_is_off_by_itself_where_it_does_not(right: int, row_seconds: float) -> None:
    steps = LONGEST_PAUSE
    assert steps_with_guesses(right, row_seconds, steps) <= TRIAL_STEPS * (steps // FIRST_PAUSE).bit_length()


def test_nothing_is_guessed_for_numbers_of_sequences_that_were_not_measured() -> None:
    speculation = Speculation()
    for _ in range(FIRST_PAUSE):
        speculation.note_plain(4, 1.0)
    assert speculation.wanted(4) and not speculation.wanted(5)
    speculation.note(5, 4, 4, 1.0)
    assert speculation.guessed == 4


def test_numbers_of_sequences_are_judged_apart() -> None:
    speculation = Speculation()
    for step in range(400):
        for count, right in ((1, 4), (8, 0)):
            if speculation.wanted(count):
                speculation.note(count, 4 * count, right * count, 1.5)
            else:
                speculation.note_plain(count, 1.0)
        if step > 300:
            assert speculation.wanted(1) or speculation._of(1)._since_plain == PLAIN_EVERY
    assert speculation.promise(1) > 3 and not speculation.wanted(8)


# -- how many ----------------------------------------------------------------------------------------------------------


def settled(chance: float, cost: Callable[[int], float], most: int, guesses: int = 400) -> Lengths:
    """Lengths that have seen so many guesses come true with such a chance, where steps cost so much."""
    rng, lengths = Random(1), Lengths()
    for _ in range(guesses):
        length = lengths.choose(most)
        right = next((index for index in range(length) if rng.random() >= chance), length)
        lengths.note_guess(length, right)
        lengths.note_cost(length, cost(length))
    return lengths


def best_of(chance: float, cost: Callable[[int], float], most: int) -> float:
    rates = [sum(chance**index for index in range(k + 1)) / cost(k) for k in range(1, most + 1)]
    return max(rates)


@pytest.mark.parametrize("chance", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("slope", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("jump", [0.0, 1.0])
@pytest.mark.parametrize("most", [1, 4, 8, 16])
def test_the_length_is_nearly_the_best_there_is(chance: float, slope: float, jump: float, most: int) -> None:
    def cost(length: int) -> float:
        return 1.0 + jump + slope * length

    lengths = settled(chance, cost, most)
    length = lengths.best()[1]
    rate = sum(chance**index for index in range(length + 1)) / cost(length)
    assert rate >= 0.85 * best_of(chance, cost, most)


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(0.01, 100)), max_size=40), st.integers(1, 16))
def test_a_length_is_always_within_bounds(seen: list[tuple[int, float]], most: int) -> None:
    lengths = Lengths()
    for length, cost in seen:
        assert 1 <= lengths.choose(most) <= most
        lengths.note_cost(length, cost)
        lengths.note_guess(length, length // 2)
    assert 1 <= lengths.choose(most) <= most
    assert lengths.best()[0] > 0


def test_a_trial_tries_different_lengths() -> None:
    lengths, asked = Lengths(), []
    for _ in range(3):
        asked.append(lengths.choose(8))
        lengths.note_cost(asked[-1], 2.0)
    assert asked == [8, 4, 2]
