"""Aggregate tokens/s at N = 1, 8, 32 beside llama-server's engine, and the step loop's own overhead, in one run.

Every figure is the median of alternating rounds (ours, split peer, unified peer, ours, …) on a model with random
weights that this benchmark makes itself. A run's tokens/s are the generated tokens over the whole time, prefill
included. Both sides get the same prompts, slots, context and number of threads.
"""

from __future__ import annotations

import random
import statistics
from pathlib import Path

from ours import Llmos
from peer import LlamaServer

CONTEXT = 512
SLOTS = 32
PROMPT_TOKENS = 256
NEW_TOKENS = 64


def measure(model: Path, threads: int, rounds: int, counts: tuple[int, ...] = (1, 8, 32)) -> list[str]:
    """Runs everything; returns the lines of a Markdown table."""
    rng = random.Random(1)
    peers = {
        name: LlamaServer(model, slots=SLOTS, unified=name == "unified", threads=threads, context=CONTEXT)
        for name in ("split", "unified")
    }
    lines = [
        "| N | ours tok/s | llama-server split | llama-server unified | ours over the better peer |",
        "|---|---|---|---|---|",
    ]
    overhead = "not measured"
    with Llmos(model, slots=SLOTS, threads=threads, context=CONTEXT) as ours:
        sides = {"ours": ours, **peers}
        for count in counts:
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for turn in range(rounds + 1):
                for name, side in sides.items():
                    prompts = [random_prompt(rng) for _ in range(count)]
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
            best = max(medians["split"], medians["unified"])
            lines.append(
                f"| {count} | {medians['ours']:.0f} | {medians['split']:.0f} | {medians['unified']:.0f} "
                f"| {medians['ours'] / best:.2f} |"
            )
    for peer in peers.values():
        peer.close()
    lines += ["", f"The step loop's own share of a step (everything but the engine's) at N = {counts[-1]}: {overhead}."]
    return lines


def random_prompt(rng: random.Random) -> str:
    """A text of `PROMPT_TOKENS` tokens in the benchmark model's vocabulary: one ideograph a token."""
    return "".join(chr(0x4E00 + rng.randrange(8000)) for _ in range(PROMPT_TOKENS))
