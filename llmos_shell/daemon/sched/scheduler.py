"""The scheduler of one pool: virtual runtimes, and who is in the run set. Owns the entities; knows no memory, no I/O.

Use one scheduler per worker. Whenever something changed (a wakeup, an exit, a charge, room), the caller asks `choose`
and carries out the decision; `choose` assumes that it does. Instants are seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from heapq import heapify, heappop, heappush

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.policies import NICE_0_WEIGHT, Entity, Fair, Policy, configured, names, parameters_of, weight_of
from llmos_shell.daemon.sched.runqueue import PolicyFault, RunQueue, rank
from llmos_shell.daemon.sched.runset import Decision, Room, RunSet, Slots
from llmos_shell.daemon.sched.shares import Shares

__all__ = ["Decision", "Room", "Scheduler", "Slots"]

BURST = 2.0
"""Device seconds a foreground process may use after a wakeup before it counts like all others."""

URGENT_SHARE = 0.8
"""Share of the device that foreground wakeups and deadlines get at most, in the long run, while others wait."""

URGENT_CREDIT = 10.0
"""Device seconds by which they may run ahead of that share."""

MAX_LAG = 10.0
"""Device seconds a process that runs may be away from its fair share: more than that it cannot make use of, as when
there are slots for a few and one of them is entitled to most of the device, or when it was alone for long."""

SPARE_DEADLINES = 64
"""So many of processes that have gone are kept before they are looked for."""

RATE_SECONDS = 30.0
"""Over about so long the rate of admissions is measured."""


class Scheduler:
    """Entities of one pool and the policy in force."""

    def __init__(
        self,
        policy: str = "fair",
        on_fault: Callable[[str], None] = lambda text: None,
        settings: Mapping[str, float] | None = None,
        on_missed: Callable[[int, float], None] = lambda pid, seconds: None,
    ) -> None:
        self._policy: Policy = configured(policy, settings or {})
        self._on_fault = on_fault
        self._on_missed = on_missed
        self._entities: dict[int, Entity] = {}
        self._set = RunSet()
        self._queue = RunQueue(self._policy)
        self._shares = Shares()
        self._floor = 0.0  # virtual seconds: the fair virtual runtime when somebody last wanted to run
        self._deadlines: list[tuple[float, int]] = []
        self._arrivals = 0
        self._credit = URGENT_CREDIT
        self._rate = (0.0, 0, 0.0)  # since when, admissions until then, admissions per second before

    # -- processes ---------------------------------------------------------------------------------------------------

    def add(
        self,
        pid: int,
        nice: int,
        foreground: bool = False,
        group: str = "",
        deadline: float = math.inf,
    ) -> None:
        """Makes a process known, asleep; `wake` it when it can run."""
        if pid in self._entities:
            raise LlmosError(Code.EINVAL, f"process {pid} is known already", pid=pid)
        entity = Entity(pid, nice, weight_of(nice), group, foreground, deadline, vruntime=self._fair())
        self._entities[pid] = entity
        if deadline < math.inf:
            heappush(self._deadlines, (deadline, pid))

    def remove(self, pid: int) -> None:
        """Forgets a process; nothing happens when it is unknown."""
        if pid in self._queue or pid in self._set:
            self._shares.leave(self._entities[pid])
        self._queue.discard(pid)
        self._set.discard(pid)
        self._entities.pop(pid, None)
        if len(self._deadlines) > 2 * len(self._entities) + SPARE_DEADLINES:
            self._deadlines = [due for due in self._deadlines if due[1] in self._entities]
            heapify(self._deadlines)

    def wake(self, pid: int, now: float) -> None:
        """It can run. It starts as far behind its fair share as when it fell asleep, or as far ahead as it is."""
        entity = self._entity(pid)
        if pid in self._set or pid in self._queue:
            return
        self._arrivals += 1
        entity.arrived = self._arrivals
        entity.vruntime = max(entity.vruntime, self._fair() - entity.lag)
        entity.burst = BURST if entity.foreground and self._credit > 0 else 0.0
        self._shares.join(entity)
        self._enqueue(entity, now)

    def sleep(self, pid: int, now: float) -> None:
        """It cannot run (waits for input, is stopped)."""
        entity = self._entity(pid)
        if pid in self._queue:
            entity.waited += max(0.0, now - entity.enqueued)
        elif pid not in self._set:
            return
        most = MAX_LAG * self._shares.rate(entity)
        entity.lag = min(max(0.0, self._fair() - entity.vruntime), most)
        entity.enqueued = 0.0
        self._shares.leave(entity)
        self._queue.discard(pid)
        self._set.discard(pid)

    def charge(self, pid: int, seconds: float) -> None:
        """It used the device for `seconds`. Ignored when it is unknown: the news of a step may come late."""
        self._charge([(pid, seconds)])

    def charge_step(self, rows: Mapping[int, int], seconds: float) -> None:
        """A step of `seconds` computed `rows[pid]` tokens of each process: they share its time by tokens."""
        total = sum(rows.values())
        if total <= 0:
            return
        self._credit = min(self._credit + URGENT_SHARE * seconds, URGENT_CREDIT)
        each = seconds / total
        self._bound(self._charge([(pid, tokens * each) for pid, tokens in rows.items()]))

    def renice(self, pid: int, nice: int) -> None:
        """Changes the rate at which its virtual runtime grows from now on."""
        entity, weight = self._entity(pid), weight_of(nice)
        with self._out_of_shares(entity):
            entity.nice, entity.weight = nice, weight

    def regroup(self, pid: int, group: str) -> None:
        """Makes it share what another group gets."""
        entity = self._entity(pid)
        with self._out_of_shares(entity):
            entity.group = group

    def set_group_weight(self, group: str, weight: float) -> None:
        """What a group gets of the device beside other groups, which have 1 at first."""
        self._shares.set_weight(group, weight)

    def set_foreground(self, pid: int, foreground: bool) -> None:
        """Whether a person waits for its answer; takes full effect at its next wakeup."""
        entity = self._entity(pid)
        entity.foreground = foreground
        self._changed(entity)

    # -- decisions ---------------------------------------------------------------------------------------------------

    def choose(self, running: Collection[int], room: Room | int, now: float) -> Decision:
        """The new run set, given who is in it now. It is all that fits, in the policy's order.

        One that does not fit preempts those the policy lets it preempt, least deserving first, and only as many as it
        needs. `room` is a number of slots, or something that also knows memory; afterwards it holds the new run set.
        """
        self._synchronise(running, now)
        self._note_missed(now)
        self._measure(now)
        place = Slots(room, len(self._set)) if isinstance(room, int) else room
        while True:
            try:
                return self._set.fill(self._policy, self._queue, place, now)
            except PolicyFault as fault:
                self._quarantine(fault)

    def victims(self, pids: Iterable[int], now: float) -> list[int]:
        """These processes, the one to take memory from first in front: the least deserving."""
        known = [self._entities[pid] for pid in pids if pid in self._entities]
        return [one.pid for one in reversed(self._rank(known, now))]

    # -- policy ------------------------------------------------------------------------------------------------------

    @property
    def policy(self) -> str:
        """The name of the policy in force."""
        return self._policy.name

    @property
    def policies(self) -> tuple[str, ...]:
        """The names to choose from."""
        return names()

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters of the policy in force."""
        return {name: value for name, (_, value) in parameters_of(self._policy).items()}

    def set_policy(self, name: str, settings: Mapping[str, float] | None = None) -> None:
        """Puts a policy in force. Raises ENOENT for an unknown name, EINVAL for a parameter it does not have."""
        self._use(configured(name, settings or {}))

    # -- figures -----------------------------------------------------------------------------------------------------

    @property
    def runnable(self) -> int:
        """Processes that wait for room."""
        return len(self._queue)

    @property
    def demand(self) -> float:
        """The weights of all that want to run, in units of nice 0."""
        return self._shares.load / NICE_0_WEIGHT

    @property
    def pressing(self) -> bool:
        """Whether one of them woke in the foreground a moment ago."""
        return any(one.urgent for one in (*self._set, *self._queue.newest(8)))

    def wants(self, pid: int) -> bool:
        """Whether it runs, or waits to."""
        return pid in self._queue or pid in self._set

    @property
    def running(self) -> tuple[int, ...]:
        """The run set, as last decided."""
        return self._set.pids

    def __contains__(self, pid: object) -> bool:
        return pid in self._entities

    def entity(self, pid: int) -> Entity:
        """What is known of a process, to read only. Raises ESRCH."""
        return self._entity(pid)

    def waited(self, pid: int, now: float) -> float:
        """Seconds it could have run but did not, over its whole life."""
        entity = self._entity(pid)
        return entity.waited + (now - entity.enqueued if pid in self._queue else 0.0)

    def line(self, pid: int, now: float, most: int = 3) -> tuple[list[int], int]:
        """At most `most` of those in front of one that waits, and its place in line, from 1; 0: it does not wait."""
        if pid not in self._queue:
            return [], 0
        try:
            ahead, place = self._queue.ahead_of(pid, now, most)
        except PolicyFault as fault:
            self._quarantine(fault)
            ahead, place = self._queue.ahead_of(pid, now, most)
        return [one.pid for one in ahead], place

    def admission_rate(self, now: float) -> float:
        """Processes admitted to the run set per second, lately; 0 when that is not known."""
        since, before, rate = self._rate
        elapsed = now - since
        if elapsed < RATE_SECONDS / 10:
            return rate
        return (self._set.admissions - before) / elapsed

    def why(self, pid: int, now: float) -> str:
        """A sentence on why it runs or waits."""
        entity = self._entity(pid)
        virtual = f"virtual runtime {entity.vruntime:.2f} s at nice {entity.nice}"
        if pid in self._set:
            place = self._place(entity, list(self._set), now)
            return f"runs since {now - entity.started:.1f} s: {place} in the run set ({virtual}, policy {self.policy})"
        if pid not in self._queue:
            return f"does not want to run: it sleeps or is stopped ({virtual})"
        place = f"{self.line(pid, now)[1]} of {len(self._queue)}"
        reason = entity.held or "others come first"
        return f"waits for {now - entity.enqueued:.1f} s: {place} in line ({virtual}, policy {self.policy}); {reason}"

    # -- private -----------------------------------------------------------------------------------------------------

    def _entity(self, pid: int) -> Entity:
        try:
            return self._entities[pid]
        except KeyError:
            raise LlmosError(Code.ESRCH, f"no process {pid} is scheduled here", pid=pid) from None

    def _fair(self) -> float:
        """The virtual runtime of one that has exactly its share; while nobody wants to run, what it was last."""
        fair = self._shares.fair()
        if fair is not None:
            self._floor = fair
        return self._floor

    def _charge(self, seconds_of: list[tuple[int, float]]) -> list[tuple[Entity, float]]:
        """Returns those of them that run, with their rates."""
        used: list[tuple[Entity, float]] = []
        for pid, seconds in seconds_of:
            entity = self._entities.get(pid)
            if entity is None:
                continue
            entity.device_seconds += seconds
            entity.slice += seconds
            if entity.share is None:  # it fell asleep meanwhile
                entity.vruntime += seconds * self._shares.rate(entity)
            else:
                used.append((entity, seconds))
        running: list[tuple[Entity, float]] = []
        for (entity, seconds), rate in zip(used, self._shares.use(used, MAX_LAG), strict=True):
            if entity.urgent or entity.hurried:
                self._spend(entity, seconds)
            if entity.pid in self._queue:
                self._queue.push(entity)
            else:
                running.append((entity, rate))
        return running

    def _bound(self, rates: list[tuple[Entity, float]]) -> None:
        """Forgives what lies too far from the fair share; more so while nobody waits and so nobody loses by it."""
        fair = self._fair()
        most_lag = MAX_LAG if len(self._queue) else 1.0
        for entity, rate in rates:
            most = most_lag * rate
            excess = entity.vruntime - fair
            if excess > most:
                self._shares.advance(entity, most - excess)
            elif excess < -most:
                self._shares.advance(entity, -most - excess)

    def _spend(self, entity: Entity, seconds: float) -> None:
        """Precedence was made use of."""
        if entity.urgent:
            entity.burst -= seconds
        if len(self._queue):
            self._credit = max(self._credit - seconds, 0.0)
            if not self._credit:
                entity.favoured = False

    def _enqueue(self, entity: Entity, now: float) -> None:
        entity.enqueued, entity.held = now, ""
        entity.favoured = self._credit > 0 and getattr(self._policy, "hastens", False)
        self._queue.push(entity)

    def _changed(self, entity: Entity) -> None:
        """Its place in the queue may be another."""
        if entity.pid in self._queue:
            self._queue.push(entity)

    @contextmanager
    def _out_of_shares(self, entity: Entity) -> Iterator[None]:
        active = entity.pid in self._queue or entity.pid in self._set
        if active:
            self._shares.leave(entity)
        yield
        if active:
            self._shares.join(entity)
        self._changed(entity)

    def _note_missed(self, now: float) -> None:
        """Deadlines that have passed: their processes no longer go before others for it."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, pid = heappop(self._deadlines)
            entity = self._entities.get(pid)
            if entity is not None and entity.deadline == deadline and not entity.missed:
                entity.missed = True
                self._changed(entity)
                self._on_missed(pid, now - deadline)

    def _favour_again(self) -> None:
        """Deadlines give precedence again once the share set aside for it is no longer used up."""
        if self._credit > URGENT_CREDIT / 2 and getattr(self._policy, "hastens", False):
            for _, pid in self._deadlines:
                entity = self._entities.get(pid)
                if entity is not None and not entity.favoured:
                    entity.favoured = True
                    self._changed(entity)

    def _measure(self, now: float) -> None:
        since, before, _ = self._rate
        if now - since > RATE_SECONDS:
            elapsed = now - since
            rate = (self._set.admissions - before) / elapsed if since else 0.0
            self._rate = (now, self._set.admissions, rate)
            self._favour_again()

    def _synchronise(self, running: Collection[int], now: float) -> None:
        """Takes the caller's word for who is in the run set. Who slept and woke between two decisions never left it."""
        for pid in [pid for pid in self._set.pids if pid not in running]:
            self._set.discard(pid)
            self._enqueue(self._entities[pid], now)
        for pid in running:
            if pid in self._queue:
                self._queue.discard(pid)
                entity = self._entities[pid]
                self._set.start(entity, now, since=entity.started)

    def _rank(self, entities: list[Entity], now: float) -> list[Entity]:
        try:
            return rank(self._policy, entities, now)
        except PolicyFault as fault:
            self._quarantine(fault)
            return rank(self._policy, entities, now)

    def _place(self, entity: Entity, among: list[Entity], now: float) -> str:
        return f"{self._rank(among, now).index(entity) + 1} of {len(among)}"

    def _use(self, policy: Policy) -> None:
        self._policy = policy
        hastens = getattr(policy, "hastens", False)
        for entity in (*self._queue, *self._set):
            entity.favoured = hastens
        self._queue.use(policy)

    def _quarantine(self, fault: PolicyFault) -> None:
        """Falls back to `fair`, which does not raise, and says so."""
        self._use(Fair())
        self._on_fault(f"{fault}; using {self.policy} instead")
