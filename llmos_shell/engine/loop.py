"""The step loop: which sequences compute what in the next step, and what came of it. Messages in, messages out.

Owns the open sequences, their slots and the run set. Does no I/O but image files: `worker` moves the messages. Between
two steps `handle` takes the daemon's messages strictly in order; `step` computes one batch, in which every ready
sequence of the run set decodes one token and prompts are prefilled in chunks within the budget.

A sequence holds at most `Grant.limit` tokens, counting the one just sampled. When the pool has no room for a step after
all, the sequences last in the order sit it out and are reported as `pressure`; nobody fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Chunk, Engine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Reason, Sampling
from llmos_shell.engine import images, sampling
from llmos_shell.engine.sequence import Sequence, Vocabulary
from llmos_shell.engine.templates import tokens_for
from llmos_shell.engine.threads import Governor


class Loop:
    """All sequences of one worker."""

    def __init__(self, engine: Engine, governor: Governor | None = None) -> None:
        self._engine = engine
        self._info = engine.info
        self._vocabulary = Vocabulary(engine)
        self._governor = governor
        self._sequences: dict[int, Sequence] = {}
        self._free_slots = list(range(engine.info.slots - 1, -1, -1))
        self._grants: tuple[abi.Grant, ...] = ()
        self._budget = 0
        self._running: list[Sequence] | None = None  # None: to be built again
        self._blocked = False  # nothing can run before the next message
        self.steps = 0
        self.decoded_tokens = 0
        self.prefilled_tokens = 0
        self.step_seconds = 0.0
        self.engine_seconds = 0.0
        self._handlers: dict[type, Callable[..., list[abi.ToDaemon]]] = {
            abi.Tokenize: self._tokenize,
            abi.Open: self._open,
            abi.Feed: self._feed,
            abi.Run: self._run,
            abi.Export: self._export,
            abi.Free: self._free,
            abi.Truncate: self._truncate,
        }

    @property
    def ready(self) -> bool:
        """Whether `step` may have something to do."""
        return not self._blocked and bool(self._grants)

    def handle(self, message: abi.ToWorker) -> list[abi.ToDaemon]:
        """Carries out one message; returns the answers. Raises only when the engine itself failed (EIO)."""
        self._running = None
        self._blocked = False
        return self._handlers[type(message)](message)

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
            self._running = None
        seconds = time.perf_counter() - begun
        self._account(chunks, prefilled, seconds, engine_seconds)
        step = abi.Step(tuple(rows), tuple(prefilled), tuple(finished), seconds, tuple(pressure))
        return [step, *failures]

    # -- one step ----------------------------------------------------------------------------------------------------

    def _plan(self) -> tuple[list[tuple[Sequence, Chunk]], list[abi.Finished], list[int]]:
        """What the next step computes, in order of precedence; turns that are over; sequences at their limit."""
        decodes: list[tuple[Sequence, Chunk]] = []
        prompts: list[Sequence] = []
        finished: list[abi.Finished] = []
        pressure: list[int] = []
        room = self._info.max_batch
        for sequence in self._run_list():
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
                self._recompute_last(sequence)
                if room:
                    decodes.append((sequence, Chunk(sequence.slot, size - 1, tokens[size - 1 :], True)))
                    room -= 1
            else:
                prompts.append(sequence)
        if prompts:
            self._plan_prefill(prompts, decodes, min(room, self._budget))
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

    def _run_list(self) -> list[Sequence]:
        """The sequences of the run set that are awake, in order."""
        if self._running is None:
            found = (self._sequences.get(grant.seq) for grant in self._grants)
            self._running = [s for s in found if s is not None and not s.idle and not s.starved]
        return self._running

    def _press(self, sequence: Sequence, pressure: list[int]) -> None:
        if not sequence.pressed:
            sequence.pressed = True
            pressure.append(sequence.seq)

    def _recompute_last(self, sequence: Sequence) -> None:
        """Logits are not part of a KV: the last token is computed again to get them."""
        sequence.kv -= 1
        self._engine.truncate(sequence.slot, sequence.kv)

    def _compute(
        self, batch: list[tuple[Sequence, Chunk]], pressure: list[int]
    ) -> tuple[list[Sequence], list[Chunk], npt.NDArray[np.float32] | None, float]:
        """Runs the batch, leaving out the last sequences while the pool has no room."""
        while batch:
            chunks = [chunk for _, chunk in batch]
            begun = time.perf_counter()
            try:
                logits = self._engine.step(chunks)
            except LlmosError as error:
                if error.code != Code.ENOMEM:
                    raise
                starved, _ = batch.pop()
                starved.starved = True
                self._running = None
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
        is_end = self._vocabulary.is_end
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
                failures.append(_failed(sequence, error))
                continue
            rows.append(abi.Row(sequence.seq, token, text, logprob))
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
            threads = self._governor.record(total, engine_seconds, seconds - engine_seconds)
            if threads is not None:
                self._engine.set_threads(threads)

    # -- messages ----------------------------------------------------------------------------------------------------

    def _tokenize(self, message: abi.Tokenize) -> list[abi.ToDaemon]:
        try:
            tokens, whole = tokens_for(self._engine, message)
        except Exception as error:
            return [abi.Tokens(message.id, (), error=str(error) or type(error).__name__)]
        return [abi.Tokens(message.id, tuple(tokens), whole)]

    def _open(self, message: abi.Open) -> list[abi.ToDaemon]:
        if message.seq in self._sequences:
            return [abi.Failed(message.seq, Code.EINVAL, "a sequence with this handle is open already")]
        if not self._free_slots:
            return [abi.Failed(message.seq, Code.EAGAIN, f"all {self._info.slots} slots of the worker are taken")]
        sequence = Sequence(self._vocabulary, message.seq, self._free_slots[-1], list(message.tokens))
        try:
            self._check(message.tokens, len(message.tokens), message.idle)
            if not 0 <= message.turn <= len(message.tokens):
                raise LlmosError(Code.EINVAL, f"turn {message.turn} lies outside of {len(message.tokens)} tokens")
            sequence.begin(message.turn, message.sampling)
            note = self._fill(sequence, message.source)
        except Exception as error:
            sequence.release()
            return [_failed(sequence, error)]
        self._free_slots.pop()
        sequence.idle = message.idle
        self._sequences[message.seq] = sequence
        self._grant_to(sequence)
        return [abi.Opened(message.seq, sequence.kv, note)]

    def _fill(self, sequence: Sequence, source: abi.CopyOf | abi.ImageFile | None) -> str:
        """Takes the KV of a prefix from the source; returns why it could not, if so."""
        try:
            if isinstance(source, abi.CopyOf):
                return self._fill_from_copy(sequence, source)
            if isinstance(source, abi.ImageFile):
                return self._fill_from_image(sequence, source.path)
        except LlmosError as error:
            if error.code == Code.EIO and isinstance(source, abi.CopyOf):
                raise
            return str(error)
        return ""

    def _fill_from_copy(self, sequence: Sequence, source: abi.CopyOf) -> str:
        origin = self._sequences.get(source.seq)
        if origin is None:
            return f"the sequence to copy from ({source.seq}) is not open"
        if not self._info.can_fork:
            return "this kernel cannot copy KV"
        wanted = min(source.tokens, origin.kv, len(sequence.tokens))
        usable = images.common_prefix(origin.tokens[:wanted], sequence.tokens[:wanted])
        if usable:
            self._engine.copy(origin.slot, sequence.slot, usable)
            sequence.kv = usable
        return "" if usable >= min(source.tokens, len(sequence.tokens)) else f"only {usable} tokens could be copied"

    def _fill_from_image(self, sequence: Sequence, path: str) -> str:
        image = images.read(path, self._info.fingerprint)
        held = len(image.header.tokens)
        usable = images.common_prefix(image.header.tokens, sequence.tokens)
        if usable:
            self._engine.restore(sequence.slot, image.blob, held)
            if usable < held:
                self._engine.truncate(sequence.slot, usable)
            sequence.kv = usable
        return "" if usable == held else f"only {usable} of the image's {held} tokens are those of the sequence"

    def _feed(self, message: abi.Feed) -> list[abi.ToDaemon]:
        sequence = self._sequences.get(message.seq)
        if sequence is None:
            return [abi.Failed(message.seq, Code.ESRCH, "no such sequence is open")]
        keep = len(sequence.tokens) if message.keep is None else message.keep
        try:
            if not 0 <= keep <= len(sequence.tokens):
                raise LlmosError(Code.EINVAL, f"cannot keep {keep} of {len(sequence.tokens)} tokens")
            self._check(message.tokens, keep + len(message.tokens), False)
            self._vocabulary.constraint(message.sampling)
            self._shorten(sequence, keep)
            sequence.tokens.extend(message.tokens)
            sequence.begin(len(sequence.tokens), message.sampling)
        except Exception as error:
            return [_failed(sequence, error)]
        sequence.idle = False
        self._grant_to(sequence)
        return []

    def _run(self, message: abi.Run) -> list[abi.ToDaemon]:
        before = {grant.seq: grant.limit for grant in self._grants}
        self._grants, self._budget = message.order, message.prefill_budget
        for grant in message.order:
            sequence = self._sequences.get(grant.seq)
            if sequence is not None:
                sequence.limit = grant.limit
                if sequence.starved or before.get(grant.seq) != grant.limit:
                    sequence.pressed = sequence.starved = False
        return []

    def _export(self, message: abi.Export) -> list[abi.ToDaemon]:
        sequence = self._sequences.get(message.seq)
        if sequence is None:
            return [abi.Exported(message.seq, message.path, 0, 0, "no such sequence is open")]
        try:
            if not self._info.can_export:
                raise LlmosError(Code.ENOSYS, "this kernel cannot export KV")
            blob = self._engine.export(sequence.slot) if sequence.kv else b""
            header = images.Header(
                images.VERSION,
                self._info.fingerprint,
                tuple(sequence.tokens[: sequence.kv]),
                self._info.layout,
                self._info.kv_bytes_per_token,
                len(blob),
            )
            size = images.write(message.path, header, blob)
        except LlmosError as error:
            return [abi.Exported(message.seq, message.path, 0, 0, str(error))]
        return [abi.Exported(message.seq, message.path, sequence.kv, size)]

    def _free(self, message: abi.Free) -> list[abi.ToDaemon]:
        sequence = self._sequences.pop(message.seq, None)
        if sequence is not None:
            sequence.release()
            self._engine.free(sequence.slot)
            self._free_slots.append(sequence.slot)
            self._revive()
        return []

    def _truncate(self, message: abi.Truncate) -> list[abi.ToDaemon]:
        sequence = self._sequences.get(message.seq)
        if sequence is not None and 0 <= message.tokens < len(sequence.tokens):
            self._shorten(sequence, message.tokens)
            sequence.turn = min(sequence.turn, message.tokens)
            self._revive()
        return []

    # -- parts of the messages ---------------------------------------------------------------------------------------

    def _check(self, tokens: tuple[int, ...], size: int, idle: bool) -> None:
        """Refuses what no engine could compute."""
        context = self._info.context
        if size > context:
            raise LlmosError(Code.E2BIG, f"{size} tokens do not fit the context of {context}")
        if not size and not idle:
            raise LlmosError(Code.EINVAL, "there are no tokens to start from")
        if tokens and not (0 <= min(tokens) and max(tokens) < self._info.vocabulary):
            raise LlmosError(Code.EINVAL, f"a token lies outside of the vocabulary of {self._info.vocabulary}")

    def _shorten(self, sequence: Sequence, tokens: int) -> None:
        del sequence.tokens[tokens:]
        if sequence.kv > tokens:
            if tokens:
                self._engine.truncate(sequence.slot, tokens)
            else:
                self._engine.free(sequence.slot)
            sequence.kv = tokens

    def _grant_to(self, sequence: Sequence) -> None:
        """Applies a grant that came before the sequence could run."""
        sequence.pressed = sequence.starved = False
        for grant in self._grants:
            if grant.seq == sequence.seq:
                sequence.limit = grant.limit

    def _revive(self) -> None:
        """Cells came free: who had no room may try again."""
        for sequence in self._sequences.values():
            if sequence.starved:
                sequence.starved = sequence.pressed = False


def _failed(sequence: Sequence, error: Exception) -> abi.Failed:
    """Puts a sequence to sleep that cannot go on. Engine failures concern everyone and are raised on."""
    if isinstance(error, LlmosError):
        if error.code == Code.EIO and "not numbers" not in error.message:
            raise error
        code, text = error.code, str(error)
    else:
        code, text = Code.EIO, f"{type(error).__name__}: {error}"
    sequence.idle = True
    sequence.ended = None
    sequence.release()
    return abi.Failed(sequence.seq, code, text)


__all__ = ["Loop", "Sampling", "sampling"]
