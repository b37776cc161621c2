"""What a policy is, and what it is told: `Entity` records, weights, and the two contracts. Pure.

A policy of a third party is a zero-argument callable that returns a `Policy`, registered in the entry-point group
`llmos.policies`; one that raises is replaced by `fair`. Instants are seconds of one monotonic clock; `vruntime` and
leads are virtual seconds: device seconds, divided by what the process's weight and its group's are beside the others'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError

NICE_MIN, NICE_MAX = -20, 19
NICE_0_WEIGHT = 1024
NICE_STEP = 1.25
"""Linux's sched_prio_to_weight: one nice level is about 10 % of CPU time, a factor of 1.25 in weight."""

MIN_RUN = 1.0
"""Seconds a process runs before it can be preempted by an equal: many times what parking and restoring costs."""


def weight_of(nice: int) -> float:
    """The share a nice value stands for, 1024 at 0. Raises EINVAL outside -20…19."""
    if not NICE_MIN <= nice <= NICE_MAX:
        raise LlmosError(Code.EINVAL, f"nice {nice} is out of range", hint=f"use {NICE_MIN} to {NICE_MAX}")
    return float(NICE_0_WEIGHT / NICE_STEP**nice)


class Share(Struct, eq=False):
    """Those of one group that want to run, and what the group has used."""

    weight: float = 1.0
    vruntime: float = 0.0  # device seconds by the group's weight
    count: int = 0
    load: float = 0.0  # sum of weights
    moment: float = 0.0  # sum of weight * vruntime


class Entity(Struct, eq=False):
    """What the scheduler knows of one process."""

    pid: int
    nice: int = 0
    weight: float = float(NICE_0_WEIGHT)
    group: str = ""
    foreground: bool = False  # a person waits for its answer
    deadline: float = math.inf  # the instant by which it should have ended
    missed: bool = False  # its deadline has passed
    vruntime: float = 0.0  # virtual seconds
    lag: float = 0.0  # virtual seconds it was behind its fair share when it fell asleep
    arrived: int = 0  # counts wakeups of all processes: the order of arrival; kept when preempted
    enqueued: float = 0.0  # since when it waits; 0 while it runs or sleeps
    started: float = 0.0  # when it entered the run set last
    last_wait: float = 0.0  # seconds it waited before it entered the run set last
    slice: float = 0.0  # device seconds since it entered the run set last
    burst: float = 0.0  # device seconds left of its foreground wakeup
    favoured: bool = False  # its deadline may give it precedence: the share set aside for that is not used up
    device_seconds: float = 0.0
    waited: float = 0.0  # seconds, stretches that are over
    preemptions: int = 0
    held: str = ""  # why it was not admitted when last looked at
    share: Share | None = None  # of its group, while it wants to run

    @property
    def urgent(self) -> bool:
        """Whether it woke in the foreground a moment ago and should answer at once."""
        return self.burst > 0.0 and self.foreground

    @property
    def hurried(self) -> bool:
        """Whether it has a deadline that can still be met, and may go before others for it."""
        return self.favoured and not self.missed and self.deadline < math.inf


class Parameter(Struct, frozen=True):
    """A number that a policy can be given; the attribute of the policy has the same name."""

    name: str
    default: float
    low: float
    high: float
    help: str


class Policy(Protocol):
    """An order among processes, and a licence to preempt.

    `strict`: nobody may pass a process that does not fit for want of memory. A policy may also have `parameters`, a
    tuple of `Parameter`, and `hastens`: whether deadlines give precedence (`Entity.favoured`).
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


@runtime_checkable
class GroupedPolicy(KeyedPolicy, Protocol):
    """What a policy has besides when `key` orders those of one group, and groups go by their use of the device."""

    def before_groups(self, entity: Entity) -> tuple[float, ...] | None:
        """The place of an entity that goes before all groups, least first; None for the others."""


class Keyed:
    """A policy whose order is that of its `key`."""

    strict = False
    hastens = False
    parameters: tuple[Parameter, ...] = ()

    def __init__(self) -> None:
        for parameter in self.parameters:
            setattr(self, parameter.name, parameter.default)

    def key(self, entity: Entity) -> Any:
        """As in `KeyedPolicy`."""
        raise NotImplementedError

    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        """Sorted by `key`."""
        return sorted(entities, key=self.key)
