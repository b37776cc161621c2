"""Compares the policies far beyond this machine: the daemon's own scheduler in simulated time.

    python bench/simulate [--requests N] [--policy NAME …] [--load X] [--seed N] [--replay TRACE] [--svg FOLDER]

Prints a table for each workload; the same seed gives the same table. `--replay` takes a file of `schedtrace`.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path

from machine import Outcome, Speed, alone, capacity, simulate
from workload import Mix, draw, replay

from llmos_shell.daemon.policies import POLICIES

MIXES = {
    "Poisson arrivals, exponential lengths": Mix(),
    "bursty arrivals, exponential lengths": Mix(arrivals="bursty"),
    "Poisson arrivals, long-tailed lengths": Mix(lengths="longtail"),
}
COLUMNS = (
    "policy", "tokens/s", "TTFT p50", "p95", "p99", "foreground TTFT p50", "p95", "p99", "slowdown mean", "p95",
    "fairness", "preemptions", "simulated in",
)  # fmt: skip


def main() -> None:
    """Simulates and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--policy", action="append", choices=POLICIES)
    parser.add_argument("--load", type=float, default=0.8, help="of what the device can do with all slots in use")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slots", type=int, default=Speed().slots)
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--svg", type=Path, help="draw the times to the first token into this folder")
    options = parser.parse_args()
    lines = measure(
        options.requests, options.policy or list(POLICIES), options.load, options.seed, options.slots, options.replay,
        options.svg,
    )  # fmt: skip
    print("\n".join(lines))


def measure(
    count: int,
    policies: list[str],
    load: float = 0.8,
    seed: int = 1,
    slots: int = 32,
    trace: Path | None = None,
    svg: Path | None = None,
) -> list[str]:
    """Markdown lines."""
    speed, lines = Speed(slots=slots), list[str]()
    workloads = dict.fromkeys([f"replay of {trace.name}"], Mix()) if trace is not None else MIXES
    for title, mix in workloads.items():
        recorded = replay(trace) if trace is not None else None
        if recorded == []:
            sys.exit(f"{trace}: no process began and ended in it")
        rate = load * capacity(islice(draw(mix, 5000, 1.0, seed), 5000), speed)
        first: dict[str, list[float]] = {}
        lines += [f"**{title}**", "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        for policy in policies:
            begun = time.perf_counter()
            requests = recorded if recorded is not None else draw(mix, count, rate, seed)
            outcomes, seconds, preemptions = simulate(requests, policy, speed)
            took = time.perf_counter() - begun
            first[policy] = sorted(one.first for one in outcomes if one.request.foreground) or [0.0]
            lines.append(_row(policy, outcomes, seconds, preemptions, took, speed))
        lines.append("")
        if svg is not None:
            from plot import draw_distribution

            svg.mkdir(parents=True, exist_ok=True)
            draw_distribution(svg / f"{title.replace(' ', '-').replace(',', '')}.svg", title, first)
    return lines


def _row(policy: str, outcomes: list[Outcome], seconds: float, preemptions: int, took: float, speed: Speed) -> str:
    first = sorted(one.first for one in outcomes)
    foreground = sorted(one.first for one in outcomes if one.request.foreground) or [0.0]
    slowdown = sorted(one.total / alone(one.request, speed) for one in outcomes)
    tokens = sum(one.request.output for one in outcomes)
    cells = [
        policy, f"{tokens / seconds:.0f}",
        *(_seconds(_quantile(first, q)) for q in (0.5, 0.95, 0.99)),
        *(_seconds(_quantile(foreground, q)) for q in (0.5, 0.95, 0.99)),
        f"{sum(slowdown) / len(slowdown):.1f}", f"{_quantile(slowdown, 0.95):.1f}", f"{_fairness(outcomes, speed):.3f}",
        str(preemptions), f"{took:.1f} s",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _seconds(value: float) -> str:
    return f"{value:.3g} s"


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _fairness(outcomes: list[Outcome], speed: Speed) -> float:
    """Jain's index of the groups' mean slowdowns: 1 when all are slowed down alike."""
    groups: dict[str, list[float]] = {}
    for one in outcomes:
        groups.setdefault(one.request.group, []).append(one.total / alone(one.request, speed))
    means = [sum(values) / len(values) for values in groups.values()]
    return sum(means) ** 2 / (len(means) * sum(mean * mean for mean in means))


if __name__ == "__main__":
    main()
