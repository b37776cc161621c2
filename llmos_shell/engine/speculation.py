"""Guessing tokens, so that one step yields several: what followed the last time these tokens came, and when to ask.

A guess costs only time: the step computes the guessed tokens too, samples at every position as ever, and keeps as many
tokens as the guesses agree with. What is generated stays the same. Whether it pays depends on the model, the machine
and the text, so it is measured: tokens per step gained against the time the larger step took. `Speculation` decides
from these figures alone, for one way of guessing; it does not know of engines or sequences' contents. There are two
ways: `Lookup` here, and a smaller model, in `drafting`.
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

PLAIN_EVERY = 64
"""After so many steps with guesses comes one without, so that what these take stays known."""

FIRST_AGREEMENT = 0.7
MOST_AGREEMENT = 0.98
AGREEMENT_SMOOTHING = 0.1
FIRST_COST = 0.2
LEAST_COST = 0.01


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
    """Whether guesses of one kind pay in one worker, from what steps with and without them took and yielded."""

    def __init__(self) -> None:
        self._plain: dict[int, float] = {}  # seconds of a step without guesses, by number of sequences
        self._gain = 0.0
        self._tried = 0
        self._pause = FIRST_PAUSE
        self._wait = FIRST_PAUSE
        self._since_plain = 0
        self._agreement = FIRST_AGREEMENT  # chance that a guess is right when those before it are
        self._cost = FIRST_COST  # what one more guess for every sequence adds to a step, as a share of a plain one
        self.guessed = 0
        self.right = 0

    @property
    def promise(self) -> float:
        """How much faster guesses are said to make it; infinite while that is tried out."""
        return self._gain if self._tried >= TRIAL_STEPS else float("inf")

    def wanted(self, sequences: int) -> bool:
        """Whether the next step, of so many sequences that decode, should have guesses."""
        return self._wait <= 0 and sequences in self._plain and self._since_plain < PLAIN_EVERY

    def length(self, most: int) -> int:
        """How many tokens to guess for a sequence, from 1 to `most`, so that most tokens come of the time.

        Of k guesses, each right with chance a if all before are, (1 - a^(k+1)) / (1 - a) tokens are expected, one
        being sampled after the last right guess (Leviathan, Kalman, Matias 2023, section 3.1).
        """
        tokens = power = self._agreement
        best, length = (1.0 + tokens) / (1.0 + self._cost), 1
        for count in range(2, most + 1):
            power *= self._agreement
            tokens += power
            rate = (1.0 + tokens) / (1.0 + self._cost * count)
            if rate > best:
                best, length = rate, count
        return length

    def note_plain(self, sequences: int, seconds: float) -> None:
        """A step without guesses (and without prompts) took so long."""
        before = self._plain.get(sequences)
        self._plain[sequences] = seconds if before is None else before + SMOOTHING * (seconds - before)
        self._wait -= 1
        self._since_plain = 0

    def note_guess(self, guessed: int, right: int) -> None:
        """Of so many tokens guessed for a sequence, the first `right` were."""
        share = right / min(right + 1, guessed)
        self._agreement += AGREEMENT_SMOOTHING * (min(share, MOST_AGREEMENT) - self._agreement)

    def note(self, sequences: int, guessed: int, right: int, seconds: float) -> None:
        """A step with guesses took so long; so many of the guessed tokens were right."""
        self.guessed += guessed
        self.right += right
        self._since_plain += 1
        plain = self._plain.get(sequences)
        if plain is None:  # some had to sit it out for want of memory
            return
        gain = (sequences + right) / sequences * plain / max(seconds, 1e-9)
        cost = max(LEAST_COST, (seconds / max(plain, 1e-9) - 1.0) * sequences / guessed)
        self._cost += SMOOTHING * (cost - self._cost)
        self._tried += 1
        self._gain = gain if self._tried == 1 else self._gain + SMOOTHING * (gain - self._gain)
        if self._tried < TRIAL_STEPS:
            return
        if self._gain >= PAYS:
            self._pause = FIRST_PAUSE
            return
        self._wait, self._tried = self._pause, 0
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
