"""Scheduling policies: who deserves to run. Pure decisions over `Entity` records; the scheduler owns those.

A policy of a third party is a zero-argument callable that returns a `Policy`; one that raises is replaced by `fair`.
Instants are seconds of one monotonic clock, `vruntime` and leads are virtual seconds: device seconds * 1024 / weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError

NICE_MIN, NICE_MAX = -20, 19
NICE_0_WEIGHT = 1024
NICE_STEP = 1.25
"""Linux's sched_prio_to_weight: one nice level is about 10 % of CPU time, a factor of 1.25 in weight."""

AGEING = 0.1
"""Virtual seconds of lead a process gains per second it waits: a debt of one virtual second is waited off in ten."""

LEAD = 0.25
"""Virtual seconds a waiting process must be ahead to preempt one that runs; keeps equals from alternating."""

MIN_RUN = 1.0
"""Seconds a process runs before it can be preempted by an equal: many times what parking and restoring costs."""


def weight_of(nice: int) -> float:
    """The share a nice value stands for, 1024 at 0. Raises EINVAL outside -20…19."""
    if not NICE_MIN <= nice <= NICE_MAX:
        raise LlmosError(Code.EINVAL, f"nice {nice} is out of range", hint=f"use {NICE_MIN} to {NICE_MAX}")
    return float(NICE_0_WEIGHT / NICE_STEP**nice)


class Entity(Struct, eq=False):
    """What the scheduler knows of one process."""

    pid: int
    nice: int = 0
    weight: float = float(NICE_0_WEIGHT)
    foreground: bool = False  # a person waits for its answer
    vruntime: float = 0.0  # virtual seconds
    arrived: int = 0  # counts wakeups of all processes: the order of arrival; kept when preempted
    enqueued: float = 0.0  # since when it waits; meaningless while it runs or sleeps
    started: float = 0.0  # when it entered the run set last
    last_ran: float = 0.0  # when it was charged or left the run set last
    burst: float = 0.0  # device seconds left of its foreground wakeup
    device_seconds: float = 0.0
    waited: float = 0.0  # seconds, stretches that are over
    preemptions: int = 0
    held: str = ""  # why it was not admitted when last looked at

    @property
    def urgent(self) -> bool:
        """Whether it woke in the foreground a moment ago and should answer at once."""
        return self.burst > 0.0 and self.foreground


class Policy(Protocol):
    """An order among processes, and a licence to preempt.

    `strict`: nobody may pass a process that does not fit for want of memory.
    """

    name: str
    strict: bool

    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        """The same entities, most deserving first. Called with those waiting, and with those running."""

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        """Whether `running` must leave because `waiting` has no room. Must not hold both ways at one time."""


@runtime_checkable
class KeyedPolicy(Protocol):
    """What a policy also has when its order among *waiting* entities does not depend on the time.

    The scheduler then keeps them in a heap instead of ranking all of them anew: O(log n) a decision.
    """

    def key(self, entity: Entity) -> Any:
        """Sorts like `rank`, least first; total (ties broken, by `arrived` say); changes only when the entity does."""


class Fair:
    """Least virtual runtime first, ageing included; foreground wakeups before all others.

    Waiting entities all age at the same rate, so `vruntime - AGEING * (now - enqueued)` orders them at any time as
    `vruntime + AGEING * enqueued` does.
    """

    name = "fair"
    strict = False

    def key(self, entity: Entity) -> tuple[bool, float, int]:
        """Urgent ones, then least aged virtual runtime, then arrival."""
        return (not entity.urgent, entity.vruntime + AGEING * entity.enqueued, entity.arrived)

    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        """Sorted by `key`."""
        return sorted(entities, key=self.key)

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        """A foreground wakeup preempts the background at once; else a lead and a minimum run are needed."""
        if waiting.urgent and not running.foreground:
            return True
        if now - running.started < MIN_RUN or (running.urgent and not waiting.urgent):
            return False
        return waiting.vruntime - AGEING * (now - waiting.enqueued) + LEAD < running.vruntime


class Fifo:
    """In order of arrival, each until it sleeps or ends."""

    name = "fifo"
    strict = True

    def key(self, entity: Entity) -> int:
        """Order of arrival."""
        return entity.arrived

    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        """Sorted by `key`."""
        return sorted(entities, key=self.key)

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        """Never."""
        return False


POLICIES: dict[str, Callable[[], Policy]] = {Fair.name: Fair, Fifo.name: Fifo}
"""Policies by name."""


def policy_named(name: str) -> Policy:
    """A fresh policy. Raises ENOENT for an unknown name."""
    if name not in POLICIES:
        raise LlmosError(Code.ENOENT, f"no scheduling policy {name!r}", hint=f"choose one of {', '.join(POLICIES)}")
    return POLICIES[name]()
