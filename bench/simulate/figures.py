"""What a simulation showed, in 24 bytes per request: quantiles of waiting, slowdowns, and fairness among groups."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from machine import Outcome, Speed, alone, simulate
from workload import Request

COLUMNS = (
    "policy", "tokens/s", "TTFT p50", "p95", "p99", "foreground TTFT p50", "p95", "p99", "slowdown mean", "p95",
    "fairness", "preemptions", "simulated in",
)  # fmt: skip

POINTS = 1000
"""Of a distribution that is drawn."""


class Figures:
    """Sums over outcomes."""

    def __init__(self, speed: Speed) -> None:
        self._speed = speed
        self._tokens = 0
        self._first, self._foreground, self._slowdown = array("d"), array("d"), array("d")
        self._groups: dict[str, tuple[int, float]] = {}

    def note(self, outcome: Outcome) -> None:
        """One request has ended."""
        request, first, total = outcome
        slowdown = total / alone(request, self._speed)
        self._tokens += request.output
        self._first.append(first)
        self._slowdown.append(slowdown)
        if request.foreground:
            self._foreground.append(first)
        count, total_slowdown = self._groups.get(request.group, (0, 0.0))
        self._groups[request.group] = (count + 1, total_slowdown + slowdown)

    def cells(self, seconds: float) -> list[str]:
        """From tokens/s to fairness; `seconds` is what it all took."""
        slowdown = sorted(self._slowdown)
        mean, high = (
            (f"{sum(slowdown) / len(slowdown):.1f}", f"{_quantile(slowdown, 0.95):.1f}") if slowdown else ("-", "-")
        )
        return [
            f"{self._tokens / seconds:.0f}" if seconds else "-",
            *_quantiles(self._first), *_quantiles(self._foreground), mean, high, self._fairness(),
        ]  # fmt: skip

    def distribution(self) -> list[float]:
        """Seconds to the first token, sorted and thinned: the foreground's where there is one."""
        ordered = sorted(self._foreground or self._first)
        return [ordered[n * len(ordered) // POINTS] for n in range(POINTS)] if len(ordered) > POINTS else ordered

    def _fairness(self) -> str:
        """Jain's index of the groups' mean slowdowns: 1 when all are slowed down alike."""
        means = [total / count for count, total in self._groups.values()]
        if len(means) < 2:
            return "-"
        return f"{sum(means) ** 2 / (len(means) * sum(mean * mean for mean in means)):.3f}"


class Result(NamedTuple):
    """A row of the table, and what is drawn."""

    row: list[str]
    distribution: list[float]


def run(requests: Iterable[Request], policy: str, speed: Speed) -> Result:
    """Simulates one workload under one policy."""
    begun, figures = time.perf_counter(), Figures(speed)
    seconds, preemptions = simulate(requests, policy, speed, figures.note)
    took = time.perf_counter() - begun
    return Result([policy, *figures.cells(seconds), str(preemptions), f"{took:.1f} s"], figures.distribution())


def _quantiles(values: Sequence[float]) -> list[str]:
    ordered = sorted(values)
    return [f"{_quantile(ordered, q):.3g} s" if ordered else "-" for q in (0.5, 0.95, 0.99)]


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
