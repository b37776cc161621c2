"""The guesses of a step: which way of guessing it takes, and what came of it.

Two ways, each judged by a `Speculation` of its own: what followed when the same tokens came before (`Lookup`), and a
draft model (`drafting`). The one that was measured to pay most is asked first, the other where that has no guess.
"""

from __future__ import annotations

import sys
import time

from llmos_shell.abi.engine import Chunk
from llmos_shell.abi.errors import LlmosError
from llmos_shell.engine.drafting import MOST_DRAFTED, Drafter
from llmos_shell.engine.sequence import Sequence
from llmos_shell.engine.speculation import Speculation

Decode = tuple[Sequence, Chunk]


class Guessing:
    """All guesses of one worker."""

    def __init__(self, drafter: Drafter | None = None) -> None:
        self.lookup = Speculation()
        self.draft = Speculation()
        self._drafter = drafter
        self.begin()

    def begin(self) -> None:
        """A step begins."""
        self._used: Speculation | None = None
        self._count = 0  # sequences of the present step that decode
        self._reading = False
        self.draft_seconds = 0.0
        """What the draft model took of the present step."""

    @property
    def guessed(self) -> int:
        """Tokens guessed so far."""
        return self.lookup.guessed + self.draft.guessed

    @property
    def right(self) -> int:
        """Of these, those that were generated."""
        return self.lookup.right + self.draft.right

    def extend(self, decodes: list[Decode], room: int, threads: int) -> list[Decode]:
        """The chunks of a step that decodes, with guesses behind the tokens to decode where that may pay.

        At most `room` of them in all; the draft model computes with so many threads.
        """
        ways = [self.lookup] if self._drafter is None else [self.lookup, self.draft]
        self._count = count = len(decodes)
        for way in sorted((way for way in ways if way.wanted(count)), key=lambda way: -way.promise(count)):
            most = [min(sequence.limit, sequence.most) - len(sequence.tokens) - 1 for sequence, _ in decodes]
            if way is self.lookup:
                guesses = _looked_up(decodes, most, room)
            else:
                guesses = self._drafted(decodes, most, room, threads)
            if any(guesses):
                self._used = way
                return [_with(decode, guess) for decode, guess in zip(decodes, guesses, strict=True)]
        return decodes

    def judge(self, sequence: Sequence, guessed: int, right: int) -> None:
        """The first `right` of the tokens guessed for a sequence came true."""
        if self._used is self.draft:
            self.draft.note_guess(self._count, guessed, right)
        else:
            sequence.lookup.judge(guessed, right)

    def note(self, sequences: int, guessed: int, right: int, seconds: float) -> None:
        """A step without prompts, of so many sequences, took so long; `right` of the guessed tokens came true."""
        if self._reading:  # which happens once per sequence
            return
        if self._used is not None and guessed:
            self._used.note(sequences, guessed, right, seconds)
            return
        self.lookup.note_plain(sequences, seconds)
        self.draft.note_plain(sequences, seconds)

    def close(self) -> None:
        """Releases the draft model."""
        if self._drafter is not None:
            self._drafter.close()
            self._drafter = None

    def _drafted(self, decodes: list[Decode], most: list[int], room: int, threads: int) -> list[list[int]]:
        drafter = self._drafter
        length = min(MOST_DRAFTED, room // len(decodes))
        if drafter is None or not length:
            return []
        length = self.draft.length(len(decodes), length)
        begun = time.perf_counter()
        try:
            drafter.engine.set_threads(threads)
            return drafter.guess([sequence for sequence, _ in decodes], [min(length, each) for each in most])
        except LlmosError as error:
            print(f"the draft model failed, and is left out: {error}", file=sys.stderr, flush=True)
            self.close()
            return []
        finally:
            self._reading = drafter.reading
            self.draft_seconds = time.perf_counter() - begun


def _looked_up(decodes: list[Decode], most: list[int], room: int) -> list[list[int]]:
    guesses = []
    for (sequence, _), each in zip(decodes, most, strict=True):
        each = min(room, each)
        guess = sequence.lookup.guess(sequence.tokens, each) if each > 0 else []
        room -= len(guess)
        guesses.append(guess)
    return guesses


def _with(decode: Decode, guess: list[int]) -> Decode:
    sequence, chunk = decode
    if not guess:
        return decode
    return sequence, Chunk(chunk.slot, chunk.position, [*chunk.tokens, *guess], 1 + len(guess))
