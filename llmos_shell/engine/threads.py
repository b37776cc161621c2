"""How many compute threads are worth having just now.

llama.cpp's threads spin at barriers: on a busy machine two threads can be three times slower than one. So the governor
watches how much processor time the threads really get, tries another number when they get too little (or, for models
whose steps are so short that barriers dominate, anyway), and keeps it only if tokens per second went up. A trial that
failed is repeated after twice the time, so that it never flaps; a trial costs one short window.

`decide` is pure; `Governor` feeds it measurements.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

WINDOW_SECONDS = 0.25  # of engine time per measurement
WINDOW_STEPS = 4  # at least
CONTENDED_SHARE = 0.85  # threads that get less of their processors than this are disturbed
SHORT_STEP_SECONDS = 0.005  # below this fewer threads may be faster even on an idle machine
GAIN = 1.05  # a trial must be faster by this
COMPARABLE = 1.3  # tokens per step of two windows may differ by this factor
FIRST_WAIT = 4  # windows before a trial
LONGEST_WAIT = 256


class Window(Struct, frozen=True):
    """What was measured with one number of threads."""

    steps: int
    tokens: int
    engine_seconds: float
    cpu_seconds: float  # processor time of all threads, in `engine_seconds`

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / max(self.engine_seconds, 1e-9)


class Plan(Struct, frozen=True):
    """State of the governor."""

    threads: int
    maximum: int
    wait: int = FIRST_WAIT  # windows until a trial is due
    backoff: int = FIRST_WAIT  # the wait after the next trial that fails
    fallback: int = 0  # during a trial: the number to go back to
    baseline: Window | None = None  # during a trial: what the trial has to beat


def default_threads() -> int:
    """Processors this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def decide(plan: Plan, window: Window) -> Plan:
    """The plan after a window that was measured with `plan.threads`."""
    if plan.baseline is not None:
        return _judge(plan, plan.baseline, window)
    if plan.maximum == 1:
        return plan
    if plan.wait > 1:
        return replace(plan, wait=plan.wait - 1)
    candidate = _candidate(plan, window)
    if candidate == plan.threads:
        return replace(plan, wait=1)
    return replace(plan, threads=candidate, fallback=plan.threads, baseline=window)


def _candidate(plan: Plan, window: Window) -> int:
    """The number worth trying; the present one if none is."""
    threads = plan.threads
    share = window.cpu_seconds / max(window.engine_seconds * threads, 1e-9)
    if threads > 1 and share < CONTENDED_SHARE:
        return max(1, min(threads - 1, round(share * threads)))
    if threads < plan.maximum:
        return min(plan.maximum, threads + max(1, threads // 2))
    if threads > 1 and window.engine_seconds / max(window.steps, 1) < SHORT_STEP_SECONDS:
        return max(1, threads // 2)
    return threads


def _judge(plan: Plan, baseline: Window, window: Window) -> Plan:
    """Keeps or ends a trial."""
    before, after = baseline.tokens / baseline.steps, window.tokens / window.steps
    if max(before, after) > COMPARABLE * min(before, after):
        return Plan(plan.fallback, plan.maximum, wait=FIRST_WAIT, backoff=plan.backoff)
    if window.speed > GAIN * baseline.speed:
        return Plan(plan.threads, plan.maximum)
    backoff = min(2 * plan.backoff, LONGEST_WAIT)
    return Plan(plan.fallback, plan.maximum, wait=backoff, backoff=backoff)


class Governor:
    """Measures steps, and says when the number of threads should change."""

    def __init__(self, threads: int, cpu_clock: Callable[[], float] = time.process_time) -> None:
        self._plan = Plan(threads, threads)
        self._clock = cpu_clock
        self._start(cpu_clock())

    @property
    def threads(self) -> int:
        """The present number."""
        return self._plan.threads

    def record(self, tokens: int, engine_seconds: float, other_seconds: float) -> int | None:
        """Notes one step (`other_seconds` of it outside the engine); returns a new number of threads, if it changes."""
        self._steps += 1
        self._tokens += tokens
        self._seconds += engine_seconds
        self._other += other_seconds
        if self._seconds < WINDOW_SECONDS or self._steps < WINDOW_STEPS:
            return None
        now = self._clock()
        cpu = max(0.0, now - self._cpu - self._other)
        before = self._plan.threads
        self._plan = decide(self._plan, Window(self._steps, self._tokens, self._seconds, cpu))
        self._start(now)
        return self._plan.threads if self._plan.threads != before else None

    def _start(self, cpu: float) -> None:
        self._steps = self._tokens = 0
        self._seconds = self._other = 0.0
        self._cpu = cpu
