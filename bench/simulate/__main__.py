"""Compares the policies far beyond this machine: the daemon's own scheduler in simulated time.

    python bench/simulate [--requests N] [--policy NAME …] [--workload NAME …] [--load X] [--seed N] [--slots N]
                          [--replay TRACE] [--processes N] [--svg FOLDER]

Prints a table for each workload; the same seed gives the same table. `--replay` takes a CSV file with the columns
arrival, prompt and output (and group, nice, foreground, deadline where known), a trace of Azure's LLM inference, or a
file of `schedtrace`; with `--load` its arrivals are drawn together or apart to that load. A million requests take
some 3 minutes and 130 MiB per policy and workload; `--processes 2` simulates two at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from figures import COLUMNS, Result, run
from machine import Speed, busy
from recorded import TraceError, read
from workload import Mix, Request, draw

from llmos_shell.daemon.policies import POLICIES

LOAD = 0.8
SAMPLE = 5000
"""Requests that a mix's load is estimated from."""

MIXES = {
    "poisson": ("Poisson arrivals, exponential lengths", Mix()),
    "bursty": ("bursty arrivals, exponential lengths", Mix(arrivals="bursty")),
    "longtail": ("Poisson arrivals, long-tailed lengths", Mix(lengths="longtail")),
}


@dataclass(frozen=True)
class Workload:
    """Where requests come from: a mix to draw from, or a trace. Made anew for each policy, never kept as a whole."""

    title: str
    mix: Mix
    count: int = 0
    rate: float = 1.0
    seed: int = 1
    trace: Path | None = None
    stretch: float = 1.0  # of the trace's gaps

    def requests(self) -> Iterable[Request]:
        """All of them, in order of arrival."""
        if self.trace is None:
            return draw(self.mix, self.count, self.rate, self.seed)
        return (one._replace(arrival=one.arrival * self.stretch) for one in read(self.trace))


def main() -> None:
    """Simulates and prints."""
    options = _options()
    speed = Speed(slots=options.slots)
    try:
        workloads = [_recorded(options, speed)] if options.replay else list(_drawn(options, speed))
        for workload in workloads:
            results = _simulate(workload, options.policy or list(POLICIES), speed, options.processes)
            rows = [COLUMNS, ["---"] * len(COLUMNS), *(one.row for one in results)]
            print("\n".join([f"**{workload.title}**", "", *(f"| {' | '.join(row)} |" for row in rows), ""]), flush=True)
            if options.svg:
                _plot(options.svg, workload.title, results)
    except TraceError as error:
        sys.exit(f"simulate: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=_positive, default=20_000, help="how many to draw, 20,000 unless told")
    parser.add_argument("--policy", action="append", choices=POLICIES)
    parser.add_argument("--workload", action="append", choices=MIXES)
    parser.add_argument("--load", type=_share, help=f"of what all slots in use can do; {LOAD:g} unless told")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slots", type=_positive, default=Speed().slots)
    parser.add_argument("--replay", type=Path, metavar="TRACE")
    parser.add_argument("--processes", type=_positive, default=1, help="policies simulated at a time")
    parser.add_argument("--svg", type=Path, metavar="FOLDER", help="draw the times to the first token there")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _share(text: str) -> float:
    try:
        if 0 < float(text) <= 100:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, 100 at most")


def _drawn(options: argparse.Namespace, speed: Speed) -> Iterator[Workload]:
    for name in options.workload or MIXES:
        title, mix = MIXES[name]
        rate = (options.load or LOAD) * SAMPLE / busy(draw(mix, SAMPLE, 1.0, options.seed), speed)
        yield Workload(title, mix, options.requests, rate, options.seed)


def _recorded(options: argparse.Namespace, speed: Speed) -> Workload:
    """Reads the trace once, so that what is wrong with it is said before anything is simulated."""
    end = 0.0

    def seen() -> Iterator[Request]:
        nonlocal end
        for one in read(options.replay):
            end = one.arrival
            yield one

    seconds = busy(seen(), speed)
    if not seconds:
        raise TraceError(f"{options.replay}: there are no requests in it")
    stretch = seconds / options.load / end if options.load and end else 1.0
    return Workload(f"replay of {options.replay.name}", Mix(), trace=options.replay, stretch=stretch)


def _simulate(workload: Workload, policies: list[str], speed: Speed, processes: int) -> list[Result]:
    if processes == 1:
        return [_one(workload, policy, speed) for policy in policies]
    with ProcessPoolExecutor(min(processes, len(policies))) as pool:
        return list(pool.map(_one, [workload] * len(policies), policies, [speed] * len(policies)))


def _one(workload: Workload, policy: str, speed: Speed) -> Result:
    return run(workload.requests(), policy, speed)


def _plot(folder: Path, title: str, results: list[Result]) -> None:
    from plot import draw_distribution

    folder.mkdir(parents=True, exist_ok=True)
    name = title.replace(" ", "-").replace(",", "")
    draw_distribution(folder / f"{name}.svg", title, {one.row[0]: one.distribution for one in results})


if __name__ == "__main__":
    main()
