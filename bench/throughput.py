"""Aggregate tokens/s at N = 1, 8, 32, 64 beside llama-server's engine, and the step loop's own overhead, in one run.

Every figure is the median of alternating rounds (ours, split peer, unified peer, ours, …), eight times as many for a
lone sequence as for several, on a model with random weights that this benchmark makes itself. A run's tokens/s are the
generated tokens over the whole time, prefill included. Both sides get the same prompts, slots, context and number of
threads.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path

from ours import Llmos
from peer import LlamaServer

CONTEXT = 512
SLOTS = 64
PROMPT_TOKENS = 256
NEW_TOKENS = 64
PAUSE_SECONDS = 0.1  # until the threads of whoever was measured before have stopped to spin at their last barrier
COUNTS = (1, 8, 32, 64)
TARGETS = {1: 1.0, 8: 1.3, 32: 1.5, 64: 1.5}


def measure(
    model: Path,
    threads: int,
    rounds: int,
    layouts: tuple[str, ...] = ("split", "unified"),
    counts: tuple[int, ...] = COUNTS,
) -> list[str]:
    """Runs everything, beside peers of these layouts; returns the lines of a Markdown table."""
    rng = random.Random(1)
    peers = {
        name: LlamaServer(model, slots=SLOTS, unified=name == "unified", threads=threads, context=CONTEXT)
        for name in layouts
    }
    names = "".join(f" llama-server {name} |" for name in layouts)
    lines = [
        f"| N | ours tok/s |{names} ours over the better peer | target |",
        f"|---|---|{'---|' * len(layouts)}---|---|",
    ]
    overhead = "not measured"
    with Llmos(model, slots=SLOTS, threads=threads, context=CONTEXT) as ours:
        sides = {"ours": ours, **peers}
        for count in counts:
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for turn in range(rounds * max(1, 8 // count) + 1):  # short runs vary more
                for name, side in sides.items():
                    prompts = [random_prompt(rng) for _ in range(count)]
                    time.sleep(PAUSE_SECONDS)
                    before = ours.worker()
                    seconds = side.generate(prompts, NEW_TOKENS)
                    if turn:  # the first round warms up
                        rates[name].append(count * NEW_TOKENS / seconds)
                    if name == "ours":
                        after = ours.worker()
                        step = after.step_seconds - before.step_seconds
                        engine = after.engine_seconds - before.engine_seconds
                        overhead = f"{100 * (1 - engine / step):.1f} %"
            medians = {name: statistics.median(values) for name, values in rates.items()}
            best = max(medians[name] for name in layouts)
            figures = "".join(f" {value:.0f} |" for value in medians.values())
            lines.append(f"| {count} |{figures} {medians['ours'] / best:.2f} | ≥ {TARGETS[count]} |")
    for peer in peers.values():
        peer.close()
    return [
        *lines,
        "",
        f"The step loop's own share of a step (everything but the engine's) at N = {counts[-1]}: {overhead}.",
        "",
        "Ours is llama.cpp as pip compiles it for this processor, with AVX-512 where there is any; the peer is compiled"
        " for AVX2, as its package comes.",
    ]


def random_prompt(rng: random.Random) -> str:
    """A text of `PROMPT_TOKENS` tokens in the benchmark model's vocabulary: one ideograph a token."""
    return "".join(chr(0x4E00 + rng.randrange(8000)) for _ in range(PROMPT_TOKENS))
