"""The thread governor beside fixed numbers of threads, on an idle machine and beside a process that hogs a processor.

All sides take turns on one engine in this process: each decodes `STREAMS` sequences for a while, over and over. The
governor learns as it goes, in what is measured too, but for the first turn. The ratio is over the fixed number that was
best in that situation, which nobody can know beforehand.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from busy import hog
from llmos_kernel_llamacpp.engine import load

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Engine
from llmos_shell.abi.types import Sampling
from llmos_shell.engine.loop import Loop
from llmos_shell.engine.threads import Governor

CONTEXT = 2048
SLOTS = 8
STREAMS = (1, 8)
PROMPT_TOKENS = 16
TURN_SECONDS = 1.5


def measure(models: dict[str, Path], threads: int, rounds: int) -> list[str]:
    """Measures each of these models; returns the lines of a Markdown table."""
    fixed = sorted({1, max(1, threads // 2), threads})
    lines = [
        f"| model | beside a hog | N |{''.join(f' {number} threads tok/s |' for number in fixed)} governed"
        " | threads it chose | governed over the best |",
        f"|---|---|---|{'---|' * len(fixed)}---|---|---|",
    ]
    for name, path in models.items():
        engine = load(abi.Load(PROTOCOL, str(path), CONTEXT, slots=SLOTS, threads=threads))
        for disturbed in (False, True):
            with hog() if disturbed else contextlib.nullcontext():
                for streams in STREAMS:
                    rates, chosen = _rates(engine, fixed, threads, streams, rounds)
                    best = max(rates[number] for number in fixed)
                    figures = "".join(f" {rates[number]:.0f} |" for number in (*fixed, 0))
                    hogged = "yes" if disturbed else "no"
                    lines.append(
                        f"| {name} | {hogged} | {streams} |{figures} {chosen} | {rates[0] / best:.2f} |",
                    )
        engine.close()
    return lines


def _rates(engine: Engine, fixed: list[int], threads: int, streams: int, rounds: int) -> tuple[dict[int, float], str]:
    """Median tokens/s by fixed number, 0 standing for the governor; and what numbers that chose, by turn."""
    governor = Governor(threads)
    rates: dict[int, list[float]] = {number: [] for number in (*fixed, 0)}
    chosen: list[int] = []
    for turn in range(rounds + 1):
        for number in (*fixed, 0):
            if number:
                engine.set_threads(number)
            rate = _decode(engine, None if number else governor, streams)
            if turn:
                rates[number].append(rate)
                if not number:
                    chosen.append(governor.threads)
    return {number: statistics.median(values) for number, values in rates.items()}, ", ".join(map(str, chosen))


def _decode(engine: Engine, governor: Governor | None, streams: int) -> float:
    """Tokens per second of so many sequences."""
    loop = Loop(engine, governor)
    with _sequences(loop, streams):
        while loop.decoded_tokens < streams:
            loop.step()
        before, begun = loop.decoded_tokens, time.perf_counter()
        while loop.ready and time.perf_counter() - begun < TURN_SECONDS:
            loop.step()
        return (loop.decoded_tokens - before) / (time.perf_counter() - begun)


@contextlib.contextmanager
def _sequences(loop: Loop, streams: int) -> Iterator[None]:
    rng = random.Random(streams)
    for seq in range(streams):
        prompt = tuple(rng.randrange(300, 8000) for _ in range(PROMPT_TOKENS))
        sampling = Sampling(temperature=0.0, seed=seq, ignore_eos=True)
        loop.handle(abi.Open(seq, prompt, len(prompt), sampling))
    grants = tuple(abi.Grant(seq, CONTEXT - 1) for seq in range(streams))
    loop.handle(abi.Run(grants, PROMPT_TOKENS * streams))
    try:
        yield
    finally:
        for seq in range(streams):
            loop.handle(abi.Free(seq))
        loop.close()
