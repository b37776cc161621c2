"""The step loop: which sequences compute what in the next step, and what came of it. Messages in, messages out.

Between two steps `handle` takes the daemon's messages strictly in order; `step` computes one batch, in which every
ready sequence of the run set decodes one token and prompts are prefilled in chunks within the budget. The sequences
themselves are in `table`; `worker` moves the messages.

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
from llmos_shell.engine.sequence import Sequence
from llmos_shell.engine.table import Table, failed
from llmos_shell.engine.threads import Governor


class Loop:
    """All sequences of one worker."""

    def __init__(self, engine: Engine, governor: Governor | None = None) -> None:
        self._engine = engine
        self._info = engine.info
        self._is_end = engine.is_end
        self._table = Table(engine)
        self._governor = governor
        self._blocked = False  # nothing can run before the next message
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
        return self._table.handle(message)

    def step(self) -> list[abi.ToDaemon]:
        """Computes one step; without anything to compute or to say, returns nothing and `ready` becomes false."""
        begun = time.perf_counter()
        batch, finished, pressure = self._plan()
        sequences, chunks, logits, engine_seconds = self._compute(batch, pressure)
        if not sequences and not finished and not pressure:
            self._blocked = True
            return []
        failures: list[abi.ToDaemon] = []
        rows, prefilled = self._digest(sequences, chunks, logits, finished, failures)
        if finished or failures:
            self._table.changed()
        seconds = time.perf_counter() - begun
        self._account(chunks, prefilled, seconds, engine_seconds)
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
        if prompts:
            self._plan_prefill(prompts, decodes, min(room, self._table.budget))
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
    ) -> tuple[list[abi.Row], list[abi.Prefilled]]:
        """Samples from the logits and moves every sequence on."""
        prefilled: list[abi.Prefilled] = []
        sampled: list[Sequence] = []
        for sequence, chunk in zip(sequences, chunks, strict=True):
            count = len(chunk.tokens)
            sequence.kv += count
            if sequence.prompting:
                prefilled.append(abi.Prefilled(sequence.seq, count, sequence.kv, len(sequence.tokens)))
            if chunk.logits:
                sampled.append(sequence)
        rows: list[abi.Row] = []
        if not sampled or logits is None:
            return rows, prefilled
        likeliest = self._likeliest(sampled, logits)
        is_end = self._is_end
        for index, sequence in enumerate(sampled):
            try:
                logprob = None
                token = likeliest[index]
                if token is None:
                    token, logprob = sequence.choose(logits[index])
                if token < 0 or (is_end(token) and not sequence.sampling.ignore_eos):
                    finished.append(abi.Finished(sequence.seq, Reason.EOS, sequence.finish()))
                    continue
                text, reason = sequence.accept(token)
            except Exception as error:
                failures.append(failed(sequence, error))
                continue
            rows.append(abi.Row(sequence.seq, token, text, logprob, sequence.text.held))
            if reason is not None:
                finished.append(abi.Finished(sequence.seq, reason, sequence.finish()))
        return rows, prefilled

    def _likeliest(self, sampled: list[Sequence], logits: npt.NDArray[np.float32]) -> list[int | None]:
        """The token of each sequence that samples greedily without further conditions; None for the others."""
        plain = [index for index, sequence in enumerate(sampled) if sequence.greedy]
        if not plain:
            return [None] * len(sampled)
        everyone = len(plain) == len(sampled)
        chosen = logits.argmax(axis=1) if everyone else np.array([logits[index].argmax() for index in plain])
        values = logits[plain, chosen]
        tokens: list[int | None] = [None] * len(sampled)
        for index, token in zip(plain, chosen.tolist(), strict=True):
            tokens[index] = token
        if not np.isfinite(values).all():  # `choose` says what is wrong with them
            for index, value in zip(plain, values.tolist(), strict=True):
                if value - value != 0.0:
                    tokens[index] = None
        return tokens

    def _account(
        self, chunks: list[Chunk], prefilled: list[abi.Prefilled], seconds: float, engine_seconds: float
    ) -> None:
        if not chunks:
            return
        total = sum(len(chunk.tokens) for chunk in chunks)
        prompt = sum(part.tokens for part in prefilled)
        self.steps += 1
        self.prefilled_tokens += prompt
        self.decoded_tokens += total - prompt
        self.step_seconds += seconds
        self.engine_seconds += engine_seconds
        if self._governor is not None:
            self._governor.record(total, engine_seconds, seconds - engine_seconds)
