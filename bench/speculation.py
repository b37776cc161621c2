"""Guesses by a draft model and from the context, beside none, and beside llama-server's engine with the same draft.

The model has 24 layers, of which those after the first add little: the draft is its first layer, with its embeddings.
How little decides how often the draft is right, from always to never. Prompts are random, decoding is greedy, and all
sides take turns. Tokens/s are over the whole time, the prompt of 16 tokens included.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path

from ours import Llmos
from peer import LlamaServer

from llmos_shell.testing.random_gguf import Shape, write_random_model

SHAPE = Shape(embedding=768, layers=24, heads=12, kv_heads=12, feed_forward=2048, vocabulary=8192, context=2048)
DAMPINGS = (0.0, 0.01, 1.0)
COUNTS = (1, 4)
CONTEXT = 1024
SLOTS = 4
PROMPT_TOKENS = 16
NEW_TOKENS = 128
PAUSE_SECONDS = 0.1


def measure(folder: Path, threads: int, rounds: int) -> list[str]:
    """Measures everything; returns the lines of Markdown tables."""
    lines = [
        "| draft is right | N | plain tok/s | with the draft | gain | guesses right | from the context | gain"
        " | llama-server | with the draft | gain |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for damping in DAMPINGS:
        model, draft = folder / "model.gguf", folder / "draft.gguf"
        write_random_model(model, SHAPE, seed=1, quantisation="q8_0", damping=damping)
        write_random_model(draft, SHAPE, seed=1, quantisation="q8_0", damping=damping, kept=1)
        name = {0.0: "always", 1.0: "never"}.get(damping, "mostly")
        lines += _rows(name, model, draft, threads, rounds)
    return [*lines, "", f"Gains are over the same side without guesses. {NEW_TOKENS} tokens were generated each."]


def _rows(name: str, model: Path, draft: Path, threads: int, rounds: int) -> list[str]:
    peers = {
        kind: LlamaServer(model, slots=SLOTS, unified=False, threads=threads, context=CONTEXT, draft=one)
        for kind, one in (("peer", None), ("peer with a draft", draft))
    }
    variants = {"drafted": f'draft = "{draft}"', "context": "options = { speculation = true }"}
    lines = []
    with Llmos(model, slots=SLOTS, threads=threads, context=CONTEXT, layout="split", variants=variants) as ours:
        for count in COUNTS:
            rates: dict[str, list[float]] = {side: [] for side in ("bench", *variants, *peers)}
            for turn in range(rounds + 1):
                prompts = _prompts(count, turn)
                for side in rates:
                    time.sleep(PAUSE_SECONDS)
                    if side in peers:
                        seconds = peers[side].generate(prompts, NEW_TOKENS)
                    else:
                        seconds = ours.generate(prompts, NEW_TOKENS, side)
                    if turn:  # the first round warms up
                        rates[side].append(count * NEW_TOKENS / seconds)
            worker = ours.worker("drafted")
            lines.append(_row(name, count, rates, worker.right_tokens / max(1, worker.guessed_tokens)))
    for peer in peers.values():
        peer.close()
    return lines


def _row(name: str, count: int, rates: dict[str, list[float]], right: float) -> str:
    plain, drafted, context, peer, peer_drafted = (statistics.median(values) for values in rates.values())
    return (
        f"| {name} | {count} | {plain:.0f} | {drafted:.0f} | {drafted / plain:.2f} | {right:.0%} | {context:.0f}"
        f" | {context / plain:.2f} | {peer:.0f} | {peer_drafted:.0f} | {peer_drafted / peer:.2f} |"
    )


def _prompts(count: int, turn: int) -> list[str]:
    rng = random.Random(turn)
    return ["".join(chr(0x4E00 + rng.randrange(7000)) for _ in range(PROMPT_TOKENS)) for _ in range(count)]
