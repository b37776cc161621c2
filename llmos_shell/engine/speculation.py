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

EXPLORE_EVERY = 24
"""Among so many guesses is one of another length than the best one, so that what it takes stays known."""

FIRST_RIGHT, FIRST_GUESSED = 7.0, 10.0
"""How often guesses are taken to be right at first, as if so many had been seen."""

MEMORY_GUESSES = 100.0
FIRST_COST = 0.3
"""What a guess is taken to add to a step at first, as a share of a plain one."""


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


class Lengths:
    """How many tokens to guess at a time, from how often guesses are right and what steps with so many took.

    Of k guesses, each right with chance a if all before are, (1 - a^(k+1)) / (1 - a) tokens are expected, one being
    sampled after the last right guess (Leviathan, Kalman, Matias 2023, section 3.1). What a step takes does not grow
    evenly (a second row may cost as much as the next four), so it is measured by length, and drawn through.
    """

    def __init__(self) -> None:
        self._right, self._guessed = FIRST_RIGHT, FIRST_GUESSED
        self._costs: dict[int, float] = {}  # of a step, over that of a plain one
        self._asked = 0
        self._most = 1  # that was asked for last

    def choose(self, most: int) -> int:
        """The best length from 1 to `most`; in a trial, and now and then, another one that is to be measured."""
        self._asked += 1
        self._most = most
        ladder = sorted({most, (most + 1) // 2, (most + 3) // 4}, reverse=True)
        unknown = [length for length in ladder if length not in self._costs]
        if unknown:
            return unknown[0]
        if self._asked % EXPLORE_EVERY == 0:
            return ladder[self._asked // EXPLORE_EVERY % len(ladder)]
        return self.best()[1]

    def best(self) -> tuple[float, int]:
        """How much faster the best length makes it, and this length."""
        chance = self._right / self._guessed
        known = sorted(self._costs.items())
        tokens = power = 1.0
        rates = []
        for length in range(1, self._most + 1):
            power *= chance
            tokens += power
            rates.append((tokens / _drawn_through(known, length), length))
        return max(rates, key=lambda rate: rate[0])

    def note_guess(self, guessed: int, right: int) -> None:
        """Of so many tokens guessed for a sequence, the first `right` were."""
        tried = min(right + 1, guessed)
        keep = max(0.0, 1.0 - tried / MEMORY_GUESSES)
        self._right, self._guessed = keep * self._right + right, keep * self._guessed + tried

    def note_cost(self, length: int, cost: float) -> None:
        """A step with guesses of this length took so many times as long as a plain one."""
        before = self._costs.get(length)
        self._costs[length] = cost if before is None else before + SMOOTHING * (cost - before)


def _drawn_through(known: list[tuple[int, float]], length: int) -> float:
    """The value at `length` of the line through the known points, from 1 at 0, and on as it went last."""
    left, right = (0, 1.0), (1, 1.0 + FIRST_COST)
    for index, point in enumerate(known):
        if index:
            left = right
        right = point
        if point[0] >= length:
            break
    slope = max(0.0, (right[1] - left[1]) / (right[0] - left[0]))
    return max(right[1] + slope * (length - right[0]), 0.1)


class Speculation:
    """Whether guesses of one kind pay in one worker, from what steps with and without them took and yielded.

    That differs with the number of sequences that decode together, so each number is judged for itself.
    """

    def __init__(self) -> None:
        self._trials: dict[int, _Trial] = {}
        self.guessed = 0
        self.right = 0

    def promise(self, sequences: int) -> float:
        """How much faster guesses are said to make it; infinite while that is tried out."""
        return self._of(sequences).promise

    def wanted(self, sequences: int) -> bool:
        """Whether the next step, of so many sequences that decode, should have guesses."""
        trial = self._trials.get(sequences)
        return trial is not None and trial.wanted

    def length(self, sequences: int, most: int) -> int:
        """How many tokens, at most so many, to guess for each of the sequences, where that can be chosen."""
        trial = self._of(sequences)
        if trial.lengths is None:
            trial.lengths = Lengths()
        return trial.lengths.choose(most)

    def note_plain(self, sequences: int, seconds: float) -> None:
        """A step without guesses (and without prompts) took so long."""
        self._of(sequences).note_plain(seconds)

    def note_guess(self, sequences: int, guessed: int, right: int) -> None:
        """Of so many tokens guessed for one of the sequences, the first `right` came true."""
        lengths = self._of(sequences).lengths
        if lengths is not None:
            lengths.note_guess(guessed, right)

    def note(self, sequences: int, guessed: int, right: int, seconds: float) -> None:
        """A step with guesses took so long; so many of the guessed tokens were right."""
        self.guessed += guessed
        self.right += right
        self._of(sequences).note(guessed / sequences, right / sequences, seconds)

    def _of(self, sequences: int) -> _Trial:
        trial = self._trials.get(sequences)
        if trial is None:
            trial = self._trials[sequences] = _Trial()
        return trial


class _Trial:
    """The same for one number of sequences."""

    def __init__(self) -> None:
        self._plain = 0.0  # seconds of a step without guesses
        self._gain = 0.0
        self._tried = 0
        self._pause = FIRST_PAUSE
        self._wait = FIRST_PAUSE
        self._since_plain = 0
        self.lengths: Lengths | None = None

    @property
    def promise(self) -> float:
        return self._gain if self._tried >= TRIAL_STEPS else float("inf")

    @property
    def wanted(self) -> bool:
        return self._wait <= 0 and self._since_plain < PLAIN_EVERY

    def note_plain(self, seconds: float) -> None:
        self._plain += (SMOOTHING if self._plain else 1.0) * (seconds - self._plain)
        self._wait -= 1
        self._since_plain = 0

    def note(self, guessed: float, right: float, seconds: float) -> None:
        """Tokens are per sequence."""
        self._since_plain += 1
        if not self._plain:  # some had to sit it out for want of memory
            return
        cost = max(seconds, 1e-9) / self._plain
        if self.lengths is not None:
            self.lengths.note_cost(max(1, round(guessed)), cost)
        gain = (1.0 + right) / cost
        self._tried += 1
        self._gain = gain if self._tried == 1 else self._gain + SMOOTHING * (gain - self._gain)
        if self._tried < TRIAL_STEPS:
            return
        if self._tried == TRIAL_STEPS and self.lengths is not None:  # which tried different ones
            self._gain = self.lengths.best()[0]
        if self._gain >= PAYS:
            self._pause = FIRST_PAUSE
            return
        self._wait, self._tried = self._pause, 0
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
