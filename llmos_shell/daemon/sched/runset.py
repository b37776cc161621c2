"""The run set, and how a decision changes it: who is admitted, who must make way, who is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Protocol

from msgspec import Struct

from llmos_shell.daemon.policies import Entity, Policy
from llmos_shell.daemon.sched.runqueue import PolicyFault, RunQueue, preemptible, rank

LOOKAHEAD = 16
"""Processes that do not fit which a decision looks at; bounds its cost."""

PATIENCE = 5.0
"""Seconds of waiting after which nobody passes a process that would fit if others made room."""


class Room(Protocol):
    """What limits the run set: slots, pages, workers. At the start of `choose` it holds exactly the running ones."""

    def admit(self, pid: int) -> bool:
        """Reserves what the process needs to run; False when there is no room, and then nothing changed.

        Succeeds for one that was `evict`ed when nothing else was admitted since.
        """

    def evict(self, pid: int) -> None:
        """Takes back a reservation: the process is going to be preempted."""

    def possible(self, pid: int) -> bool:
        """Whether it could be admitted if no other process ran. When not, nobody waits for it."""


class Slots:
    """Room for a number of processes, whatever their size."""

    def __init__(self, slots: int, taken: int = 0) -> None:
        self._slots = slots
        self._free = slots - taken

    def admit(self, pid: int) -> bool:
        """Takes a slot."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def evict(self, pid: int) -> None:
        """Gives a slot back."""
        self._free += 1

    def possible(self, pid: int) -> bool:
        """Whether there is a slot at all."""
        return self._slots > 0


class Decision(Struct, frozen=True):
    """The run set, most deserving first; of these, who is new; and who ran and must leave."""

    run: tuple[int, ...]
    start: tuple[int, ...] = ()
    preempt: tuple[int, ...] = ()


class RunSet:
    """The entities that run."""

    def __init__(self) -> None:
        self.admissions = 0
        self._running: dict[int, Entity] = {}
        self._started: dict[int, None] = {}  # by the decision in progress
        self._preempted: dict[int, Entity] = {}  # likewise

    @property
    def pids(self) -> tuple[int, ...]:
        """Who runs, in order of admission."""
        return tuple(self._running)

    def start(self, entity: Entity, now: float, since: float | None = None) -> None:
        """It ends its wait and runs, since now or since it started before."""
        entity.last_wait = max(0.0, now - entity.enqueued)
        entity.waited += entity.last_wait
        entity.started, entity.enqueued, entity.held = now if since is None else since, 0.0, ""
        if since is None:
            entity.slice = 0.0
            self.admissions += 1
        self._running[entity.pid] = entity

    def discard(self, pid: int) -> None:
        """It no longer runs."""
        self._running.pop(pid, None)

    def fill(self, policy: Policy, queue: RunQueue, room: Room, now: float) -> Decision:
        """Admits, in order, all that fits or may make room for itself. Carries on when called after a PolicyFault."""
        try:
            self._admit(policy, queue, room, now)
            order = rank(policy, list(self._running.values()), now)
        except PolicyFault:
            raise
        except BaseException:  # of the room: the next decision begins anew, from what its caller says then
            self._conclude(queue, now)
            raise
        started, preempted = self._conclude(queue, now)
        return Decision(tuple(one.pid for one in order), started, preempted)

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, pid: object) -> bool:
        return pid in self._running

    def __iter__(self) -> Iterator[Entity]:
        return iter(self._running.values())

    def _admit(self, policy: Policy, queue: RunQueue, room: Room, now: float) -> None:
        """One for whom nobody makes way speaks for all behind it: they are tried for room only."""
        refusals, hopeless = 0, False
        victims: list[Entity] | None = None
        with closing(queue.ranked(now)) as ranking:
            for entity in ranking:
                admitted = room.admit(entity.pid)
                if not admitted and not hopeless:
                    victims = self._victims(policy, now) if victims is None else victims
                    admitted = self._make_room(preemptible(policy, entity, victims, now), entity, room)
                    victims = [one for one in victims if one.pid in self._running]
                    hopeless = not admitted
                if admitted:
                    queue.discard(entity.pid)
                    self.start(entity, now)
                    self._started[entity.pid] = None
                    continue
                refusals += 1
                entity.held = entity.held or "no room"
                if refusals >= LOOKAHEAD or _is_waited_for(policy, entity, room, now):
                    break

    def _conclude(self, queue: RunQueue, now: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ends a decision: who was preempted waits again. Returns who started, and who was preempted."""
        for entity in self._preempted.values():
            entity.enqueued = now
            entity.preemptions += 1
            queue.push(entity)
        changes = tuple(self._started), tuple(self._preempted)
        self._started, self._preempted = {}, {}
        return changes

    def _victims(self, policy: Policy, now: float) -> list[Entity]:
        """All that ran before this decision, least deserving first."""
        return rank(policy, [one for pid, one in self._running.items() if pid not in self._started], now)[::-1]

    def _make_room(self, willing: Iterator[Entity], entity: Entity, room: Room) -> bool:
        """Preempts as few as it takes for `entity` to be admitted; nobody when that is not enough."""
        gone: list[Entity] = []
        try:
            for one in willing:
                room.evict(one.pid)
                gone.append(one)
                if room.admit(entity.pid):
                    self._preempt([one for one in reversed(gone) if not room.admit(one.pid)])
                    return True
        except PolicyFault:
            _readmit(gone, room)
            raise
        _readmit(gone, room)
        entity.held = "no room even if others made way" if gone else "no room, and nobody has to make way yet"
        return False

    def _preempt(self, entities: list[Entity]) -> None:
        for entity in entities:
            del self._running[entity.pid]
            self._preempted[entity.pid] = entity


def _readmit(entities: list[Entity], room: Room) -> None:
    for entity in reversed(entities):
        room.admit(entity.pid)


def _is_waited_for(policy: Policy, entity: Entity, room: Room, now: float) -> bool:
    """Whether nobody may pass this process, which has no room: else small ones could keep a large one out for ever."""
    return (policy.strict or now - entity.enqueued > PATIENCE) and room.possible(entity.pid)
