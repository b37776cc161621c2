"""Guessing tokens, so that one step yields several: what followed the last time these tokens came, and when to ask.

A guess costs only time: the step computes the guessed tokens too, samples at every position as ever, and keeps as many
tokens as the guesses agree with. What is generated stays the same. Whether it pays depends on the model, the machine
and the text, so it is measured: tokens per step gained against the time the larger step took. `Speculation` decides
from these figures alone; it does not know of engines or sequences' contents.
"""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 3
"""Tokens that must have come before for a guess. Shorter ones match by chance."""

FIRST_GUESS = 4
LONGEST_GUESS = 16

SMOOTHING = 0.2
PAYS = 1.05
"""Gain below which larger steps are not worth it."""

TRIAL_STEPS = 4
"""Steps with guesses before their gain is judged."""

FIRST_PAUSE = 32
LONGEST_PAUSE = 4096
"""Steps without guesses after a trial that did not pay; twice as many after each."""


class Lookup:
    """Where each n-gram of one sequence came last. Costs one dictionary entry per token."""

    __slots__ = ("_known", "_next", "length")

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}  # n-gram → index of the token after its last occurrence
        self._known = NGRAM
        self.length = FIRST_GUESS
        """Tokens to guess: grows while guesses come true."""

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most so many tokens that followed when the last `NGRAM` tokens came before; none when they did not."""
        size = len(tokens)
        if size < self._known:  # it was cut: what is known may have gone
            self._next.clear()
            self._known = NGRAM
        for end in range(self._known, size):
            self._next[tuple(tokens[end - NGRAM : end])] = end
        self._known = max(size, NGRAM)
        start = self._next.get(tuple(tokens[-NGRAM:]), size)
        return list(tokens[start : start + min(most, self.length)])

    def judge(self, guessed: int, right: int) -> None:
        """So many of the guessed tokens were right."""
        self.length = min(LONGEST_GUESS, 2 * self.length) if right == guessed else max(1, right + 1)


class Speculation:
    """Whether guesses pay in one worker, from what steps with and without them took and yielded."""

    def __init__(self) -> None:
        self._plain: dict[int, float] = {}  # seconds of a step without guesses, by number of sequences
        self._gain = 0.0
        self._tried = 0
        self._pause = FIRST_PAUSE
        self._wait = FIRST_PAUSE
        self.guessed = 0
        self.right = 0

    def wanted(self, sequences: int) -> bool:
        """Whether the next step, of so many sequences that decode, should have guesses."""
        return self._wait <= 0 and sequences in self._plain

    def note_plain(self, sequences: int, seconds: float) -> None:
        """A step without guesses (and without prompts) took so long."""
        before = self._plain.get(sequences)
        self._plain[sequences] = seconds if before is None else before + SMOOTHING * (seconds - before)
        self._wait -= 1

    def note(self, sequences: int, guessed: int, right: int, seconds: float) -> None:
        """A step with guesses took so long; so many of the guessed tokens were right."""
        self.guessed += guessed
        self.right += right
        plain = self._plain.get(sequences)
        if plain is None:  # some had to sit it out for want of memory
            return
        gain = (sequences + right) / sequences * plain / max(seconds, 1e-9)
        self._tried += 1
        self._gain = gain if self._tried == 1 else self._gain + SMOOTHING * (gain - self._gain)
        if self._tried < TRIAL_STEPS:
            return
        if self._gain >= PAYS:
            self._pause = FIRST_PAUSE
            return
        self._wait, self._tried = self._pause, 0
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
