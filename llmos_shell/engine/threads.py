"""How many compute threads are worth having just now.

llama.cpp's threads spin at barriers: on a busy machine two threads can be three times slower than one. So the governor
watches how much processor time the threads really get, tries another number when they get too little (or, for models
whose steps are so short that barriers dominate, anyway), and keeps it only if tokens per second went up. A trial that
failed is repeated after twice the time, so that it never flaps; a trial costs one short window. More threads are not
tried while the machine has no processors to spare.

`decide` is pure; `Governor` feeds it measurements.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

WINDOW_SECONDS = 0.25  # of engine time per measurement
WINDOW_STEPS = 2  # at least
CONTENDED_SHARE = 0.85  # threads that get less of their processors than this are disturbed
SHORT_STEP_SECONDS = 0.005  # below this fewer threads may be faster even on an idle machine
GAIN = 1.05  # a trial must be faster by this
COMPARABLE = 1.3  # tokens per step of two windows may differ by this factor
FIRST_WAIT = 4  # windows before a trial for which there is no sign but hope
LONGEST_WAIT = 256
LEAST_SPARE = 0.5  # of a processor per thread more
LONGEST_ALARM_WAIT = 64


class Window(Struct, frozen=True):
    """What was measured with one number of threads."""

    steps: int
    tokens: int
    engine_seconds: float
    cpu_seconds: float  # processor time of all threads, in `engine_seconds`
    spare: float | None = None  # processors of the machine that had nothing to do meanwhile; None: not known

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / max(self.engine_seconds, 1e-9)


class Plan(Struct, frozen=True):
    """State of the governor. Waits are counted in windows."""

    threads: int
    maximum: int
    wait: int = FIRST_WAIT  # until more threads, or fewer for short steps, may be tried
    backoff: int = FIRST_WAIT  # half the wait after such a trial failed
    alarm_wait: int = 1  # until fewer threads may be tried because these are disturbed
    alarm_backoff: int = 1
    alarmed: bool = False  # the present trial is of the latter kind
    fallback: int = 0  # during a trial: the number to go back to
    baseline: Window | None = None  # during a trial: what it has to beat


def default_threads() -> int:
    """Processors this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def idle_seconds() -> float | None:
    """Idle time of all processors of the machine since it was started (proc_stat(5)); None where nobody tells."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            fields = file.readline().split()
        return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def decide(plan: Plan, window: Window) -> Plan:
    """The plan after a window that was measured with `plan.threads`."""
    if plan.baseline is not None:
        return _judge(plan, plan.baseline, window)
    plan = replace(plan, wait=max(0, plan.wait - 1), alarm_wait=max(0, plan.alarm_wait - 1))
    share = window.cpu_seconds / max(window.engine_seconds * plan.threads, 1e-9)
    alarmed = plan.threads > 1 and share < CONTENDED_SHARE and not plan.alarm_wait
    if alarmed:
        candidate = max(1, min(plan.threads - 1, round(share * plan.threads)))
    elif not plan.wait:
        candidate = _hopeful(plan, window)
    else:
        return plan
    if candidate == plan.threads:
        return plan
    return replace(plan, threads=candidate, fallback=plan.threads, baseline=window, alarmed=alarmed)


def _hopeful(plan: Plan, window: Window) -> int:
    """The number worth trying without an alarm; the present one if none is."""
    threads = plan.threads
    if threads < plan.maximum:
        more = min(plan.maximum - threads, max(1, threads // 2))
        return threads if window.spare is not None and window.spare < LEAST_SPARE * more else threads + more
    if window.engine_seconds / max(window.steps, 1) < SHORT_STEP_SECONDS:
        return max(1, threads // 2)
    return threads


def _judge(plan: Plan, baseline: Window, window: Window) -> Plan:
    """Keeps or ends a trial."""
    before, after = baseline.tokens / max(baseline.steps, 1), window.tokens / max(window.steps, 1)
    if max(before, after) > COMPARABLE * min(before, after):
        return replace(plan, threads=plan.fallback, baseline=None, wait=FIRST_WAIT, alarm_wait=FIRST_WAIT)
    if window.speed > GAIN * baseline.speed:
        return Plan(plan.threads, plan.maximum)
    ended = replace(plan, threads=plan.fallback, baseline=None)
    if plan.alarmed:
        wait = min(2 * plan.alarm_backoff, LONGEST_ALARM_WAIT)
        return replace(ended, alarm_wait=wait, alarm_backoff=wait)
    wait = min(2 * plan.backoff, LONGEST_WAIT)
    return replace(ended, wait=wait, backoff=wait)


class Governor:
    """Measures steps and says how many threads the next one should have.

    Steps of different sizes have different best numbers (one row is bound by barriers, a prompt by arithmetic), so each
    size class has a plan and windows of its own.
    """

    def __init__(
        self,
        threads: int,
        cpu_clock: Callable[[], float] = time.process_time,
        idle_clock: Callable[[], float | None] | None = None,
    ) -> None:
        """`idle_clock` tells the idle time of all processors of the machine together, in seconds."""
        self._maximum = threads
        self._clock = cpu_clock
        self._idle_clock = idle_clock or idle_seconds
        self._cpu = cpu_clock()
        self._meters: dict[int, _Meter] = {}
        self.threads = threads
        """The number last given out."""

    def threads_for(self, tokens: int) -> int:
        """How many threads a step of so many tokens should have."""
        self.threads = self._meter(tokens).plan.threads
        return self.threads

    def record(self, tokens: int, engine_seconds: float, other_seconds: float) -> None:
        """Notes one step; `other_seconds` of it, all on one thread, were spent outside the engine."""
        now = self._clock()
        cpu = max(0.0, now - self._cpu - other_seconds)
        self._cpu = now
        self._meter(tokens).record(tokens, engine_seconds, cpu)

    def _meter(self, tokens: int) -> _Meter:
        size = tokens.bit_length() // 2
        meter = self._meters.get(size)
        if meter is None:
            meter = self._meters[size] = _Meter(Plan(self._maximum, self._maximum), self._idle_clock)
        return meter


class _Meter:
    """The plan and the present window of one size class."""

    def __init__(self, plan: Plan, idle_clock: Callable[[], float | None]) -> None:
        self.plan = plan
        self._idle_clock = idle_clock
        self._clear()

    def record(self, tokens: int, engine_seconds: float, cpu_seconds: float) -> None:
        self._steps += 1
        self._tokens += tokens
        self._seconds += engine_seconds
        self._cpu += cpu_seconds
        if self._seconds >= WINDOW_SECONDS and self._steps >= WINDOW_STEPS:
            window = Window(self._steps, self._tokens, self._seconds, self._cpu, self._spare())
            self.plan = decide(self.plan, window)
            self._clear()

    def _spare(self) -> float | None:
        """Unknown where much of the time was not spent in steps of this size."""
        idle, wall = self._idle_clock(), time.monotonic() - self._begun
        if idle is None or self._idle is None or not 0.0 < wall < 2 * self._seconds:
            return None
        return (idle - self._idle) / wall

    def _clear(self) -> None:
        self._steps = self._tokens = 0
        self._seconds = self._cpu = 0.0
        self._idle, self._begun = self._idle_clock(), time.monotonic()
