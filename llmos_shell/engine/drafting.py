"""Guesses by a smaller model of the same vocabulary, a draft model, which runs in the worker beside the one it serves.

Owns the draft's engine and its KV, and nothing of the sequences: their tokens are read, and what the draft holds is cut
to what they have in common. `speculation` says when it is asked, and for how many tokens.
"""

from __future__ import annotations

import sys

from llmos_shell.abi.engine import Chunk, Engine, LoadEngine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.worker import Load
from llmos_shell.engine import sampling as sampler
from llmos_shell.engine.drafts import DRAFT_SLOTS, draft_load
from llmos_shell.engine.images import common_prefix
from llmos_shell.engine.sequence import Sequence

CATCH_UP_TOKENS = 64
"""How far the draft reads on in one step, where it has not read a sequence yet: nobody's tokens wait for more."""

MOST_DRAFTED = 8
"""Guesses at a time for one sequence."""


def load_draft(load: LoadEngine, spec: Load, engine: Engine) -> Drafter | None:
    """The draft model that `spec` names for an engine, if it names one. Raises ENOEXEC where their words differ."""
    if not spec.draft:
        return None
    if not engine.info.most_guesses:
        print(f"the draft model {spec.draft} is left out: no guesses are made for this model", file=sys.stderr)
        return None
    info = engine.info
    try:
        draft = load(draft_load(spec, info.context, info.pages * info.page_tokens))
    except LlmosError as error:
        raise LlmosError(error.code, f"the draft model: {error.message}", hint=error.hint) from None
    difference = difference_of_words(engine, draft)
    if difference:
        draft.close()
        raise LlmosError(
            Code.ENOEXEC,
            f"the draft model {spec.draft} has other tokens: {difference}",
            hint="a draft needs the vocabulary of its model; leave `draft` out",
        )
    return Drafter(draft)


def difference_of_words(engine: Engine, draft: Engine) -> str:
    """How the tokens of two engines differ; "" when they mean the same.

    The larger vocabulary may have more of them at its end, as padding: such a guess is never right, or never made.
    """
    for token in range(min(engine.info.vocabulary, draft.info.vocabulary)):
        own, other = engine.piece(token), draft.piece(token)
        if own != other or engine.is_end(token) != draft.is_end(token):
            return f"{token} is {_shown(other, draft.is_end(token))}, not {_shown(own, engine.is_end(token))}"
    return ""


def _shown(piece: bytes, ends: bool) -> str:
    text = repr(piece.decode("utf-8", "replace"))
    return f"{text} and ends a turn" if ends else text


class Drafter:
    """One draft model. For the thread that steps."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._slots = min(DRAFT_SLOTS, engine.info.slots)
        self._held: dict[int, tuple[int, list[int]]] = {}  # by sequence: slot, and the tokens in its KV; oldest first
        self.reading = False
        """Whether the last call of `guess` read on in a sequence that it had not read yet, so that it took longer."""

    def guess(self, sequences: list[Sequence], most: list[int]) -> list[list[int]]:
        """Likely next tokens for every sequence, at most so many for each; none for more sequences than have room.

        They are drawn as the sequence draws its own, with the same seed at the same position, so that two similar
        distributions give equal tokens.
        """
        self.reading = False
        guesses: list[list[int]] = [[] for _ in sequences]
        if len(sequences) > self._slots:
            return guesses
        for sequence in sequences:  # none of them makes way for another
            if (found := self._held.pop(sequence.seq, None)) is not None:
                self._held[sequence.seq] = found
        pending: dict[int, list[int]] = {}  # by index: what the draft has to compute of it next
        for index, sequence in enumerate(sequences):
            if most[index] > 0 and len(sequence.tokens) + most[index] <= self.engine.info.context:
                rest = self._unread(sequence)
                if rest:
                    pending[index] = rest
        while pending:
            chunks = [
                Chunk(self._slot(sequences[index]), len(self._tokens(sequences[index])), rest, 1)
                for index, rest in pending.items()
            ]
            logits = self.engine.step(chunks)
            following: dict[int, list[int]] = {}
            for row, (index, rest) in enumerate(pending.items()):
                sequence, guess = sequences[index], guesses[index]
                self._tokens(sequence).extend(rest)
                token = _draw(sequence, logits[row], guess)
                if token < 0:
                    continue
                guess.append(token)
                if len(guess) < most[index] and not self.engine.is_end(token):
                    following[index] = [token]
            pending = following
        return guesses

    def close(self) -> None:
        """Releases the draft model."""
        self.engine.close()

    def _slot(self, sequence: Sequence) -> int:
        return self._held[sequence.seq][0]

    def _tokens(self, sequence: Sequence) -> list[int]:
        return self._held[sequence.seq][1]

    def _unread(self, sequence: Sequence) -> list[int]:
        """The tokens that the draft's KV lacks, at least one; none where it has to read on first."""
        slot, held = self._hold(sequence)
        keep = min(common_prefix(held, sequence.tokens), len(sequence.tokens) - 1)
        if keep < len(held):
            self._cut(slot, held, keep)
        rest = sequence.tokens[len(held) :]
        if len(rest) <= CATCH_UP_TOKENS:
            return rest
        self.reading = True
        rest = rest[:CATCH_UP_TOKENS]
        self.engine.step([Chunk(slot, len(held), rest, 0)])
        held.extend(rest)
        return []

    def _hold(self, sequence: Sequence) -> tuple[int, list[int]]:
        """The slot of a sequence and what it holds; if none is free, that of the one asked about longest ago."""
        found = self._held.get(sequence.seq)
        if found is None and len(self._held) >= self._slots:
            found = self._held.pop(next(iter(self._held)))
        if found is None:
            found = len(self._held), []
        self._held[sequence.seq] = found
        return found

    def _cut(self, slot: int, held: list[int], keep: int) -> None:
        try:
            if keep:
                self.engine.truncate(slot, keep)
        except LlmosError as error:
            if error.code != Code.ENOSYS:
                raise
            keep = 0
        if not keep:
            self.engine.free(slot)
        del held[keep:]


def _draw(sequence: Sequence, logits: sampler.Logits, guess: list[int]) -> int:
    """What the sequence would sample from these logits after the guess so far; its grammar is not asked."""
    if sequence.greedy:
        return int(logits.argmax())
    if sequence.penalises:
        recent = [*sequence.tokens[-sequence.sampling.repeat_last :], *guess]
        logits = sampler.penalised(logits, sequence.sampling, recent)
    return sampler.sample(logits, sequence.sampling, len(sequence.tokens) + len(guess))
