"""What every engine must do, as tests. A kernel's tests subclass `EngineConformance` and say how to load a model:

    class TestMyEngine(EngineConformance):
        def load(self, **spec):
            return my_load(Load(protocol=PROTOCOL, path=..., **spec))

pytest runs the inherited methods; nothing here needs pytest. The model should have at least 4 slots and 128 tokens of
context. Batch shapes change floating point a little, so logits are compared with `tolerance`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Chunk, Engine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Message, Reason, Sampling
from llmos_shell.engine.loop import Loop
from llmos_shell.engine.templates import answer

Logits = npt.NDArray[np.float32]

CONVERSATION = (Message("user", "hello there"), Message("assistant", "hi"), Message("user", "how are you?"))


@contextmanager
def interrupting(engine: Engine) -> Iterator[None]:
    """Another thread interrupts the engine all the time."""
    over = threading.Event()

    def interrupt() -> None:
        while not over.is_set():
            engine.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def interrupted(step: Callable[[], object]) -> bool:
    """Whether a step was."""
    try:
        step()
    except LlmosError as error:
        assert error.code == Code.EINTR
        return True
    return False


class EngineConformance:
    """The suite."""

    tolerance = 1e-3

    def load(self, **spec: Any) -> Engine:
        """A freshly loaded engine; `spec` are fields of `Load`."""
        raise NotImplementedError

    # -- description, tokens and text

    def test_info_adds_up(self) -> None:
        """Context, pages and slots fit together."""
        with self._engine() as engine:
            info = engine.info
            own = info.pages // info.slots if info.layout == "split" else info.pages
            assert 0 < info.context <= own * info.page_tokens
            assert info.max_batch >= info.slots >= 4
            assert info.vocabulary > 0 and info.kv_bytes_per_token > 0 and info.fingerprint
            assert engine.usage().used_tokens == 0

    def test_text_survives_tokenizing(self) -> None:
        """Tokens stand for the text, but for a leading space that some tokenisers add."""
        with self._engine() as engine:
            for text in ("Once upon a time", "a\nb  c", "naïve 日本 🙂", ""):
                for special in (False, True):
                    pieces = b"".join(map(engine.piece, engine.tokenize(text, special)))
                    assert pieces.decode().removeprefix(" ") == text

    def test_equal_models_have_equal_fingerprints(self) -> None:
        """Images of one worker are good for the next."""
        with self._engine() as first, self._engine() as second:
            assert first.info.fingerprint == second.info.fingerprint

    def test_end_tokens_have_no_text(self) -> None:
        """There is a token that ends a turn, and none of them is shown."""
        with self._engine() as engine:
            ends = [token for token in range(engine.info.vocabulary) if engine.is_end(token)]
            assert ends and all(engine.piece(token) == b"" for token in ends)

    def test_conversations_are_rendered(self) -> None:
        """All that was said is in the text, in order."""
        with self._engine() as engine:
            text = engine.render(CONVERSATION, True)
            places = [text.index(message.content) for message in CONVERSATION]
            assert places == sorted(places)

    def test_next_turn_is_what_the_template_adds(self) -> None:
        """With a part of the conversation known, only the rest is tokenised."""
        with self._engine() as engine:
            whole, rest = (answer(engine, abi.Tokenize(known, messages=CONVERSATION, known=known)) for known in (0, 2))
            assert not whole.error and not rest.error and not whole.whole
            assert rest.whole or whole.tokens[-len(rest.tokens) :] == rest.tokens

    # -- steps

    def test_logits_come_in_the_order_of_the_chunks(self) -> None:
        """One row per chunk that wants logits; their order does not change them."""
        with self._engine() as engine:
            prompts = [self._prompt(engine, index) for index in range(3)]
            alone = [self._fresh_logits(engine, prompt) for prompt in prompts]
            wanted = (True, False, True)
            chunks = [Chunk(slot, 0, prompts[slot], wanted[slot]) for slot in range(3)]
            logits = engine.step(chunks)
            assert logits.shape == (2, engine.info.vocabulary) and logits.dtype == np.float32
            self._same(logits[0], alone[0])
            self._same(logits[1], alone[2])

    def test_prefill_in_chunks_is_prefill(self) -> None:
        """It does not matter how a prompt is cut."""
        with self._engine() as engine:
            prompt = self._prompt(engine, 1, 48)
            expected = self._fresh_logits(engine, prompt)
            for at in range(0, 48, 16):
                logits = engine.step([Chunk(1, at, prompt[at : at + 16], at == 32)])
            self._same(logits[0], expected)

    def test_decode_and_prefill_share_a_step(self) -> None:
        """A decoded token's logits do not depend on who is prefilled beside it."""
        with self._engine() as engine:
            first, second = self._prompt(engine, 1), self._prompt(engine, 2, 40)
            expected = self._fresh_logits(engine, [*first, 5]), self._fresh_logits(engine, second)
            engine.step([Chunk(0, 0, first, False)])
            logits = engine.step([Chunk(0, len(first), [5], True), Chunk(1, 0, second, True)])
            self._same(logits[0], expected[0])
            self._same(logits[1], expected[1])

    def test_logits_of_several_positions(self) -> None:
        """Within `most_guesses` a chunk may want the logits of several tokens; what is cut off leaves no trace."""
        with self._engine() as engine:
            if not engine.info.most_guesses:
                return
            first, second = self._prompt(engine, 1), self._prompt(engine, 2)
            expected = [self._fresh_logits(engine, first[:length]) for length in (14, 15, 16)]
            other = self._fresh_logits(engine, second)
            engine.step([Chunk(0, 0, first[:13], 0), Chunk(1, 0, second[:15], 0)])
            logits = engine.step([Chunk(1, 15, second[15:], 1), Chunk(0, 13, first[13:], 3)]).copy()
            assert logits.shape == (4, engine.info.vocabulary)
            for row, values in zip(logits, (other, *expected), strict=True):
                self._same(row, values)
            engine.truncate(0, 14)
            self._same(engine.step([Chunk(0, 14, first[14:15], 1)])[0], expected[1])

    def test_a_batch_may_be_full(self) -> None:
        """`max_batch` tokens in one step."""
        with self._engine() as engine:
            each = min(engine.info.context, -(-engine.info.max_batch // engine.info.slots))
            prompts = [self._prompt(engine, slot, each) for slot in range(engine.info.slots)]
            room, chunks = engine.info.max_batch, []
            for slot, prompt in enumerate(prompts):
                taken = prompt[: min(each, room)]
                if taken:
                    chunks.append(Chunk(slot, 0, taken, True))
                room -= len(taken)
            total = engine.usage().total_tokens
            if sum(len(chunk.tokens) for chunk in chunks) <= total:
                assert len(engine.step(chunks)) == len(chunks)

    def test_together_as_alone(self) -> None:
        """As many sequences as there are slots continue greedily as each would alone."""
        with self._engine() as engine:
            prompts = [self._prompt(engine, index) for index in range(engine.info.slots)]
            alone = [self._continue(engine, [prompt])[0] for prompt in prompts[:4]]
            assert self._continue(engine, prompts)[:4] == alone

    def test_threads_change_nothing(self) -> None:
        """But the speed."""
        with self._engine() as engine:
            prompt = self._prompt(engine, 1)
            expected = self._fresh_logits(engine, prompt)
            engine.set_threads(1)
            self._same(self._fresh_logits(engine, prompt), expected)

    def test_an_interrupted_step_was_never_begun(self) -> None:
        """It ends as it would, or changes nothing; what was asked before a step began does not concern it."""
        with self._engine() as engine:
            if not engine.info.can_interrupt:
                return
            prompt = self._prompt(engine, 1, min(96, engine.info.max_batch))
            first = len(prompt) // 3
            expected = self._fresh_logits(engine, prompt)
            engine.step([Chunk(0, 0, prompt[:first], False)])
            with interrupting(engine):
                for _ in range(20):
                    if interrupted(lambda: engine.step([Chunk(0, first, prompt[first:], True)])):
                        assert engine.usage().used_tokens == first
                    else:
                        engine.truncate(0, first)
            engine.interrupt()
            self._same(engine.step([Chunk(0, first, prompt[first:], True)])[0], expected)

    # -- copy, truncate, export, restore, free

    def test_truncate(self) -> None:
        """What was cut off leaves no trace."""
        with self._engine() as engine:
            prompt = self._prompt(engine, 1)
            expected = self._fresh_logits(engine, prompt)
            engine.step([Chunk(0, 0, prompt[:-1], False)])
            engine.step([Chunk(0, len(prompt) - 1, [7, 8, 9], False)])
            engine.truncate(0, len(prompt) - 1)
            self._same(self._last_logits(engine, 0, prompt), expected)

    def test_copy(self) -> None:
        """A copy of a prefix goes its own way, whatever becomes of the original at once."""
        with self._engine() as engine:
            if not engine.info.can_fork:
                return
            prompt = self._prompt(engine, 1)
            expected = self._fresh_logits(engine, prompt)
            for kept in (len(prompt) - 1, len(prompt) // 2):
                engine.step([Chunk(0, 0, prompt, False)])
                engine.copy(0, 1, kept)
                engine.free(0)
                engine.step([Chunk(0, 0, self._prompt(engine, 9), False)])
                engine.copy(1, 2, kept)
                for slot in (1, 2):
                    logits = engine.step([Chunk(slot, kept, prompt[kept:], True)])
                    self._same(logits[0], expected)
                for slot in range(3):
                    engine.free(slot)
            assert engine.usage().used_tokens == 0

    def test_shift(self) -> None:
        """Tokens in the middle are gone, what follows goes on, and nobody who shared them notices."""
        with self._engine() as engine:
            if not engine.info.can_shift:
                return
            prompt = self._prompt(engine, 1, 40)
            expected = self._fresh_logits(engine, prompt)
            engine.step([Chunk(0, 0, prompt[:-1], False)])
            before = engine.usage().used_tokens
            if engine.info.can_fork:
                engine.copy(0, 1, 39)
            engine.shift(0, 4, 15)
            assert engine.info.can_fork or engine.usage().used_tokens == before - 15
            logits = engine.step([Chunk(0, 24, prompt[-1:], True)])
            assert np.isfinite(logits).all()
            if engine.info.can_fork:
                self._same(self._last_logits(engine, 1, prompt), expected)
            if engine.info.can_export:
                blob = bytes(engine.export(0))
                after = engine.step([Chunk(0, 25, [7], True)])[0].copy()
                engine.free(0)
                engine.restore(0, blob, 25)
                self._same(engine.step([Chunk(0, 25, [7], True)])[0], after)
            engine.free(0)
            engine.free(1)
            assert engine.usage().used_tokens == 0

    def test_export_and_restore(self) -> None:
        """An image goes on where its slot was, in any slot, in a fresh engine too, and right after other changes."""
        with self._engine() as engine, self._engine() as other:
            if not engine.info.can_export:
                return
            prompt = self._prompt(engine, 1)
            expected = self._fresh_logits(engine, prompt)
            engine.step([Chunk(0, 0, prompt[:-1], False)])
            blob = bytes(engine.export(0))
            if engine.info.can_fork:
                engine.copy(0, 3, len(prompt) - 1)
            engine.free(0)
            for target, slot in ((engine, 0), (engine, 2), (other, 1)):
                target.restore(slot, blob, len(prompt) - 1)
                self._same(self._last_logits(target, slot, prompt), expected)
            if engine.info.can_fork:
                self._same(self._last_logits(engine, 3, prompt), expected)

    def test_restoring_is_exact(self) -> None:
        """What was exported comes back bit for bit: no tolerance, beside others too."""
        with self._engine() as engine:
            if not engine.info.can_export:
                return
            prompt = self._prompt(engine, 1, 40)
            engine.step([Chunk(0, 0, prompt[:-1], False)])
            expected = self._last_logits(engine, 0, prompt)
            engine.truncate(0, len(prompt) - 1)
            blob = bytes(engine.export(0))
            engine.free(0)
            for others in (0, 1, 2):
                for slot in range(1, others + 1):
                    engine.step([Chunk(slot, 0, self._prompt(engine, slot + 5, 20), False)])
                engine.restore(0, blob, len(prompt) - 1)
                assert bytes(engine.export(0)) == blob
                assert np.array_equal(self._last_logits(engine, 0, prompt), expected)
                for slot in range(others + 1):
                    engine.free(slot)

    def test_another_pool_reads_the_images_of_the_former(self) -> None:
        """Larger, smaller, in the other layout and back; what it refuses changes nothing."""
        with self._engine() as engine:
            before = engine.info
            if not before.can_resize:
                return
            other: Any = "split" if before.layout == "shared" else "shared"
            prompt = self._prompt(engine, 1)
            engine.step([Chunk(1, 0, prompt[:-1], 0)])
            blob = bytes(engine.export(1))
            expected = self._fresh_logits(engine, prompt)
            for slots, layout in ((4, other), (before.slots + 3, other), (2, before.layout)):
                pool = (before.context + before.page_tokens) * max(slots, 4)
                try:
                    engine.resize(pool, slots, layout)
                except LlmosError as error:
                    assert error.code == Code.EINVAL and layout == other  # an engine may have one layout only
                    layout = before.layout
                    engine.resize(pool, slots, layout)
                info = engine.info
                assert (info.slots, info.layout, info.context) == (slots, layout, before.context)
                assert info.pages * info.page_tokens >= before.context * (slots if layout == "split" else 1)
                assert engine.usage().used_tokens == 0
                if info.fingerprint == before.fingerprint:
                    engine.restore(1, blob, len(prompt) - 1)
                    self._same(engine.step([Chunk(1, len(prompt) - 1, prompt[-1:], 1)])[0], expected)
                self._same(self._fresh_logits(engine, prompt), expected)
            engine.free(1)
            self._refused(Code.EINVAL, lambda: engine.resize(before.page_tokens, 2, "split"))
            assert engine.info == info
            self._same(self._fresh_logits(engine, prompt), expected)

    def test_order_within_a_step_changes_nothing(self) -> None:
        """Rows come in the order of the chunks, whichever order that is."""
        with self._engine() as engine:
            prompts = [self._prompt(engine, slot, 20) for slot in range(4)]
            rows: dict[int, Logits] = {}
            for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)):
                engine.step([Chunk(slot, 0, prompts[slot][:-1], False) for slot in range(4)])
                logits = engine.step([Chunk(slot, 19, prompts[slot][-1:], True) for slot in order])
                for row, slot in zip(logits, order, strict=True):
                    self._same(row, rows.setdefault(slot, row.copy()))
                for slot in range(4):
                    engine.free(slot)

    def test_recomputed_tokens_lead_to_the_same_next_ones(self) -> None:
        """A sequence whose KV was dropped in the middle of a turn goes on as it would have."""
        with self._engine() as engine:
            prompt = self._prompt(engine, 3)
            whole = self._continue(engine, [prompt], 24)[0]
            for done in (0, 1, 11):
                known = [*prompt, *whole[:done]]
                first = self._continue(engine, [known], 24 - done)[0]
                assert first == whole[done:]

    def test_free_slots_are_as_new(self) -> None:
        """A slot that was freed has no memory, and its cells can be used again."""
        with self._engine() as engine:
            prompt = self._prompt(engine, 1)
            expected = self._fresh_logits(engine, prompt)
            for _ in range(4):
                engine.step([Chunk(0, 0, self._prompt(engine, 5, 64), False)])
                engine.free(0)
            engine.free(0)
            assert engine.usage().used_tokens == 0
            self._same(self._fresh_logits(engine, prompt), expected)

    def test_usage_counts_tokens(self) -> None:
        """As many cells as tokens, and not more than there are."""
        with self._engine() as engine:
            engine.step(
                [Chunk(0, 0, self._prompt(engine, 1, 20), False), Chunk(1, 0, self._prompt(engine, 2, 5), False)]
            )
            usage = engine.usage()
            assert usage.used_tokens == 25 <= usage.total_tokens
            engine.truncate(0, 12)
            assert engine.usage().used_tokens == 17
            if engine.info.can_fork:
                engine.copy(0, 2, 10)
                assert engine.usage().used_tokens == (17 if engine.info.layout == "shared" else 27)

    def test_a_full_pool_changes_nothing(self) -> None:
        """A step without room raises ENOMEM, and everyone goes on as before."""
        with self._engine() as engine:
            prompt = self._prompt(engine, 1)
            expected = self._fresh_logits(engine, prompt)
            engine.step([Chunk(0, 0, prompt[:-1], False)])
            lengths = [len(prompt) - 1] + [0] * (engine.info.slots - 1)
            if not self._fill_up(engine, lengths):
                return
            before = engine.usage().used_tokens
            self._refused(Code.ENOMEM, lambda: self._overfill(engine, lengths))
            assert engine.usage().used_tokens == before
            for slot in range(1, engine.info.slots):
                engine.free(slot)
            self._same(self._last_logits(engine, 0, prompt), expected)

    # -- grammars

    def test_grammars(self) -> None:
        """A grammar is followed to its end; a wrong one is refused."""
        with self._engine() as engine:
            if not engine.info.can_constrain:
                self._refused(Code.ENOSYS, lambda: engine.constraint("gbnf", 'root ::= "yes"'))
                return
            self._refused(Code.EINVAL, lambda: engine.constraint("gbnf", "root ::= ("))
            self._refused(Code.EINVAL, lambda: engine.constraint("json-schema", "{"))
            constraint = engine.constraint("gbnf", 'root ::= "yes"')
            text = b""
            while not engine.is_end(
                token := int(constraint.mask(np.zeros(engine.info.vocabulary, np.float32)).argmax())
            ):
                assert constraint.allows(token)
                constraint.accept(token)
                text += engine.piece(token)
            constraint.close()
            assert text == b"yes"

    def test_generating_by_a_schema(self) -> None:
        """The text of a turn is JSON that fits the schema."""
        with self._engine() as engine:
            if not engine.info.can_constrain:
                return
            schema = '{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}'
            text, reason = self._generate(engine, Sampling(temperature=1.0, seed=3, json_schema=schema))
            assert reason == Reason.EOS
            assert text.replace(" ", "").replace("\n", "") in ('{"ok":true}', '{"ok":false}')

    # -- helpers

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        engine = self.load()
        try:
            yield engine
        finally:
            engine.close()

    def _same(self, logits: Logits, expected: Logits) -> None:
        assert np.allclose(logits, expected, rtol=0, atol=self.tolerance)

    def _refused(self, code: Code, call: Callable[[], object]) -> None:
        try:
            call()
        except LlmosError as error:
            assert error.code == code
        else:
            raise AssertionError(f"not refused with {code}")

    def _prompt(self, engine: Engine, seed: int, length: int = 16) -> list[int]:
        """Tokens that stand for some text, beginning as texts do."""
        words = " ".join(f"w{seed * 7919 + index * index} of" for index in range(length))
        return engine.tokenize(words, True)[:length]

    def _fresh_logits(self, engine: Engine, tokens: Sequence[int]) -> Logits:
        """Logits after `tokens`, computed alone in an otherwise unused slot."""
        logits: Logits = engine.step([Chunk(0, 0, tokens, True)])[0].copy()
        engine.free(0)
        return logits

    def _last_logits(self, engine: Engine, slot: int, tokens: list[int]) -> Logits:
        logits: Logits = engine.step([Chunk(slot, len(tokens) - 1, tokens[-1:], True)])[0].copy()
        return logits

    def _continue(self, engine: Engine, prompts: list[list[int]], count: int = 12) -> list[list[int]]:
        """Greedy continuations of all prompts at once."""
        loop, result = Loop(engine), [[] for _ in prompts]  # type: tuple[Loop, list[list[int]]]
        for index, prompt in enumerate(prompts):
            sampling = Sampling(temperature=0, max_tokens=count, ignore_eos=True)
            loop.handle(abi.Open(index, tuple(prompt), len(prompt), sampling))
        loop.handle(abi.Run(tuple(abi.Grant(index, engine.info.context) for index in range(len(prompts))), 64))
        while loop.ready:
            for message in loop.step():
                assert isinstance(message, abi.Step), message
                for row in message.rows:
                    result[row.seq].append(row.token)
        for index in range(len(prompts)):
            loop.handle(abi.Free(index))
        return result

    def _generate(self, engine: Engine, sampling: Sampling) -> tuple[str, str]:
        loop, text = Loop(engine), ""
        prompt = self._prompt(engine, 1)
        loop.handle(abi.Open(1, tuple(prompt), len(prompt), sampling))
        loop.handle(abi.Run((abi.Grant(1, engine.info.context),), 64))
        while loop.ready:
            for message in loop.step():
                assert isinstance(message, abi.Step), message
                text += "".join(row.text for row in message.rows)
                for finished in message.finished:
                    return text + finished.text, finished.reason
        raise AssertionError("the turn did not end")

    def _fill_up(self, engine: Engine, lengths: list[int]) -> bool:
        """Fills slots from the second on until the pool has less than a page of room; whether it came to that."""
        page = engine.info.page_tokens
        for slot in range(1, engine.info.slots):
            while lengths[slot] + page <= engine.info.context:
                try:
                    engine.step([Chunk(slot, lengths[slot], self._prompt(engine, slot, page), False)])
                except LlmosError as error:
                    assert error.code == Code.ENOMEM
                    return True
                lengths[slot] += page
        return False

    def _overfill(self, engine: Engine, lengths: list[int]) -> None:
        """One more step of the size that had no room."""
        page = engine.info.page_tokens
        last = max(slot for slot, length in enumerate(lengths) if length)
        slot = last + 1 if last + 1 < engine.info.slots else last
        engine.step([Chunk(slot, lengths[slot], self._prompt(engine, slot, page), True)])
