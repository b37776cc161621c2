"""The other policies: `fifo`, `rr`, `priority` and `deadline`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmos_shell.daemon.policies.base import MIN_RUN, Entity, Keyed, Parameter
from llmos_shell.daemon.policies.fair import Fair

QUANTUM = 1.0
AGE_SECONDS = 10.0


class Fifo(Keyed):
    """In order of arrival, each until it sleeps or ends."""

    name = "fifo"
    strict = True

    def key(self, entity: Entity) -> Any:
        """Order of arrival."""
        return entity.arrived

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        """Never."""
        return False


class RoundRobin(Keyed):
    """In a circle: each runs for a quantum of device time, then goes to the end of the line if somebody waits."""

    name = "rr"
    parameters = (Parameter("quantum", QUANTUM, 0.01, 3600.0, "device seconds a process has per turn"),)
    quantum: float

    def key(self, entity: Entity) -> Any:
        """Who waits longest; of those that run (`enqueued` is 0), who has most of its quantum left."""
        return (entity.enqueued, entity.slice, entity.arrived)

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        """Its quantum is used up."""
        return running.slice >= self.quantum


class Priority(Keyed):
    """By nice value alone, equals in order of arrival. Waiting is worth one level of nice every `age` seconds."""

    name = "priority"
    parameters = (
        Parameter("age", AGE_SECONDS, 0.1, 86400.0, "seconds of waiting that are worth one level of nice"),
        Parameter("min_run", MIN_RUN, 0.0, 3600.0, "seconds that one which waited its way up may run"),
    )
    age: float
    min_run: float

    def key(self, entity: Entity) -> Any:
        """All that wait gain at the same rate, so their order does not depend on the time; runners do not gain."""
        return (entity.nice + entity.enqueued / self.age, entity.arrived)

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        """At once by a better level; one that waited its way up comes, and goes, only after a minimum run."""
        if running.nice - waiting.nice > running.last_wait / self.age:
            return True
        level = waiting.nice - (now - waiting.enqueued) / self.age
        return level <= running.nice - 1 and now - running.started >= self.min_run


class Deadline(Fair):
    """Earliest deadline first; who has none, or has missed it, comes after, fairly.

    Deadlines give precedence to a part of the device's time only (`scheduler.URGENT_SHARE`), so that nothing starves.
    """

    name = "deadline"
    hastens = True

    def key(self, entity: Entity) -> Any:
        """Deadlines that can still be met, the earliest first; then as `fair`."""
        if entity.hurried:
            return (0, entity.deadline, entity.arrived)
        return (1, *super().key(entity))

    def before_groups(self, entity: Entity) -> tuple[float, ...] | None:
        """Deadlines that can still be met, then urgent ones."""
        return (entity.deadline,) if entity.hurried else super().before_groups(entity)

    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        """Deadlines first, then as `fair`."""
        ranked = super().rank(entities, now)
        hurried = [one for one in ranked if one.hurried]
        return [*sorted(hurried, key=self.key), *(one for one in ranked if not one.hurried)]

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        """An earlier deadline preempts a later one and those that have none."""
        if waiting.hurried:
            return not running.hurried or waiting.deadline < running.deadline
        return not running.hurried and super().should_preempt(waiting, running, now)
