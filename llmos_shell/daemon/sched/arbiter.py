"""Which of the models on one device may compute: all at once, or one at a time for a quantum. Pure; clocked by callers.

Workers that share cores (or a GPU) may get more done in turns than side by side, or less: it depends on caches, memory
bandwidth and threads. So while several want to run, windows of both kinds are measured alternately, and the faster
kind is used until the next measurement. Turns go to the model with the least time so far, divided by the weights of
the processes in it; one with a foreground wakeup has its turn at once.
"""

from __future__ import annotations

import math

from msgspec import Struct

QUANTUM = 0.5
"""Seconds of a turn: many steps, yet short beside what people notice."""

WINDOW = 4.0
"""Seconds of one measurement: several turns of everybody."""

ROUNDS = 2
"""Windows of each kind, in turns, that are compared."""

KEEP_SECONDS = 120.0
"""How long a decision holds, unless other models begin or end to compete."""

GAIN = 1.05
"""Turns must compute so many times what running free does: they cost latency."""


class Contender(Struct):
    """One model that shares the device."""

    weight: float = 0.0  # of its processes that want to run; 0: it does not want the device
    urgent: bool = False  # one of them woke in the foreground
    used: float = 0.0  # virtual seconds
    arrived: int = 0


class Arbiter:
    """The turns of one device."""

    def __init__(self, setting: str = "auto", window: float = WINDOW) -> None:
        """`window` is in seconds."""
        self.setting = setting
        self._window = window
        self.quantum = min(QUANTUM, window / 8)
        self.gang = False
        self.holder = ""
        self.rates: dict[bool, float | None] = {False: None, True: None}  # tokens per second, by whether in turns
        self._models: dict[str, Contender] = {}
        self._turn_ends = 0.0
        self._windows: list[bool] = []  # still to be measured; the first one is being measured
        self._window_began = 0.0
        self._tokens = 0
        self._sums: dict[bool, tuple[float, int]] = {}
        self._decided = -math.inf
        self._competing: frozenset[str] = frozenset()
        self._arrivals = 0

    # -- what happens ------------------------------------------------------------------------------------------------

    def wants(self, model: str, weight: float, urgent: bool = False) -> bool:
        """What a model's processes want; weight 0: nothing. Returns whether `decide` should be asked at once."""
        one = self._models.setdefault(model, Contender())
        news = bool(weight) != bool(one.weight) or (urgent and not one.urgent)
        if weight and not one.weight:
            self._arrivals += 1
            one.arrived = self._arrivals
            others = [other.used for name, other in self._models.items() if other.weight and name != model]
            one.used = max(one.used, min(others, default=one.used))
        one.weight, one.urgent = weight, urgent
        return news

    def remove(self, model: str) -> None:
        """A model was unloaded."""
        self._models.pop(model, None)

    def charge(self, model: str, seconds: float, tokens: int) -> None:
        """A model computed."""
        one = self._models.get(model)
        if one is not None:
            one.used += seconds / max(one.weight, 1e-9)
        self._tokens += tokens

    # -- decisions ---------------------------------------------------------------------------------------------------

    def decide(self, now: float) -> float:
        """Decides who may compute from now on (`allowed`); returns the instant at which to ask again."""
        competing = frozenset(name for name, one in self._models.items() if one.weight)
        if len(competing) < 2:
            self.gang, self.holder = False, ""
            self._windows, self._competing = [], competing if competing else self._competing
            return math.inf
        if self.setting != "auto":
            self._windows, self.gang = [], self.setting == "on"
        else:
            self._measure(competing, now)
        if not self.gang:
            self.holder = ""
            return self._next_look(now)
        self._choose_holder(competing, now)
        return min(self._turn_ends, self._next_look(now))

    def allowed(self, model: str) -> bool:
        """Whether a model may compute now."""
        return not self.gang or not self.holder or model == self.holder

    @property
    def measuring(self) -> bool:
        """Whether both kinds are being compared."""
        return bool(self._windows)

    @property
    def competing(self) -> tuple[str, ...]:
        """The models that want the device."""
        return tuple(sorted(name for name, one in self._models.items() if one.weight))

    # -- private -----------------------------------------------------------------------------------------------------

    def _choose_holder(self, competing: frozenset[str], now: float) -> None:
        urgent = sorted(name for name in competing if self._models[name].urgent)
        if self.holder in competing and now < self._turn_ends and (not urgent or self.holder in urgent):
            return
        among = urgent or sorted(competing)
        self.holder = min(among, key=lambda name: (self._models[name].used, self._models[name].arrived))
        self._turn_ends = now + self.quantum

    def _measure(self, competing: frozenset[str], now: float) -> None:
        """Begins, carries on or ends a comparison."""
        if competing != self._competing and not competing <= self._competing:
            self._decided = -math.inf
            self._windows = []
        self._competing = self._competing | competing if competing <= self._competing else competing
        if self._windows:
            if now - self._window_began >= self._window:
                self._end_window(now)
        elif now - self._decided >= KEEP_SECONDS:
            self._windows = [False, True] * ROUNDS
            self._sums = {}
            self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._window_began, self._tokens = now, 0
        self.gang = self._windows[0]
        self._turn_ends = now

    def _end_window(self, now: float) -> None:
        kind = self._windows.pop(0)
        seconds, tokens = self._sums.get(kind, (0.0, 0))
        self._sums[kind] = (seconds + now - self._window_began, tokens + self._tokens)
        if self._windows:
            self._begin_window(now)
            return
        self.rates = {kind: tokens / seconds for kind, (seconds, tokens) in self._sums.items()}
        free, turns = self.rates[False] or 0.0, self.rates[True] or 0.0
        self.gang, self._decided = turns > GAIN * free, now

    def _next_look(self, now: float) -> float:
        if self.setting != "auto":
            return math.inf
        return self._window_began + self._window if self._windows else self._decided + KEEP_SECONDS
