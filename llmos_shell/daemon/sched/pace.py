"""How many prompt tokens a step may compute, and how long its news may wait: from measured step times. Pure.

A prompt takes time from those who decode. While somebody reads their tokens, it may take `STRETCH` of their steps': as
many tokens with every step as that allows, or, where the engine computes prompts apart and small chunks are as slow as
large ones, a large chunk between as many steps as that asks for. While nobody reads, chunks are as large as letting
others in soon allows. Rates are tokens per second, all times seconds.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

STRETCH = 0.5
"""By which share prompts may prolong what is read."""

STEP_STRETCH = 0.4
"""The same where they prolong every step. Leaves room for noise."""

STEP_SECONDS = 0.2
"""How long a step of prompts may take that no reader waits for, so that others are let in soon."""

LEAST_CHUNK = 64
"""Prompt tokens such a step has at least where it can be interrupted: smaller ones cost up to twice as much a token."""

LEAST_SPACING = 24
"""Tokens that readers should get between two pauses, so that reading flows; pauses grow for it."""

PAUSE_SECONDS = 0.3
"""Up to this."""

HOLD_SECONDS = 0.015
"""How long tokens that are read may wait in the worker for company: below what a reader notices."""

UNREAD_HOLD_SECONDS = 0.05
"""How long those may that nobody reads: as long as they wait for the journal."""

FIRST_BUDGET = 128
"""Prompt tokens per step while nothing is known of the model's speed."""

MIN_BUDGET = 8
LEAST_SAMPLE = 16
"""Prompt tokens below which a step says nothing of the speed of large ones."""

SMOOTHING = 0.3
MARGIN = 1.3
"""What differs from what is in force by less is not worth a message."""


class Prefill(NamedTuple):
    """What prompts may have: tokens per step, and between two steps with prompts so many without."""

    budget: int
    spacing: int = 1

    def differs(self, other: Prefill) -> bool:
        """Whether that is worth a message."""
        return _differs(self.budget, other.budget) or _differs(self.spacing, other.spacing)


class Pace:
    """What one worker's steps take."""

    def __init__(self) -> None:
        self._decode: dict[int, float] = {}  # seconds of a step without prompts, by bit length of the rows
        self._alone = 0.0  # rate of prompts nobody decodes beside
        self._beside = 0.0  # rate of prompts beside others' decoding, of what they add to a step

    def note(self, decoded: int, prefilled: int, seconds: float) -> None:
        """A step decoded so many rows and computed so many prompt tokens."""
        if seconds <= 0.0 or decoded + prefilled <= 0:
            return
        if not prefilled:
            size = decoded.bit_length()
            self._decode[size] = _smooth(self._decode.get(size, 0.0), seconds)
        elif not decoded:
            if prefilled >= LEAST_SAMPLE:
                self._alone = _smooth(self._alone, prefilled / seconds)
        elif (usual := self._usual(decoded)) > 0.0:
            added = max(seconds - usual, seconds / 8)
            self._beside = _smooth(self._beside, prefilled / added)

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second; 0 when none were measured."""
        return self._alone or self._beside

    def prefill(self, decoding: int, most: int, mixes: bool, can_interrupt: bool = False) -> Prefill:
        """What prompts may have beside `decoding` rows that are read by somebody, at most `most` tokens per step."""
        usual = self._usual(decoding) if decoding else 0.0
        spacing = 1
        if decoding and mixes:
            wanted = int((self._beside or self._alone) * STEP_STRETCH * usual) or MIN_BUDGET
        else:
            seconds = min(PAUSE_SECONDS, max(STEP_SECONDS, LEAST_SPACING * STRETCH * usual))
            wanted = int(self._alone * seconds) if self._alone else FIRST_BUDGET
            spacing = ceil(seconds / (STRETCH * usual)) if usual else 1
        least = LEAST_CHUNK if can_interrupt and not decoding else MIN_BUDGET
        return Prefill(min(max(least, _rounded(wanted)), most), spacing)

    def _usual(self, rows: int) -> float:
        """Seconds of a step that decodes so many rows and nothing else; 0 while no such step is known."""
        size = rows.bit_length()
        if size in self._decode:
            return self._decode[size]
        return self._decode[min(self._decode, key=lambda known: abs(known - size))] if self._decode else 0.0


def _differs(new: int, old: int) -> bool:
    return new > MARGIN * old or old > MARGIN * new


def _smooth(before: float, value: float) -> float:
    return before + SMOOTHING * (value - before) if before else value


def _rounded(value: int) -> int:
    """The two leading bits, so that noise does not change it each time."""
    keep = max(0, value.bit_length() - 2)
    return value >> keep << keep
