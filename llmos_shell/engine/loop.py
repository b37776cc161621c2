"""The step loop: which sequences compute what in the next step, and what came of it. Messages in, messages out.

Between two steps `handle` takes the daemon's messages strictly in order; `step` computes one batch, in which every
ready sequence of the run set decodes one token and prompts are prefilled in chunks within the budget; for an engine
that does not mix them, in steps of their own. The sequences themselves are in `table`; `worker` moves the messages.

A sequence holds at most `Grant.limit` tokens, counting the one just sampled. When the pool has no room for a step after
all, the sequences last in the order sit it out and are reported as `pressure`; nobody fails.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Chunk, Engine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Reason
from llmos_shell.engine.drafting import Drafter
from llmos_shell.engine.guessing import Guessing
from llmos_shell.engine.sequence import Sequence
from llmos_shell.engine.table import Later, Table, failed
from llmos_shell.engine.threads import Governor

NEVER = 1 << 30  # steps
NO_LIMIT = 1 << 30  # tokens
LEAST_CHUNK = 8  # prompt tokens that a step computes even when longer ones are interrupted time and again


class Loop:
    """All sequences of one worker."""

    def __init__(
        self,
        engine: Engine,
        governor: Governor | None = None,
        later: Later | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        self._engine = engine
        self._info = engine.info
        self._is_end = engine.is_end
        self._table = Table(engine, later)
        self._governor = governor
        self.guessing = Guessing(drafter)
        self.urgent = False
        """Whether the last step gave somebody a first token."""
        self._pass_seconds = 0.0  # of the shortest step: what a pass over the weights takes
        self._decoding_steps = NEVER  # since the last that had prompts
        self._most_prompt = NO_LIMIT  # tokens a step may compute of prompts, so that interruptions leave some progress
        self._blocked = False  # nothing can run before the next message
        self._interrupted = False  # the last step was
        self._with_prompts = False  # the present step is
        self.steps = 0
        self.decoded_tokens = 0
        self.prefilled_tokens = 0
        self.step_seconds = 0.0
        self.engine_seconds = 0.0

    @property
    def ready(self) -> bool:
        """Whether `step` may have something to do."""
        return not self._blocked and bool(self._table.grants)

    @property
    def hold_seconds(self) -> float:
        """How long news that nobody can act on may wait."""
        return self._table.hold_seconds

    @property
    def threads(self) -> int:
        """Compute threads in use."""
        return self._info.threads if self._governor is None else self._governor.threads

    def handle(self, message: abi.ToWorker) -> list[abi.ToDaemon]:
        """Carries out one message; returns the answers. Raises only when the engine itself failed (EIO)."""
        self._blocked = False
        answers = self._table.handle(message)
        self._info = self._engine.info  # which `Resize` changes
        return answers

    def interrupt(self) -> None:
        """Gives up the step under way if it computes prompts; others are short. For another thread."""
        if self._with_prompts and self._info.can_interrupt:
            self._engine.interrupt()

    def overhear(self, message: abi.Open) -> None:
        """Prepares what handling this message will need. For another thread."""
        self._table.overhear(message)

    def close(self) -> None:
        """Gives up what is kept besides the engine."""
        self._table.close()
        self.guessing.close()

    def step(self) -> list[abi.ToDaemon]:
        """Computes one step; without anything to compute or to say, returns nothing and `ready` becomes false."""
        begun = time.perf_counter()
        self.guessing.begin()
        self._table.gather(self._pass_seconds)
        batch, finished, pressure = self._plan()
        sequences, chunks, logits, engine_seconds = self._compute(batch, pressure)
        if not sequences and not finished and not pressure:
            self._blocked, self._interrupted = not self._interrupted, False
            return []
        failures: list[abi.ToDaemon] = []
        rows, prefilled, right = self._digest(sequences, chunks, logits, finished, failures)
        if finished or failures:
            self._table.changed()
        seconds = time.perf_counter() - begun
        self._account(chunks, prefilled, right, seconds, engine_seconds)
        step = abi.Step(tuple(rows), tuple(prefilled), tuple(finished), seconds, tuple(pressure))
        return [step, *failures]

    def _plan(self) -> tuple[list[tuple[Sequence, Chunk]], list[abi.Finished], list[int]]:
        """What the next step computes, in order of precedence; turns that are over; sequences at their limit."""
        decodes: list[tuple[Sequence, Chunk]] = []
        prompts: list[Sequence] = []
        finished: list[abi.Finished] = []
        pressure: list[int] = []
        room = self._info.max_batch
        for sequence in self._table.awake():
            if sequence.ended is not None:
                finished.append(abi.Finished(sequence.seq, sequence.ended, sequence.finish()))
                continue
            tokens, kv = sequence.tokens, sequence.kv
            size = len(tokens)
            if size >= sequence.limit and kv >= min(size - 1, sequence.limit):
                self._press(sequence, pressure)
            elif size - kv == 1:
                if room:
                    decodes.append((sequence, Chunk(sequence.slot, kv, tokens[kv:], True)))
                    room -= 1
            elif size == kv:
                self._table.cut_kv(sequence, size - 1)  # logits are not part of a KV: compute the last token again
                if room and sequence.kv == size - 1:
                    decodes.append((sequence, Chunk(sequence.slot, size - 1, tokens[size - 1 :], True)))
                    room -= 1
            else:
                prompts.append(sequence)
        if prompts and decodes and not self._info.mixes:
            if self._decoding_steps < self._table.spacing or not self._table.budget:
                prompts = []
            else:
                decodes, room = [], self._info.max_batch
        self._with_prompts = bool(prompts)
        self._decoding_steps = 0 if prompts else self._decoding_steps + 1
        if prompts:
            self._plan_prefill(prompts, decodes, min(room, self._table.budget, self._most_prompt))
        elif decodes and self._info.most_guesses:
            decodes = self.guessing.extend(decodes, min(room, self._info.most_guesses), self.threads)
        return decodes, finished, pressure

    def _plan_prefill(self, prompts: list[Sequence], batch: list[tuple[Sequence, Chunk]], room: int) -> None:
        for sequence in prompts:
            tokens, kv = sequence.tokens, sequence.kv
            size = len(tokens)
            until = size if size < sequence.limit else min(size - 1, sequence.limit)
            count = min(until - kv, room)
            if count <= 0:
                return
            batch.append((sequence, Chunk(sequence.slot, kv, tokens[kv : kv + count], kv + count == size)))
            room -= count

    def _press(self, sequence: Sequence, pressure: list[int]) -> None:
        if not sequence.pressed:
            sequence.pressed = True
            pressure.append(sequence.seq)

    def _compute(
        self, batch: list[tuple[Sequence, Chunk]], pressure: list[int]
    ) -> tuple[list[Sequence], list[Chunk], npt.NDArray[np.float32] | None, float]:
        """Runs the batch, leaving out the last sequences while the pool has no room."""
        while batch:
            chunks = [chunk for _, chunk in batch]
            if self._governor is not None:
                self._engine.set_threads(self._governor.threads_for(sum(len(chunk.tokens) for chunk in chunks)))
            begun = time.perf_counter()
            try:
                logits = self._engine.step(chunks)
            except LlmosError as error:
                if error.code == Code.EINTR:
                    prompt = sum(len(chunk.tokens) for sequence, chunk in batch if sequence.prompting)
                    self._most_prompt = max(LEAST_CHUNK, prompt // 2)
                    self._interrupted = True
                    return [], [], None, 0.0
                if error.code != Code.ENOMEM:
                    raise
                starved, _ = batch.pop()
                starved.starved = True
                self._table.changed()
                self._press(starved, pressure)
                continue
            return [sequence for sequence, _ in batch], chunks, logits, time.perf_counter() - begun
        return [], [], None, 0.0

    def _digest(
        self,
        sequences: list[Sequence],
        chunks: list[Chunk],
        logits: npt.NDArray[np.float32] | None,
        finished: list[abi.Finished],
        failures: list[abi.ToDaemon],
    ) -> tuple[list[abi.Row], list[abi.Prefilled], int]:
        """Samples from the logits and moves every sequence on; also returns how many guessed tokens were right."""
        prefilled: list[abi.Prefilled] = []
        sampled: list[tuple[Sequence, Chunk]] = []
        for sequence, chunk in zip(sequences, chunks, strict=True):
            count = len(chunk.tokens)
            sequence.kv += count
            if sequence.prompting:
                prefilled.append(abi.Prefilled(sequence.seq, count, sequence.kv, len(sequence.tokens)))
            if chunk.logits:
                sampled.append((sequence, chunk))
        rows: list[abi.Row] = []
        self.urgent = any(sequence.awaited for sequence, _ in sampled)
        if not sampled or logits is None:
            return rows, prefilled, 0
        likeliest = self._likeliest(sampled, logits)
        first = right = 0
        for sequence, chunk in sampled:
            try:
                if chunk.logits == 1:
                    self._take(sequence, likeliest[first], logits[first], rows, finished)
                else:
                    right += self._take_guessed(sequence, chunk, likeliest[first:], logits[first:], rows, finished)
            except Exception as error:
                failures.append(failed(sequence, error))
            first += chunk.logits
        return rows, prefilled, right

    def _take(
        self,
        sequence: Sequence,
        token: int | None,
        logits: npt.NDArray[np.float32],
        rows: list[abi.Row],
        finished: list[abi.Finished],
    ) -> int:
        """Samples (unless the token is known already) and appends one token; returns it, -1 when the turn is over."""
        logprob = None
        if token is None:
            token, logprob = sequence.choose(logits)
        if token < 0 or (self._is_end(token) and not sequence.sampling.ignore_eos):
            finished.append(abi.Finished(sequence.seq, Reason.EOS, sequence.finish()))
            return -1
        sequence.awaited = False
        text, reason = sequence.accept(token)
        rows.append(abi.Row(sequence.seq, token, text, logprob, sequence.text.held))
        if reason is None:
            return token
        finished.append(abi.Finished(sequence.seq, reason, sequence.finish()))
        return -1

    def _take_guessed(
        self,
        sequence: Sequence,
        chunk: Chunk,
        likeliest: list[int | None],
        logits: npt.NDArray[np.float32],
        rows: list[abi.Row],
        finished: list[abi.Finished],
    ) -> int:
        """Samples at every position as long as the guesses agree; the KV of wrong ones goes. Returns the right ones."""
        guess = chunk.tokens[1:]
        right = 0
        try:
            while (token := self._take(sequence, likeliest[right], logits[right], rows, finished)) >= 0:
                if right == len(guess) or token != guess[right]:
                    break
                right += 1
        finally:
            self._table.cut_kv(sequence, chunk.position + 1 + right)
        self.guessing.judge(sequence, len(guess), right)
        return right

    def _likeliest(self, sampled: list[tuple[Sequence, Chunk]], logits: npt.NDArray[np.float32]) -> list[int | None]:
        """The token of each row of a sequence that samples greedily without further conditions; None for the others."""
        plain: list[int] = []
        first = 0
        for sequence, chunk in sampled:
            if sequence.greedy:
                plain += range(first, first + chunk.logits)
            first += chunk.logits
        tokens: list[int | None] = [None] * first
        if not plain:
            return tokens
        everyone = len(plain) == first
        chosen = logits.argmax(axis=1) if everyone else np.array([logits[index].argmax() for index in plain])
        values = logits[plain, chosen]
        for index, token in zip(plain, chosen.tolist(), strict=True):
            tokens[index] = token
        if not np.isfinite(values).all():  # `choose` says what is wrong with them
            for index, value in zip(plain, values.tolist(), strict=True):
                if value - value != 0.0:
                    tokens[index] = None
        return tokens

    def _account(
        self, chunks: list[Chunk], prefilled: list[abi.Prefilled], right: int, seconds: float, engine_seconds: float
    ) -> None:
        if not chunks:
            return
        total = sum(len(chunk.tokens) for chunk in chunks)
        prompt = sum(part.tokens for part in prefilled)
        guessed = sum(max(0, chunk.logits - 1) for chunk in chunks)
        drafting = self.guessing.draft_seconds
        self.steps += 1
        self._pass_seconds = min(self._pass_seconds or engine_seconds, engine_seconds)
        self.prefilled_tokens += prompt
        if prompt:
            self._most_prompt = min(2 * self._most_prompt, NO_LIMIT)
        self.decoded_tokens += total - prompt - guessed + right
        self.step_seconds += seconds
        self.engine_seconds += engine_seconds + drafting
        if self._governor is not None:
            others = seconds - engine_seconds - drafting + drafting * self.threads
            self._governor.record(total, engine_seconds, others)
        if not prompt and self._info.most_guesses:
            self.guessing.note(len(chunks), guessed, right, seconds)
