"""`fair`, the default: least virtual runtime first, foreground wakeups before all others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from llmos_shell.daemon.policies.base import MIN_RUN, Entity, Keyed, Parameter

AGEING = 0.001
"""Virtual seconds of lead a process gains per second it waits, over what it gains by others' running. It breaks ties
among many that wait; more would let the thousand jobs of one group, which wait for long, pass the one of another."""

LEAD = 0.25
"""Virtual seconds a waiting process must be ahead to preempt one that runs; keeps equals from alternating."""


class Fair(Keyed):
    """Least virtual runtime first, ageing included; foreground wakeups before all others.

    Waiting entities all age at the same rate, so `vruntime - ageing * (now - enqueued)` orders them at any time as
    `vruntime + ageing * enqueued` does.
    """

    name = "fair"
    parameters = (
        Parameter("ageing", AGEING, 0.0, 100.0, "lead gained per second of waiting, in virtual seconds"),
        Parameter("lead", LEAD, 0.0, 1000.0, "lead needed to preempt an equal, in virtual seconds"),
        Parameter("min_run", MIN_RUN, 0.0, 3600.0, "seconds a process runs before an equal may preempt it"),
    )
    ageing: float
    lead: float
    min_run: float

    def key(self, entity: Entity) -> Any:
        """Urgent ones, then least aged virtual runtime, then arrival."""
        return (not entity.urgent, entity.vruntime + self.ageing * entity.enqueued, entity.arrived)

    def before_groups(self, entity: Entity) -> tuple[float, ...] | None:
        """Urgent ones."""
        return (math.inf,) if entity.urgent else None

    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        """By group, then by `key`."""
        return sorted(
            entities, key=lambda one: (not one.urgent, one.share.vruntime if one.share else 0.0, self.key(one))
        )

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        """A foreground wakeup preempts the background at once; else a lead and a minimum run are needed."""
        if waiting.urgent and not running.foreground:
            return True
        if now - running.started < self.min_run or (running.urgent and not waiting.urgent):
            return False
        theirs, ours = running.share, waiting.share
        if ours is not None and theirs is not None and ours is not theirs:
            return ours.vruntime + self.lead < theirs.vruntime
        return waiting.vruntime - self.ageing * (now - waiting.enqueued) + self.lead < running.vruntime
