"""Training of `tiny`: cross-entropy on the answers (and a little on the questions), AdamW, cosine schedule."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmos_shell.training.network import Network, Shape
from llmos_shell.training.noise import noisy
from llmos_shell.training.tokens import BOS, EOS, Tokenizer


@dataclass(frozen=True)
class Plan:
    """How to train. `noise` is the share of questions that get noise."""

    epochs: int = 2
    batch: int = 128
    peak: float = 3e-3
    decay: float = 0.1
    warmup: float = 0.05
    smoothing: float = 0.0
    question_weight: float = 0.1
    noise: float = 0.6
    seed: int = 7


def fit(
    tokenizer: Tokenizer, shape: Shape, pairs: Sequence[tuple[str, str]], plan: Plan, say: Callable[[str], None]
) -> Network:
    """A network trained on pairs of prompt and completion."""
    torch.manual_seed(plan.seed)
    rng = random.Random(plan.seed)
    network = Network(shape)
    optimiser = torch.optim.AdamW(_groups(network, plan.decay), lr=plan.peak, betas=(0.9, 0.98))
    steps, step, started = plan.epochs * math.ceil(len(pairs) / plan.batch), 0, time.monotonic()
    recent = 0.0
    for _ in range(plan.epochs):
        for ids, labels, weights in _batches(tokenizer, pairs, plan, rng):
            for group in optimiser.param_groups:
                group["lr"] = plan.peak * _schedule(step / steps, plan.warmup)
            loss = _loss(network, ids, labels, weights, plan.smoothing)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            recent, step = 0.98 * recent + 0.02 * loss.item(), step + 1
            if step % 100 == 0:
                say(f"step {step}/{steps} loss {recent:.4f} {time.monotonic() - started:.0f} s")
    return network.eval()


def _groups(network: Network, decay: float) -> list[dict[str, object]]:
    """Parameter groups: no weight decay on norms."""
    return [
        {"params": [p for p in network.parameters() if p.dim() == 2], "weight_decay": decay},
        {"params": [p for p in network.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]


def _schedule(done: float, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to 1 %."""
    if done < warmup:
        return done / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _loss(network: Network, ids: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Weighted mean cross-entropy; only positions with a weight are projected to the vocabulary."""
    states = network.hidden(ids)
    wanted = weights > 0
    logits = functional.linear(states[wanted], network.embedding.weight).float()
    each = functional.cross_entropy(logits, labels[wanted], reduction="none", label_smoothing=smoothing)
    chosen = weights[wanted]
    return (each * chosen).sum() / chosen.sum()


def _batches(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], plan: Plan, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of similar lengths in random order, with fresh noise: inputs, next tokens, weights of these."""
    rows: list[tuple[list[int], int]] = []
    for prompt, target in pairs:
        asked = noisy_prompt(prompt, rng) if rng.random() < plan.noise else prompt
        question = [BOS, *tokenizer.encode(asked)]
        rows.append(([*question, *tokenizer.encode(target), EOS], len(question)))
    rng.shuffle(rows)
    rows.sort(key=lambda row: len(row[0]) + rng.random() * 3)
    starts = list(range(0, len(rows), plan.batch))
    rng.shuffle(starts)
    for start in starts:
        yield _padded(rows[start : start + plan.batch], plan.question_weight)


def _padded(rows: Sequence[tuple[list[int], int]], question_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), EOS)
    weights = torch.zeros(len(rows), longest - 1)
    for row, (tokens, question) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : question - 1] = question_weight
        weights[row, question - 1 : len(tokens) - 1] = 1.0
    return ids[:, :-1], ids[:, 1:], weights


def noisy_prompt(prompt: str, rng: random.Random) -> str:
    """A prompt whose question got noise; the marks around it stay."""
    head, question, tail = prompt[:5], prompt[5:-4], prompt[-4:]
    return f"{head}{noisy(question, rng)}{tail}" if question else prompt
