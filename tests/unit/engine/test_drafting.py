"""A draft model: it changes nothing but the number of steps, whatever becomes of the sequences, and of itself."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Chunk
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Sampling
from llmos_shell.engine.drafting import CATCH_UP_TOKENS, Drafter, difference_of_words, load_draft
from llmos_shell.engine.drafts import DRAFT_SLOTS, draft_load
from llmos_shell.engine.loop import Loop
from llmos_shell.engine.speculation import FIRST_PAUSE, Speculation
from llmos_shell.testing.scripted import BOS, ScriptedEngine, load

STORY = "once upon a time there was a cat who wanted to see the world"
OTHER = "once upon a time there was a dog who wanted to see the sea and more"


class Always(Speculation):
    """Guesses whenever it can."""

    def wanted(self, sequences: int) -> bool:
        return True


class Never(Speculation):
    """Never guesses."""

    def wanted(self, sequences: int) -> bool:
        return False


class Engine(ScriptedEngine):
    """Knows how many tokens it computed, and may fail."""

    computed = 0
    failing = False
    clock = 0.0  # of all of them, in steps

    def step(self, chunks: Any) -> Any:
        if self.failing:
            raise LlmosError(Code.EIO, "out of order")
        Engine.clock += 1.0
        self.computed += sum(len(chunk.tokens) for chunk in chunks)
        return super().step(chunks)


def engine(**options: Any) -> Engine:
    return Engine(abi.Load(PROTOCOL, "scripted:", options=options))


def loop_with(draft: Engine | None, **options: Any) -> Loop:
    loop = Loop(engine(most_guesses=16, **options), drafter=Drafter(draft) if draft else None)
    loop.guessing.lookup = Never()
    loop.guessing.draft = Always()
    return loop


def open_all(loop: Loop, count: int, sampling: Sampling, prompt: bytes = b"say>") -> None:
    for seq in range(count):
        loop.handle(abi.Open(seq, (BOS, *prompt), 1 + len(prompt), sampling))
    loop.handle(abi.Run(tuple(abi.Grant(seq, loop._info.context) for seq in range(count)), 64))


def run(loop: Loop, steps: int = 10_000) -> dict[int, str]:
    text: dict[int, str] = {}
    while loop.ready and steps:
        steps -= 1
        for step in loop.step():
            assert isinstance(step, abi.Step)
            for row in step.rows:
                text[row.seq] = text.get(row.seq, "") + row.text
            for done in step.finished:
                text[done.seq] = text.get(done.seq, "") + done.text
    return text


GREEDY = Sampling(temperature=0)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.9, seed=5, max_tokens=50, repeat_penalty=1.1)])
@pytest.mark.parametrize("count", [1, 3, DRAFT_SLOTS])
def test_a_perfect_draft_saves_steps(sampling: Sampling, count: int) -> None:
    """Also where tokens are drawn: the draft draws as the sequence does."""
    options = {"reply": STORY} if sampling is GREEDY else {}
    plain, drafted = loop_with(None, **options), loop_with(engine(**options), **options)
    for loop in (plain, drafted):
        open_all(loop, count, sampling)
    assert run(drafted) == run(plain)
    assert drafted.steps < 0.6 * plain.steps
    assert drafted.guessing.right == drafted.guessing.guessed or sampling is GREEDY  # the end is no token of the text


def test_a_bad_draft_changes_nothing() -> None:
    plain, drafted = loop_with(None, reply=STORY), loop_with(engine(reply=OTHER), reply=STORY)
    for loop in (plain, drafted):
        open_all(loop, 2, GREEDY)
    assert run(drafted) == run(plain)
    assert 0 < drafted.guessing.right < drafted.guessing.guessed


@settings(max_examples=60)
@given(
    reply=st.text("ab", max_size=60),
    drafted=st.text("ab", max_size=60),
    most=st.integers(1, 70),
    count=st.integers(1, DRAFT_SLOTS + 2),
    context=st.integers(20, 100),
)
def test_any_draft_leaves_any_text_as_it_is(reply: str, drafted: str, most: int, count: int, context: int) -> None:
    sampling = Sampling(temperature=0, max_tokens=most)
    texts = []
    for draft in (None, engine(reply=drafted, context=context)):
        loop = loop_with(draft, reply=reply)
        open_all(loop, count, sampling)
        texts.append(run(loop))
    assert texts[0] == texts[1]


def test_more_sequences_than_it_serves_take_turns() -> None:
    """One that comes back finds its KV gone, and is read again, up to where another of them began alike."""
    draft = engine(reply=STORY)
    loop = loop_with(draft, reply=STORY)
    open_all(loop, 6, GREEDY)
    for first in (0, 2, 4, 0):
        grants = tuple(abi.Grant(seq, loop._info.context) for seq in (first, first + 1))
        loop.handle(abi.Run(grants, 64))
        run(loop, steps=2)
    loop.handle(abi.Run(tuple(abi.Grant(seq, loop._info.context) for seq in range(6)), 64))
    rest = run(loop)
    assert len(rest) == 6 and all(STORY.endswith(text) for text in rest.values())


def test_a_sequence_that_was_cut_and_fed_is_followed() -> None:
    draft = engine(reply=STORY)
    loop = loop_with(draft, reply=STORY)
    open_all(loop, 1, GREEDY)
    run(loop, steps=4)
    assert loop.handle(abi.Feed(0, tuple(b"again>"), GREEDY, 3)) == []
    before = loop.guessing.right
    assert run(loop) == {0: STORY}
    assert loop.guessing.right > before


def test_a_long_prompt_is_read_in_pieces_and_its_steps_are_not_judged() -> None:
    draft = engine(reply=STORY, pages=64)
    loop = loop_with(draft, reply=STORY, pages=64)
    prompt = b"x" * (3 * CATCH_UP_TOKENS) + b">"
    loop.handle(abi.Open(0, (BOS, *prompt), 1 + len(prompt), GREEDY))
    loop.handle(abi.Run((abi.Grant(0, loop._info.context),), 512))
    run(loop, steps=1)
    for pieces in (1, 2, 3):
        run(loop, steps=1)
        assert draft.computed == pieces * CATCH_UP_TOKENS and loop.guessing.guessed == 0
    run(loop, steps=1)
    assert loop.guessing.guessed > 0


def test_a_draft_that_fails_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    draft = engine(reply=STORY)
    loop = loop_with(draft, reply=STORY)
    open_all(loop, 1, GREEDY)
    text = run(loop, steps=3)[0]
    draft.failing = True
    assert text + run(loop)[0] == STORY
    assert capsys.readouterr().err == "the draft model failed, and is left out: out of order\n"


def test_it_is_asked_only_while_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft as slow as the model gains nothing, and is asked less and less."""
    monkeypatch.setattr(time, "perf_counter", lambda: Engine.clock)
    reply = "ab" * 400
    draft = engine(reply="c" * 800)
    loop = loop_with(draft, reply=reply, pages=64)
    loop.guessing.draft = Speculation()
    open_all(loop, 1, GREEDY)
    assert run(loop)[0] == reply
    assert loop.guessing.guessed < 0.2 * loop.steps


def test_it_waits_until_plain_steps_were_measured() -> None:
    loop = loop_with(engine(reply=STORY), reply=STORY)
    loop.guessing.draft = Speculation()
    open_all(loop, 1, GREEDY)
    run(loop, steps=FIRST_PAUSE)
    assert loop.guessing.guessed == 0


# -- loading -----------------------------------------------------------------------------------------------------------


def test_other_words_are_refused() -> None:
    class Odd(ScriptedEngine):
        def piece(self, token: int) -> bytes:
            return b"!" if token == 65 else super().piece(token)

    class Ending(ScriptedEngine):
        def __init__(self, spec: abi.Load) -> None:
            super().__init__(spec)
            self.is_end = (0).__eq__

    assert difference_of_words(engine(), engine()) == ""
    for kind, shown in ((Odd, "65 is '!', not 'A'"), (Ending, "0 is '\\x00' and ends a turn, not '\\x00'")):
        draft = kind(abi.Load(PROTOCOL, "scripted:"))
        assert difference_of_words(engine(), draft) == shown
        with pytest.raises(LlmosError) as caught:
            load_draft(lambda spec, progress=None, draft=draft: draft, loading("scripted:odd"), engine(most_guesses=4))
        assert caught.value.code == Code.ENOEXEC and shown in str(caught.value)


def loading(draft: str) -> abi.Load:
    return abi.Load(PROTOCOL, "scripted:", draft=draft)


def test_a_draft_that_cannot_be_loaded_says_that_it_is_the_draft() -> None:
    with pytest.raises(LlmosError, match="the draft model: cannot load /nowhere: no such file"):
        load_draft(load, loading("/nowhere"), engine(most_guesses=4))


def test_no_draft_is_loaded_where_no_guesses_are_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_draft(load, loading(""), engine(most_guesses=4)) is None
    assert load_draft(load, loading("/nowhere"), engine()) is None
    assert "is left out" in capsys.readouterr().err


def test_its_kv_takes_no_more_tokens_than_the_model_s() -> None:
    spec = abi.Load(PROTOCOL, "/big", slots=32, draft="/small", options={"speculation": True}, kv_type="q8_0")
    small = draft_load(spec, context=1000, pool_tokens=64000)
    assert (small.path, small.draft, small.options, small.kv_type) == ("/small", "", {}, "f16")
    assert (small.slots, small.pool_tokens) == (DRAFT_SLOTS, DRAFT_SLOTS * 1000)
    assert draft_load(spec, context=1000, pool_tokens=1500).pool_tokens == 1500


def test_a_draft_goes_where_the_output_of_its_model_is():
    for layers, split, expected in ((0, (), (0, ())), (7, (3, 4, 0), (-1, (0, 1))), (-1, (), (-1, ()))):
        small = draft_load(abi.Load(PROTOCOL, "x", gpu_layers=layers, gpu_split=split, draft="y"), 100, 1000)
        assert (small.gpu_layers, small.gpu_split) == expected


def test_guesses_are_drawn_from_what_the_draft_computed() -> None:
    """Its KV holds what it says it does, after any cut."""
    draft = engine()
    drafter, shadow = Drafter(draft), engine()
    loop = loop_with(None)
    open_all(loop, 1, Sampling(temperature=0, max_tokens=40))
    sequence = loop._table._sequences[0]
    for _ in range(12):
        run(loop, steps=2)
        ((guess),) = drafter.guess([sequence], [3])
        shadow.free(0)
        tokens = list(sequence.tokens)
        for token in guess:
            logits = shadow.step([Chunk(0, len(shadow._slots[0]), tokens[len(shadow._slots[0]) :], 1)])
            assert int(logits[0].argmax()) == token
            tokens.append(token)
