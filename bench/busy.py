"""What somebody who types feels on a busy machine, beside llama-server's engine.

`interactive`: `JOBS` background jobs on `SLOTS` slots; meanwhile short prompts arrive one after another. The time to
first token is from asking to the first text. Where the first prompt waits for most of the jobs, it is the only one.

`beside_a_hog`: throughput of `HOG_STREAMS` prompts while another process keeps one processor busy.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ours import Llmos
from peer import LlamaServer
from throughput import random_prompt

from llmos_shell.abi import syscalls as sc
from llmos_shell.ipc.client import connect

JOBS = 64
SLOTS = 8
CONTEXT = 1024
JOB_TOKENS = 512
PROMPTS = 20
HOG_STREAMS = 8
HOG_TOKENS = 64


def interactive(model: Path, threads: int) -> list[str]:
    """Runs both; returns the lines of a Markdown table."""
    figures = {"ours": _ours(model, threads), "llama-server split": _peer(model, threads)}
    lines = ["| | quiet p50 s | busy p50 s | busy p95 s | prompts |", "|---|---|---|---|---|"]
    for name, (quiet, busy) in figures.items():
        seconds = f"{statistics.median(quiet):.3f} | {statistics.median(busy):.3f} | {_p95(busy):.3f}"
        lines.append(f"| {name} | {seconds} | {len(busy)} |")
    ratio = _p95(figures["llama-server split"][1]) / _p95(figures["ours"][1])
    return [*lines, "", f"llama-server's p95 over ours: {ratio:.0f}."]


def beside_a_hog(model: Path, threads: int, rounds: int) -> list[str]:
    """Runs both in turn; returns the lines of a Markdown table."""
    rng = random.Random(1)
    peer = LlamaServer(model, slots=SLOTS, unified=False, threads=threads, context=CONTEXT)
    rates: dict[str, list[float]] = {"ours": [], "llama-server": []}
    with Llmos(model, slots=SLOTS, threads=threads, context=CONTEXT) as ours, hog():
        sides = {"ours": ours, "llama-server": peer}
        for turn in range(rounds + 1):
            for name, side in sides.items():
                seconds = side.generate([random_prompt(rng) for _ in range(HOG_STREAMS)], HOG_TOKENS)
                if turn:
                    rates[name].append(HOG_STREAMS * HOG_TOKENS / seconds)
    peer.close()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return [
        "| ours tok/s | llama-server split | ours over it |",
        "|---|---|---|",
        f"| {medians['ours']:.0f} | {medians['llama-server']:.0f} | {medians['ours'] / medians['llama-server']:.2f} |",
    ]


def _ours(model: Path, threads: int) -> tuple[list[float], list[float]]:
    with Llmos(model, slots=SLOTS, threads=threads, context=CONTEXT) as ours, connect("bench typist") as typist:

        def ask(prompt: str) -> float:
            start = time.perf_counter()
            sampling = {"temperature": 0.0, "max_tokens": 8, "ignore_eos": True}
            spawn = sc.Spawn(model="bench", prompt=prompt, sampling=sampling, foreground=True)
            pid = typist.call(sc.PROC_SPAWN, spawn).pid
            first = 0.0
            for item in typist.stream(sc.PROC_FOLLOW, sc.Follow(pid, foreground=True)):
                if item.text and not first:
                    first = time.perf_counter() - start
            return first

        def start_jobs(prompts: list[str]) -> None:
            sampling = {"temperature": 0.0, "max_tokens": JOB_TOKENS, "ignore_eos": True}
            for prompt in prompts:
                spawn = sc.Spawn(model="bench", prompt=prompt, sampling=sampling, detached=True, private=True)
                ours.client.call(sc.PROC_SPAWN, spawn)

        return _experiment(ask, start_jobs)


def _peer(model: Path, threads: int) -> tuple[list[float], list[float]]:
    peer = LlamaServer(model, slots=SLOTS, unified=False, threads=threads, context=CONTEXT)
    try:

        def ask(prompt: str) -> float:
            times: list[float] = []
            start = time.perf_counter()
            peer.stream(prompt, 8, lambda: times.append(time.perf_counter()))
            return times[0] - start

        def start_jobs(prompts: list[str]) -> None:
            def job(prompt: str) -> None:
                with contextlib.suppress(OSError):
                    peer.stream(prompt, JOB_TOKENS, lambda: None)

            for prompt in prompts:
                threading.Thread(target=job, args=(prompt,), daemon=True).start()

        return _experiment(ask, start_jobs)
    finally:
        peer.close()


def _experiment(
    ask: Callable[[str], float], start_jobs: Callable[[list[str]], None]
) -> tuple[list[float], list[float]]:
    """Times to first token: quiet, and while the jobs run; as many prompts as there is work to run beside."""
    rng = random.Random(3)
    ask(random_prompt(rng)[:16])
    quiet = [ask(random_prompt(rng)[:16]) for _ in range(5)]
    start_jobs([random_prompt(rng) for _ in range(JOBS)])
    time.sleep(1.0)
    deadline = time.perf_counter() + 90
    busy: list[float] = []
    while len(busy) < PROMPTS and time.perf_counter() < deadline:
        busy.append(ask(random_prompt(rng)[:16]))
        if len(busy) == 1 and busy[0] > 10:
            break  # the queue is as long as that: later ones find it shorter
    return quiet, busy


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


@contextlib.contextmanager
def hog() -> Iterator[None]:
    """A process that keeps one processor busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
