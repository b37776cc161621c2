"""Whose memory a model that is to be loaded may get: a pure decision over what is loaded.

A model nobody runs stays for as long as loading it again would take (then keeping it has cost as much as giving it up),
or its minimum if that is more. A busy, loading or pinned model is never given up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError

SHARE = 0.9
"""Share of the machine's memory that models may occupy."""

LEAST_SECONDS = 0.2
"""A model that fell idle stays at least so long: its next turn may be on its way."""

MOST_SECONDS = 30.0
"""… and at most so long, however slowly it loads, while another one waits."""

UNUSED_WEIGHT = 0.1
"""Priority of a model without processes, where nice 0 is 1."""


class Held(Struct, frozen=True):
    """What a loaded or loading model has of the budget."""

    key: str
    bytes: int
    busy: bool = False  # or loading
    pinned: bool = False
    idle_seconds: float = 0.0
    load_seconds: float = 0.0
    weight: float = UNUSED_WEIGHT

    @property
    def worth(self) -> float:
        """What giving up one of its bytes would cost: the more, the sooner it is likely to be used again."""
        return self.load_seconds * self.weight / (max(1, self.bytes) * (1.0 + self.idle_seconds))

    @property
    def lingers(self) -> float:
        """Seconds until it may be given up."""
        return min(MOST_SECONDS, max(LEAST_SECONDS, self.load_seconds)) - self.idle_seconds


class Verdict(Struct, frozen=True):
    """Who makes way now; with `wait`, nobody does yet. `blockers` are the busy ones that are waited for."""

    evict: tuple[str, ...] = ()
    wait: bool = False
    blockers: tuple[str, ...] = ()


def decide(needed: int, budget: int, held: Sequence[Held]) -> Verdict:
    """How `needed` bytes come free. Raises ENOMEM with the numbers when they cannot, even if everybody finished."""
    free = budget - sum(one.bytes for one in held)
    if needed <= free:
        return Verdict()
    movable = sorted((one for one in held if not one.pinned), key=lambda one: one.worth)
    if needed > free + sum(one.bytes for one in movable):
        raise _too_large(needed, budget, held)
    ready = [one for one in movable if not one.busy and one.lingers <= 0]
    if needed > free + sum(one.bytes for one in ready):
        return Verdict(wait=True, blockers=tuple(one.key for one in movable if one.busy))
    chosen: list[Held] = []
    for one in ready:
        chosen.append(one)
        free += one.bytes
        if free >= needed:
            break
    for one in list(chosen):  # a large one that came last may have made earlier ones unnecessary
        if free - one.bytes >= needed:
            chosen.remove(one)
            free -= one.bytes
    return Verdict(tuple(one.key for one in chosen))


def _too_large(needed: int, budget: int, held: Sequence[Held]) -> LlmosError:
    pinned = [one for one in held if one.pinned]
    text = f"it needs about {_mib(needed)}, there are {_mib(budget)} for models"
    if not pinned:
        return LlmosError(Code.ENOMEM, text, hint="raise LLMOS_MEMORY_BYTES, or choose a smaller model or context")
    names = ", ".join(one.key for one in pinned)
    text += f", of which pinned models have {_mib(sum(one.bytes for one in pinned))}"
    return LlmosError(Code.ENOMEM, text, hint=f"unpin one of {names}")


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def budget_bytes(ram_total: int) -> int:
    """Memory that all models together may occupy; LLMOS_MEMORY_BYTES overrides the default."""
    override = os.environ.get("LLMOS_MEMORY_BYTES")
    return int(override) if override else int(ram_total * SHARE)
