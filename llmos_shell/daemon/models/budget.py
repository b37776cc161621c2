"""Whose memory a model that is to be loaded may get: a pure decision over what is loaded.

A model nobody runs stays for as long as loading it again would take (then keeping it has cost as much as giving it up),
or its minimum if that is more. A busy, loading or pinned model is never given up. RAM and each GPU have budgets of
their own, and only who has some of a device that is short makes way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError

RAM = "ram"
"""The device that main memory is; the others are GPUs, by name."""

SHARE = 0.9
"""Share of the machine's memory that models may occupy."""

LEAST_SECONDS = 0.2
"""A model that fell idle stays at least so long: its next turn may be on its way."""

MOST_SECONDS = 30.0
"""… and at most so long, however slowly it loads, while another one waits."""

UNUSED_WEIGHT = 0.1
"""Priority of a model without processes, where nice 0 is 1."""


class Held(Struct, frozen=True):
    """What a loaded or loading model has of the budgets: bytes by device."""

    key: str
    bytes: dict[str, int]
    busy: bool = False  # or loading
    pinned: bool = False
    idle_seconds: float = 0.0
    load_seconds: float = 0.0
    weight: float = UNUSED_WEIGHT

    def worth(self, short: Mapping[str, int]) -> float:
        """What it would cost to cover a share of what devices are `short` of by giving it up.

        The more, the sooner it is likely to be used again.
        """
        share = sum(self.bytes.get(device, 0) / missing for device, missing in short.items())
        return self.load_seconds * self.weight / (max(1e-9, share) * (1.0 + self.idle_seconds))

    @property
    def lingers(self) -> float:
        """Seconds until it may be given up."""
        return min(MOST_SECONDS, max(LEAST_SECONDS, self.load_seconds)) - self.idle_seconds


class Verdict(Struct, frozen=True):
    """Who makes way now; with `wait`, nobody does yet. `blockers` are the busy ones that are waited for."""

    evict: tuple[str, ...] = ()
    wait: bool = False
    blockers: tuple[str, ...] = ()
    short: tuple[str, ...] = ()  # devices that have not enough as it is


def decide(needed: Mapping[str, int], budget: Mapping[str, int], held: Sequence[Held]) -> Verdict:
    """How `needed` bytes of each device come free; a device without a budget is not looked at.

    Raises ENOMEM with the numbers when they cannot, even if everybody finished.
    """
    short = _short(needed, budget, held)
    if not short:
        return Verdict()
    movable = sorted((one for one in held if not one.pinned), key=lambda one: one.worth(short))
    for device in short:
        if short[device] > sum(one.bytes.get(device, 0) for one in movable):
            raise _too_large(device, needed[device], budget[device], held)
    ready = [one for one in movable if not one.busy and one.lingers <= 0]
    lacking = _less(short, ready)
    if lacking:
        busy = (one for one in movable if one.busy and any(one.bytes.get(device) for device in lacking))
        return Verdict(wait=True, blockers=tuple(one.key for one in busy), short=tuple(short))
    chosen: list[Held] = []
    for one in ready:
        if any(one.bytes.get(device) for device in _less(short, chosen)):
            chosen.append(one)
    for one in list(chosen):  # one that came last may have made earlier ones unnecessary
        rest = [other for other in chosen if other is not one]
        if not _less(short, rest):
            chosen = rest
    return Verdict(tuple(one.key for one in chosen), short=tuple(short))


def _short(needed: Mapping[str, int], budget: Mapping[str, int], held: Sequence[Held]) -> dict[str, int]:
    """Bytes that are missing, of devices where some are."""
    missing = {
        device: size - budget[device] + sum(one.bytes.get(device, 0) for one in held)
        for device, size in needed.items()
        if size > 0 and device in budget
    }
    return {device: size for device, size in missing.items() if size > 0}


def _less(short: Mapping[str, int], gone: Sequence[Held]) -> dict[str, int]:
    """What is missing still without these."""
    left = {device: size - sum(one.bytes.get(device, 0) for one in gone) for device, size in short.items()}
    return {device: size for device, size in left.items() if size > 0}


def _too_large(device: str, needed: int, budget: int, held: Sequence[Held]) -> LlmosError:
    pinned = [one for one in held if one.pinned and one.bytes.get(device)]
    of = "" if device == RAM else f" of {device}"
    text = f"it needs about {_mib(needed)}{of}, there are {_mib(budget)} for models"
    if not pinned:
        raised = "raise LLMOS_MEMORY_BYTES, or choose" if device == RAM else "choose"
        return LlmosError(Code.ENOMEM, text, hint=f"{raised} a smaller model or context")
    names = ", ".join(one.key for one in pinned)
    text += f", of which pinned models have {_mib(sum(one.bytes[device] for one in pinned))}"
    return LlmosError(Code.ENOMEM, text, hint=f"unpin one of {names}")


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def budget_bytes(ram_total: int) -> int:
    """Memory that all models together may occupy; LLMOS_MEMORY_BYTES overrides the default."""
    override = os.environ.get("LLMOS_MEMORY_BYTES")
    return int(override) if override else int(ram_total * SHARE)
