"""A turn in the step loop: how it begins, what its text is, and why it ends."""

from __future__ import annotations

import pytest

from llmos_shell.abi import worker as abi
from llmos_shell.abi.types import Sampling
from llmos_shell.testing.scripted import BOS, END
from tests.unit.engine.conftest import BenchMaker as Maker


def test_a_turn_ends_with_the_end_token_which_is_not_kept(bench: Maker) -> None:
    b = bench(reply="hello")
    b.open(1, "say>")
    b.run((1, 100))
    assert (b.text[1], b.reasons[1]) == ("hello", "eos")
    assert bytes(b.tokens[1][1:]) == b"say>hello"
    assert not b.loop.ready


def test_the_next_turn_goes_on_from_there(bench: Maker) -> None:
    b = bench(reply="hello")
    b.open(1, "say>")
    b.run((1, 100))
    b.feed(1, "<again>")
    steps = b.run()
    assert b.text[1] == "hello"
    assert steps[0].prefilled == (abi.Prefilled(1, 7, 17, 17),)


def test_stop_string_split_over_tokens(bench: Maker) -> None:
    b = bench(reply="one. User: two")
    b.open(1, "say>", Sampling(temperature=0, stop=("User:",)))
    b.run((1, 100))
    assert (b.text[1], b.reasons[1]) == ("one. ", "stop")
    assert b.tokens[1][-5:] == list(b"User:")


def test_text_held_back_comes_with_the_end(bench: Maker) -> None:
    b = bench(reply="one Us")
    b.open(1, "say>", Sampling(temperature=0, stop=("User:",)))
    steps = b.run((1, 100))
    assert b.text[1] == "one Us"
    assert steps[-1].finished == (abi.Finished(1, "eos", "Us"),)


def test_token_limit(bench: Maker) -> None:
    b = bench()
    b.open(1, "go", Sampling(temperature=0, max_tokens=7))
    b.run((1, 100))
    assert (len(b.text[1]), b.reasons[1]) == (7, "length")
    b.feed(1, "more", Sampling(temperature=0, max_tokens=2))
    b.run()
    assert len(b.text[1]) == 2


def test_full_context_ends_the_turn(bench: Maker) -> None:
    b = bench(context=20)
    b.open(1, "go")
    b.run((1, 100))
    assert (len(b.tokens[1]), b.reasons[1]) == (20, "context")


def test_ignoring_the_end_token(bench: Maker) -> None:
    b = bench(end_after=2)
    b.open(1, "go>", Sampling(temperature=0, ignore_eos=True, max_tokens=9))
    b.run((1, 100))
    assert b.reasons[1] == "length" and END not in b.tokens[1]


def test_characters_split_over_tokens(bench: Maker) -> None:
    b = bench(reply="日本🙂")
    b.open(1, "say>")
    steps = b.run((1, 100))
    assert b.text[1] == "日本🙂"
    assert [row.text for step in steps for row in step.rows] == ["", "", "日", "", "", "本", "", "", "", "🙂"]


def test_logprobs_on_request(bench: Maker) -> None:
    b = bench(reply="x")
    b.open(1, "say>", Sampling(temperature=0, logprobs=2))
    steps = b.run((1, 100))
    logprob = steps[0].rows[0].logprob
    assert (logprob.token, logprob.text, len(logprob.top)) == (ord("x"), "x", 2)
    assert logprob.top[0] == (ord("x"), "x", logprob.logprob) and -1e-3 < logprob.logprob <= 0


@pytest.mark.parametrize(
    ("sampling", "reason"),
    [(Sampling(temperature=0, max_tokens=4), "length"), (Sampling(temperature=0, stop=("hell",)), "stop")],
)
def test_a_turn_that_was_over_when_it_was_reopened_ends_at_once(bench: Maker, sampling: Sampling, reason: str) -> None:
    b = bench(reply="hello")
    b.open(1, (BOS, *b"say>hell"), sampling, turn=5)
    steps = b.run((1, 100))
    assert [step.rows for step in steps] == [()] and steps[0].finished == (abi.Finished(1, reason, ""),)
    assert b.engine.usage().used_tokens == 0


def test_a_grant_ends_when_a_part_of_the_context_is_forgotten(bench: Maker) -> None:
    """It was for the longer context: what is left may have less room by now."""
    b = bench(can_shift=True)
    b.open(1, "go on", Sampling(temperature=0, max_tokens=100))
    b.run((1, 60))
    (answer,) = b.loop.handle(abi.Shift(1, 4, 30))
    assert isinstance(answer, abi.Opened) and not b.run()
    b.run((1, 40))
    assert len(b.tokens[1]) - 30 == 40
