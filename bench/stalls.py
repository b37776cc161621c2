"""What a long prompt does to running streams: token intervals as their readers see them, beside llama-server's engine.

`STREAMS` streams run; after a quiet while a prompt of `PROMPT_TOKENS` tokens arrives. A reader notes when text comes;
an interval is the time between two pieces of text, over the tokens in the second. Quiet intervals are those before the
prompt arrives, the others those until its first token. Both sides get the same model, slots, context and threads.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import statistics
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from ours import Llmos
from peer import LlamaServer
from throughput import random_prompt

from llmos_shell.abi import syscalls as sc
from llmos_shell.abi.errors import LlmosError
from llmos_shell.ipc.client import connect

STREAMS = 4
SLOTS = 8
CONTEXT = 6144
PROMPT_TOKENS = 4000
QUIET_SECONDS = 8.0


Intervals = tuple[list[float], list[float], float]
"""Quiet intervals, those beside the prompt, and after how long its first token came; seconds."""


class Reader(threading.Thread):
    """Reads one stream; `times` are the instants at which text came."""

    def __init__(self, read: Callable[[Callable[[], None]], None]) -> None:
        super().__init__(daemon=True)
        self.times: list[float] = []
        self._read = read
        self.start()

    def run(self) -> None:
        """Reads to the end, or until the other side closes."""
        with contextlib.suppress(OSError, EOFError, ValueError, http.client.HTTPException, LlmosError):
            self._read(lambda: self.times.append(time.perf_counter()))


def measure(model: Path, threads: int) -> list[str]:
    """Runs both; returns the lines of a Markdown table."""
    lines = [
        "| | quiet p50 ms | quiet p95 ms | beside the prompt p95 ms | over quiet | prompt's first token after s |",
        "|---|---|---|---|---|---|",
    ]
    for name, side in (("ours", _ours), ("llama-server split", _peer)):
        quiet, busy, first = side(model, threads)
        ratio = _p95(busy) / _p95(quiet)
        lines.append(
            f"| {name} | {1000 * statistics.median(quiet):.1f} | {1000 * _p95(quiet):.1f} | {1000 * _p95(busy):.1f} "
            f"| {ratio:.2f} | {first:.2f} |"
        )
    return lines


def _experiment(open_stream: Callable[[str], Reader], long_prompt: Callable[[str], float]) -> Intervals:
    rng = random.Random(2)
    readers = [open_stream(random_prompt(rng)) for _ in range(STREAMS)]
    while any(len(reader.times) < 20 for reader in readers):
        time.sleep(0.05)
    begun = time.perf_counter()
    time.sleep(QUIET_SECONDS)
    asked = time.perf_counter()
    first = long_prompt("".join(chr(0x4E00 + rng.randrange(8000)) for _ in range(PROMPT_TOKENS)))
    quiet = [gap for reader in readers for gap in _gaps(reader.times, begun, asked)]
    busy = [gap for reader in readers for gap in _gaps(reader.times, asked, asked + first)]
    return quiet, busy, first


def _gaps(times: list[float], start: float, end: float) -> list[float]:
    inside = [at for at in times if start <= at <= end]
    return [after - before for before, after in pairwise(inside)]


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


def _ours(model: Path, threads: int) -> Intervals:
    with Llmos(model, slots=SLOTS, threads=threads, context=CONTEXT) as ours:
        sampling = {"temperature": 0.0, "max_tokens": CONTEXT - 400, "ignore_eos": True}

        def follow(pid: int, note: Callable[[], None]) -> None:
            with connect("bench") as client:
                for item in client.stream(sc.PROC_FOLLOW, sc.Follow(pid)):
                    if item.text:
                        note()

        def open_stream(prompt: str) -> Reader:
            spawn = sc.Spawn(model="bench", prompt=prompt, sampling=sampling, private=True)
            pid = ours.client.call(sc.PROC_SPAWN, spawn).pid
            return Reader(lambda note: follow(pid, note))

        def long_prompt(prompt: str) -> float:
            start = time.perf_counter()
            spawn = sc.Spawn(model="bench", prompt=prompt, sampling={**sampling, "max_tokens": 1}, private=True)
            pid = ours.client.call(sc.PROC_SPAWN, spawn).pid
            ours.client.call(sc.PROC_WAIT, sc.Wait(pid))
            return time.perf_counter() - start

        return _experiment(open_stream, long_prompt)


def _peer(model: Path, threads: int) -> Intervals:
    peer = LlamaServer(model, slots=SLOTS, unified=False, threads=threads, context=CONTEXT)
    try:

        def open_stream(prompt: str) -> Reader:
            return Reader(lambda note: peer.stream(prompt, CONTEXT - 400, note))

        def long_prompt(prompt: str) -> float:
            return peer.generate([prompt], 1)

        return _experiment(open_stream, long_prompt)
    finally:
        peer.close()
