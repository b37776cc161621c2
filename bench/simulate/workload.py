"""Requests to simulate, drawn from distributions with a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import NamedTuple


class Request(NamedTuple):
    """One request. Lengths are tokens, the arrival is in seconds."""

    arrival: float
    prompt: int
    output: int
    nice: int = 0
    group: str = ""
    foreground: bool = False
    deadline: float = math.inf  # seconds after its arrival


class Mix(NamedTuple):
    """What is drawn: interactive requests of many users, and batches of one heavy user."""

    arrivals: str = "poisson"  # or bursty
    lengths: str = "exponential"  # or longtail
    interactive: float = 0.5  # part of the requests
    users: int = 8


def draw(mix: Mix, count: int, rate: float, seed: int) -> Iterator[Request]:
    """So many requests, `rate` per second on the average."""
    chance = random.Random(seed)
    now, bursting = 0.0, False
    for _ in range(count):
        if mix.arrivals == "bursty":  # four times the rate for a fifth of the requests' gaps, else slower
            bursting = chance.random() < (0.95 if bursting else 0.0125)
            now += chance.expovariate(rate * (4.0 if bursting else 0.842))
        else:
            now += chance.expovariate(rate)
        interactive = chance.random() < mix.interactive
        prompt, output = (120, 60) if interactive else (600, 300)
        user = f"user{chance.randrange(mix.users)}" if interactive else "batch"
        yield Request(
            now,
            _length(chance, mix.lengths, prompt),
            _length(chance, mix.lengths, output),
            0 if interactive else chance.choice((0, 0, 5, 10)),
            user,
            interactive,
            10.0 if interactive else math.inf,
        )


def _length(chance: random.Random, kind: str, mean: float) -> int:
    if kind == "longtail":  # log-normal with sigma 1.3: the longest of a thousand is some thirty means
        return max(1, min(32768, round(chance.lognormvariate(math.log(mean) - 1.3**2 / 2, 1.3))))
    return max(1, round(chance.expovariate(1 / mean)))
