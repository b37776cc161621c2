"""The scheduler of one pool: virtual runtimes, and who is in the run set. Owns the entities; knows no memory, no I/O.

Use one scheduler per worker. Whenever something changed (a wakeup, an exit, a charge, room), the caller asks `choose`
and carries out the decision; `choose` assumes that it does. Instants are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.policies import NICE_0_WEIGHT, POLICIES, Entity, Fair, Policy, policy_named, weight_of
from llmos_shell.daemon.runqueue import PolicyFault, RunQueue, rank
from llmos_shell.daemon.runset import Decision, Room, RunSet, Slots

__all__ = ["Decision", "Room", "Scheduler", "Slots"]

BURST = 2.0
"""Device seconds a foreground process may use after a wakeup before it counts like all others."""

URGENT_SHARE = 0.8
"""Share of the device that foreground wakeups get at most, in the long run, while others wait."""

URGENT_CREDIT = 10.0
"""Device seconds by which they may run ahead of that share."""


class Scheduler:
    """Entities of one pool and the policy in force."""

    def __init__(self, policy: str = "fair", on_fault: Callable[[str], None] = lambda text: None) -> None:
        self._policy: Policy = policy_named(policy)
        self._on_fault = on_fault
        self._entities: dict[int, Entity] = {}
        self._set = RunSet()
        self._queue = RunQueue(self._policy)
        self._floor = 0.0  # virtual seconds; never falls
        self._arrivals = 0
        self._credit = URGENT_CREDIT

    # -- processes ---------------------------------------------------------------------------------------------------

    def add(self, pid: int, nice: int, now: float, foreground: bool = False) -> None:
        """Makes a process known, asleep; `wake` it when it can run."""
        if pid in self._entities:
            raise LlmosError(Code.EINVAL, f"process {pid} is known already", pid=pid)
        entity = Entity(pid, nice, weight_of(nice), foreground, vruntime=self._floor, last_ran=now)
        self._entities[pid] = entity

    def remove(self, pid: int) -> None:
        """Forgets a process; nothing happens when it is unknown."""
        self._queue.discard(pid)
        self._set.discard(pid)
        self._entities.pop(pid, None)

    def wake(self, pid: int, now: float) -> None:
        """It can run. It starts at the least virtual runtime there is, or at its own when that is greater."""
        entity = self._entity(pid)
        if pid in self._set or pid in self._queue:
            return
        self._arrivals += 1
        entity.arrived = self._arrivals
        entity.vruntime = max(entity.vruntime, self._least())
        entity.burst = BURST if entity.foreground and self._credit > 0 else 0.0
        self._enqueue(entity, now)

    def sleep(self, pid: int, now: float) -> None:
        """It cannot run (waits for input, is stopped)."""
        entity = self._entity(pid)
        if pid in self._queue:
            entity.waited += now - entity.enqueued
        elif pid in self._set:
            entity.last_ran = now
        self._queue.discard(pid)
        self._set.discard(pid)

    def charge(self, pid: int, seconds: float) -> None:
        """It used the device for `seconds`. Ignored when it is unknown: the news of a step may come late."""
        entity = self._entities.get(pid)
        if entity is None:
            return
        entity.device_seconds += seconds
        entity.vruntime += seconds * NICE_0_WEIGHT / entity.weight
        if entity.urgent:
            entity.burst -= seconds
            if len(self._queue):
                self._credit = max(self._credit - seconds, 0.0)
        if pid not in self._set and pid in self._queue:
            self._queue.push(entity)

    def charge_step(self, rows: Mapping[int, int], seconds: float) -> None:
        """A step of `seconds` computed `rows[pid]` tokens of each process: they share its time by tokens."""
        total = sum(rows.values())
        if total <= 0:
            return
        self._credit = min(self._credit + URGENT_SHARE * seconds, URGENT_CREDIT)
        each = seconds / total
        for pid, tokens in rows.items():
            self.charge(pid, tokens * each)

    def renice(self, pid: int, nice: int) -> None:
        """Changes the rate at which its virtual runtime grows from now on."""
        entity = self._entity(pid)
        entity.nice, entity.weight = nice, weight_of(nice)
        self._changed(entity)

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
        return tuple(POLICIES)

    def set_policy(self, name: str) -> None:
        """Puts a policy in force. Raises ENOENT for an unknown name."""
        self._use(policy_named(name))

    # -- figures -----------------------------------------------------------------------------------------------------

    @property
    def runnable(self) -> int:
        """Processes that wait for room."""
        return len(self._queue)

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

    def why(self, pid: int, now: float) -> str:
        """A sentence on why it runs or waits."""
        entity = self._entity(pid)
        virtual = f"virtual runtime {entity.vruntime:.2f} s at nice {entity.nice}"
        if pid in self._set:
            place = self._place(entity, list(self._set), now)
            return f"runs since {now - entity.started:.1f} s: {place} in the run set ({virtual}, policy {self.policy})"
        if pid not in self._queue:
            return f"does not want to run: it sleeps or is stopped ({virtual})"
        place = self._place(entity, list(self._queue), now)
        reason = entity.held or "others come first"
        return f"waits for {now - entity.enqueued:.1f} s: {place} in line ({virtual}, policy {self.policy}); {reason}"

    # -- private -----------------------------------------------------------------------------------------------------

    def _entity(self, pid: int) -> Entity:
        try:
            return self._entities[pid]
        except KeyError:
            raise LlmosError(Code.ESRCH, f"no process {pid} is scheduled here", pid=pid) from None

    def _least(self) -> float:
        """The least virtual runtime of all that run or wait; never less than it was."""
        least = [one.vruntime for one in self._set]
        waiting = self._queue.least_vruntime()
        if waiting is not None:
            least.append(waiting)
        if least:
            self._floor = max(self._floor, min(least))
        return self._floor

    def _enqueue(self, entity: Entity, now: float) -> None:
        entity.enqueued, entity.held = now, ""
        self._queue.push(entity)

    def _changed(self, entity: Entity) -> None:
        """Its place in the queue may be another."""
        if entity.pid in self._queue:
            self._queue.push(entity)

    def _synchronise(self, running: Collection[int], now: float) -> None:
        """Takes the caller's word for who is in the run set. Who slept and woke between two decisions never left it."""
        for pid in [pid for pid in self._set.pids if pid not in running]:
            self._set.discard(pid)
            self._entities[pid].last_ran = now
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
        self._queue.use(policy)

    def _quarantine(self, fault: PolicyFault) -> None:
        """Falls back to `fair`, which does not raise, and says so."""
        self._use(Fair())
        self._on_fault(f"{fault}; using {self.policy} instead")
