from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Chunk, Constraint
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Sampling
from llmos_shell.engine.loop import Loop
from llmos_shell.testing.scripted import BOS, END, ScriptedEngine, load

Maker = Any  # conftest.BenchMaker
GREEDY = Sampling(temperature=0)


# -- turns


def opened(answer: abi.ToDaemon) -> tuple[int, int, str]:
    """What it says but for how long it took."""
    assert isinstance(answer, abi.Opened)
    return answer.seq, answer.reused, answer.note


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


# -- steps


def test_all_together_as_each_alone(bench: Maker) -> None:
    prompts = [f"number {n} " * (n + 1) for n in range(6)]
    sampling = [Sampling(temperature=0 if n % 2 else 0.8, seed=n, max_tokens=15 + n) for n in range(6)]
    alone = []
    for n in range(6):
        b = bench()
        b.open(1, prompts[n], sampling[n])
        b.run((1, 500))
        alone.append(b.text[1])
    b = bench()
    for n in range(6):
        b.open(n, prompts[n], sampling[n])
    b.run(*((n, 500) for n in range(6)), budget=10)
    assert [b.text[n] for n in range(6)] == alone
    assert len(set(alone)) == 6


def test_decoding_goes_on_beside_a_long_prefill(bench: Maker) -> None:
    b = bench()
    b.open(1, "go")
    b.run((1, 900), steps=3)
    b.open(2, "x" * 99)
    steps = b.run((1, 900), (2, 900), budget=25, steps=5)
    assert all(any(row.seq == 1 for row in step.rows) for step in steps)
    assert [step.prefilled for step in steps] == [(abi.Prefilled(2, 25, done, 100),) for done in (25, 50, 75, 100)] + [
        ()
    ]
    assert [row.seq for row in steps[3].rows] == [1, 2]


def test_an_engine_that_does_not_mix_prefills_between_steps_that_decode(bench: Maker) -> None:
    b = bench(mixes=False)
    b.open(1, "go")
    b.run((1, 900), steps=3)
    b.open(2, "x" * 99)
    steps = b.run((1, 900), (2, 900), budget=50, steps=6)
    kinds = [(sum(part.tokens for part in step.prefilled), [row.seq for row in step.rows]) for step in steps]
    assert kinds == [(50, []), (0, [1]), (50, [2]), (0, [1, 2]), (0, [1, 2]), (0, [1, 2])]
    b.open(3, "x" * 99)
    assert all(step.rows for step in b.run((1, 900), (3, 900), budget=0, steps=3))
    b.loop.handle(abi.Run((abi.Grant(1, 900), abi.Grant(3, 900)), 40, prefill_spacing=3))
    assert [len(step.prefilled) for step in b.run(steps=9)] == [1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_prefill_follows_the_order(bench: Maker) -> None:
    b = bench()
    for seq in (1, 2, 3):
        b.open(seq, "x" * 29)
    steps = b.run((3, 100), (1, 100), (2, 100), budget=40, steps=2)
    assert [(part.seq, part.tokens) for part in steps[0].prefilled] == [(3, 30), (1, 10)]
    assert [(part.seq, part.tokens) for part in steps[1].prefilled] == [(1, 20), (2, 20)]


def test_a_new_run_set_preempts_a_prefill(bench: Maker) -> None:
    b = bench()
    b.open(1, "x" * 200)
    b.run((1, 900), budget=20, steps=2)
    b.open(2, "urgent")
    steps = b.run((2, 900), (1, 900), budget=20, steps=1)
    assert steps[0].prefilled[0].seq == 2 and steps[0].rows[0].seq == 2


def test_a_step_never_exceeds_the_batch(bench: Maker) -> None:
    b = bench(max_batch=8, slots=8)
    for seq in range(8):
        b.open(seq, "x" * 10)
    for step in b.run(*((seq, 30) for seq in range(8)), budget=1000):
        decoded = len(step.rows) - sum(part.done == part.total for part in step.prefilled)
        assert decoded + sum(part.tokens for part in step.prefilled) <= 8


def test_only_the_run_set_runs(bench: Maker) -> None:
    b = bench()
    b.open(1, "a")
    b.open(2, "b")
    b.run((1, 100), steps=5)
    assert {row.seq for step in b.run((2, 100), steps=5) for row in step.rows} == {2}
    b.loop.handle(abi.Run((), 10))
    assert not b.loop.ready


def test_nothing_to_do_is_not_ready(bench: Maker) -> None:
    b = bench()
    assert not b.loop.ready
    b.open(1, "a", idle=True)
    assert b.run((1, 100)) == [] and not b.loop.ready
    b.feed(1, "b")
    assert b.loop.ready


# -- limits and pressure


def test_a_limit_is_kept_and_said_once(bench: Maker) -> None:
    b = bench()
    b.open(1, "go")
    steps = b.run((1, 10))
    assert len(b.tokens[1]) == 10
    assert [step.pressure for step in steps if step.pressure] == [(1,)]
    assert b.run((1, 10)) == []
    steps = b.run((1, 14))
    assert len(b.tokens[1]) == 14 and steps[-1].pressure == (1,)


def test_a_prompt_is_prefilled_up_to_its_limit(bench: Maker) -> None:
    b = bench()
    b.open(1, "x" * 49)
    steps = b.run((1, 32))
    assert steps[0].prefilled == (abi.Prefilled(1, 32, 32, 50),)
    assert steps[-1].pressure == (1,) and b.engine.usage().used_tokens == 32
    b.run((1, 60))
    assert len(b.tokens[1]) == 60


def test_pausing_at_limits_changes_no_text(bench: Maker) -> None:
    whole, paused = bench(), bench()
    whole.open(1, "go", Sampling(seed=9))
    whole.run((1, 64))
    paused.open(1, "go", Sampling(seed=9))
    for limit in (2, 3, 17, 18, 40, 64):
        paused.run((1, limit))
    assert paused.text[1] == whole.text[1]


def test_a_full_pool_makes_the_last_wait_and_fails_nobody(bench: Maker) -> None:
    b = bench(pages=4, slots=4)
    alone = bench()
    alone.open(1, "a" * 20)
    alone.run((1, 60))
    for seq in (1, 2, 3):
        b.open(seq, "a" * 20)
    steps = b.run((1, 60), (2, 60), (3, 60))
    assert [seq for step in steps for seq in step.pressure].count(3) == 1
    assert b.others == [] and not b.loop.ready
    b.free(3)
    b.run()
    b.free(2)
    b.run()
    assert b.text[1] == alone.text[1]


# -- copies and images


def test_forks_go_on_alike(bench: Maker) -> None:
    b = bench()
    b.open(1, "go")
    b.run((1, 30))
    known = tuple(b.tokens[1])
    assert opened(b.open(2, known, turn=3, source=abi.CopyOf(1, 29))) == (2, 29, "")
    b.free(1)
    steps = b.run((2, 40))
    assert not any(step.prefilled for step in steps)
    whole = bench()
    whole.open(1, "go")
    whole.run((1, 40))
    assert b.tokens[2] == whole.tokens[1]


def test_copies_are_only_used_as_far_as_tokens_agree(bench: Maker) -> None:
    b = bench()
    b.open(1, "abcdefgh")
    b.run((1, 12))
    answer = b.open(2, "abcdXXXX", source=abi.CopyOf(1, 9))
    assert opened(answer) == (2, 5, "only 5 tokens could be copied")
    b.run((2, 30))
    alone = bench()
    alone.open(2, "abcdXXXX")
    alone.run((2, 30))
    assert b.text[2] == alone.text[2]


def test_copy_of_nothing_is_said(bench: Maker) -> None:
    b = bench()
    answer = b.open(2, "abc", source=abi.CopyOf(1, 9))
    assert answer.reused == 0 and "not open" in answer.note


def test_parked_and_back(bench: Maker, tmp_path: Path) -> None:
    b = bench()
    b.open(1, "go", Sampling(seed=4))
    b.run((1, 30))
    path = str(tmp_path / "image")
    (exported,) = b.loop.handle(abi.Export(1, path))
    assert (exported.tokens, exported.error) == (29, "") and exported.bytes == Path(path).stat().st_size
    b.free(1)
    known = tuple(b.tokens[1])
    assert opened(b.open(2, known, Sampling(seed=4), turn=3, source=abi.ImageFile(path))) == (2, 29, "")
    b.run((2, 50))
    whole = bench()
    whole.open(1, "go", Sampling(seed=4))
    whole.run((1, 50))
    assert b.tokens[2] == whole.tokens[1]


def test_a_restored_turn_with_all_its_kv_computes_one_token_again(bench: Maker, tmp_path: Path) -> None:
    b = bench(reply="abc")
    b.open(1, "say>")
    b.run((1, 30))
    path = str(tmp_path / "image")
    b.loop.handle(abi.Export(1, path))
    assert b.open(2, tuple(b.tokens[1]), turn=5, source=abi.ImageFile(path)).reused == 8
    steps = b.run((2, 30))
    assert steps[0].prefilled == (abi.Prefilled(2, 1, 8, 8),) and b.reasons[2] == "eos"


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:50] + b"?" + data[51:], lambda data: b""]
)
def test_damaged_images_are_computed_again(bench: Maker, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    b = bench()
    b.open(1, "go")
    b.run((1, 30))
    path = tmp_path / "image"
    b.loop.handle(abi.Export(1, str(path)))
    path.write_bytes(damage(path.read_bytes()))
    answer = b.open(2, tuple(b.tokens[1]), turn=3, source=abi.ImageFile(str(path)))
    assert answer.reused == 0 and answer.note
    b.run((1, 40), (2, 40))
    assert b.tokens[1] == b.tokens[2]


def test_images_of_a_longer_history_are_cut(bench: Maker, tmp_path: Path) -> None:
    b = bench()
    b.open(1, "abcdefgh")
    b.run((1, 12))
    path = str(tmp_path / "image")
    b.loop.handle(abi.Export(1, path))
    assert b.open(2, "abcdX", source=abi.ImageFile(path)).reused == 5
    b.run((2, 30))
    alone = bench()
    alone.open(2, "abcdX")
    alone.run((2, 30))
    assert b.text[2] == alone.text[2]


def test_images_without_room_are_computed_later(bench: Maker, tmp_path: Path) -> None:
    b = bench(pages=4, slots=3)
    path = str(tmp_path / "image")
    b.open(1, "a" * 30)
    b.run((1, 40))
    b.loop.handle(abi.Export(1, path))
    answer = b.open(2, tuple(b.tokens[1]), turn=31, source=abi.ImageFile(path))
    assert answer.reused == 0 and "pool" in answer.note


def test_export_without_a_place_is_said(bench: Maker, tmp_path: Path) -> None:
    b = bench()
    b.open(1, "a")
    b.run((1, 5))
    (answer,) = b.loop.handle(abi.Export(1, str(tmp_path / "no" / "image")))
    assert answer.error and answer.bytes == 0


def test_the_first_token_of_a_copy_is_urgent_and_the_next_are_not(bench: Maker) -> None:
    b = bench()
    b.open(1, "go")
    b.run((1, 900), steps=3)
    b.open(2, tuple(b.tokens[1]), turn=3, source=abi.CopyOf(1, len(b.tokens[1]) - 1))
    b.run((1, 900), (2, 900), steps=1)
    assert b.loop.urgent
    b.run(steps=1)
    assert not b.loop.urgent


def test_a_fence_is_passed_after_the_files_before_it(tmp_path: Path) -> None:
    jobs: list[Callable[[], abi.ToDaemon]] = []
    loop = Loop(load(abi.Load(PROTOCOL, "scripted:")), later=jobs.append)
    loop.handle(abi.Open(1, (BOS, 1, 2), 3, GREEDY))
    assert loop.handle(abi.Export(1, str(tmp_path / "image"))) == loop.handle(abi.Fence(7)) == []
    assert [type(job()) for job in jobs] == [abi.Exported, abi.Fenced]


# -- feeding and cutting


def test_feed_can_take_back(bench: Maker) -> None:
    b, fresh = bench(), bench()
    b.open(1, "abc")
    b.run((1, 20))
    b.feed(1, "xyz", keep=3)
    b.run((1, 30))
    fresh.open(1, (BOS, *b"abxyz"))
    fresh.run((1, 30))
    assert b.tokens[1] == fresh.tokens[1]


def test_truncate_makes_a_prefix(bench: Maker) -> None:
    b = bench()
    b.open(1, "abcdef", idle=True)
    b.feed(1, "g")
    b.run((1, 12))
    b.loop.handle(abi.Truncate(1, 4))
    assert b.engine.usage().used_tokens == 4
    assert b.open(2, "abcxyz", source=abi.CopyOf(1, 4)).reused == 4


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["run", "park", "fork", "drop", "feed"]), st.integers(1, 25)), max_size=12),
    st.integers(0, 5),
)
def test_no_history_shows(bench: Maker, tmp_path_factory: Any, actions: list[tuple[str, int]], seed: int) -> None:
    """Whatever is done to a sequence, its tokens are those of one that was left in peace with the same inputs."""
    path = str(tmp_path_factory.mktemp("images") / "image")
    b = bench(end_after=0.02)
    sampling = Sampling(seed=seed)
    b.open(1, "begin", sampling)
    seq, turn = 1, 6
    for action, amount in actions:
        if action == "run":
            b.run((seq, len(b.tokens[seq]) + amount), budget=amount)
        elif action == "feed":
            b.feed(seq, "x" * amount, sampling)
            turn = len(b.tokens[seq])
            b.reasons.pop(seq, None)
        else:
            source: Any = {"park": abi.ImageFile(path), "fork": abi.CopyOf(seq, len(b.tokens[seq])), "drop": None}[
                action
            ]
            b.loop.handle(abi.Export(seq, path))
            if seq in b.reasons:
                continue
            old, seq = seq, seq + 1
            b.open(seq, tuple(b.tokens[old]), sampling, turn=turn, source=source)
            b.text[seq] = b.text.get(old, "")
            b.free(old)
    tokens = b.tokens[seq]
    peace = bench(end_after=0.02)
    peace.open(1, tuple(tokens[:turn]), sampling)
    peace.run((1, len(tokens)))
    assert peace.tokens[1] == tokens
    assert peace.text.get(1, "") == b.text.get(seq, "")


# -- refusals


def test_senseless_messages_are_answered(bench: Maker) -> None:
    b = bench(slots=2, context=32)
    assert opened(b.open(1, "a")) == (1, 0, "")
    for answer, code in (
        (b.open(1, "a"), "EINVAL"),
        (b.open(2, "x" * 40), "E2BIG"),
        (b.open(2, ()), "EINVAL"),
        (b.open(2, (5, 300)), "EINVAL"),
        (b.open(2, (5, 6), turn=3), "EINVAL"),
        (b.open(2, "a", Sampling(grammar='root ::= "a"')), "ENOSYS"),
        (b.open(2, "a", Sampling(grammar="x", json_schema="{}")), "EINVAL"),
    ):
        assert isinstance(answer, abi.Failed) and answer.code == code
    b.open(2, "a")
    assert b.open(3, "a").code == "EAGAIN"
    (failed,) = b.loop.handle(abi.Feed(9, (1,), GREEDY))
    assert failed.code == "ESRCH"
    (failed,) = b.loop.handle(abi.Feed(1, (1,), GREEDY, keep=77))
    assert failed.code == "EINVAL"
    assert b.loop.handle(abi.Free(77)) == [] and b.loop.handle(abi.Truncate(77, 1)) == []
    (exported,) = b.loop.handle(abi.Export(77, "/nowhere"))
    assert exported.error
    b.feed(1, "b")
    b.run((77, 10), (1, 10))
    assert len(b.tokens[1]) == 10


def test_a_fence_is_answered_in_its_turn(bench: Maker) -> None:
    assert bench().loop.handle(abi.Fence(3)) == [abi.Fenced(3)]


# -- engines that fail


class Breaking(ScriptedEngine):
    """Fails, or gives logits that are not numbers, when told to."""

    error: LlmosError | None = None
    nan_row: int | None = None

    def step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        if self.error is not None:
            raise self.error
        logits = super().step(chunks)
        if self.nan_row is not None:
            logits[self.nan_row] = np.nan
        return logits


def test_one_bad_row_fails_one_sequence(bench: Maker) -> None:
    engine = Breaking(abi.Load(PROTOCOL, "scripted:"))
    b = bench.of(engine)
    for seq in (1, 2, 3):
        b.open(seq, "abc", Sampling(temperature=0.5, seed=1) if seq == 3 else GREEDY)
    b.run((1, 50), (2, 50), (3, 50), steps=3)
    for row in (1, 1):
        engine.nan_row = row
        b.run(steps=1)
        engine.nan_row = None
    b.run(steps=3)
    assert [(failed.seq, failed.code) for failed in b.others] == [(2, "EIO"), (3, "EIO")]
    assert len(b.tokens[1]) == 4 + 8


def test_engine_failure_is_everyones() -> None:
    engine = Breaking(abi.Load(PROTOCOL, "scripted:"))
    loop = Loop(engine)
    loop.handle(abi.Open(1, (1, 2), 2, GREEDY))
    loop.handle(abi.Run((abi.Grant(1, 9),), 9))
    engine.error = LlmosError(Code.EIO, "broken")
    with pytest.raises(LlmosError):
        loop.step()


class Uncuttable(ScriptedEngine):
    """Like a recurrent model: state cannot be cut."""

    def truncate(self, slot: int, tokens: int) -> None:
        if tokens:
            raise LlmosError(Code.ENOSYS, "cannot be cut")
        super().truncate(slot, tokens)


def test_engines_that_cannot_cut_compute_again(bench: Maker) -> None:
    b, plain = bench.of(Uncuttable(abi.Load(PROTOCOL, "scripted:"))), bench()
    for each in (b, plain):
        each.open(1, "abc")
        each.run((1, 20))
        each.feed(1, "xyz", keep=10)
        each.run((1, 30))
    assert b.tokens[1] == plain.tokens[1]


# -- grammars


class OnlyLetters:
    """A constraint: `count` capital letters, then the end."""

    closed = 0

    def __init__(self, count: int) -> None:
        self.left = count

    def allows(self, token: int) -> bool:
        return token == END if not self.left else 65 <= token <= 90

    def mask(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        allowed = [token for token in range(len(logits)) if self.allows(token)]
        masked = np.full_like(logits, -np.inf)
        masked[allowed] = logits[allowed]
        return masked

    def accept(self, token: int) -> None:
        if not self.allows(token):
            raise LlmosError(Code.EINVAL, "does not fit")
        self.left -= 1

    def close(self) -> None:
        OnlyLetters.closed += 1


class Constrained(ScriptedEngine):
    def __init__(self, spec: abi.Load) -> None:
        super().__init__(spec)
        self.info = replace(self.info, can_constrain=True)

    def constraint(self, kind: Literal["gbnf", "json-schema"], text: str) -> Constraint:
        return OnlyLetters(int(text))


@pytest.mark.parametrize("sampling", [Sampling(temperature=0, grammar="6"), Sampling(seed=2, grammar="6")])
def test_grammars_are_followed_to_their_end_and_resumed(bench: Maker, sampling: Sampling) -> None:
    closed = OnlyLetters.closed
    whole, parted = (bench.of(Constrained(abi.Load(PROTOCOL, "scripted:"))) for _ in range(2))
    whole.open(1, "abc", sampling)
    whole.run((1, 50))
    assert len(whole.text[1]) == 6 and whole.text[1].isupper() and whole.reasons[1] == "eos"
    parted.open(1, "abc", sampling)
    parted.run((1, 7))
    parted.open(2, tuple(parted.tokens[1]), sampling, turn=4)
    parted.free(1)
    parted.run((2, 50))
    assert parted.text[1] + parted.text[2] == whole.text[1]
    assert OnlyLetters.closed == closed + 3
    answer = parted.open(3, "abcd", sampling, turn=4)
    assert isinstance(answer, abi.Failed) and answer.code == "EINVAL"


def test_a_grammar_without_a_way_on_ends_the_turn(bench: Maker) -> None:
    b = bench.of(Constrained(abi.Load(PROTOCOL, "scripted:")))
    b.open(1, "abc", Sampling(temperature=0, grammar="2", ignore_eos=True))
    b.run((1, 50))
    assert len(b.text[1]) == 2 and b.reasons[1] == "eos"
