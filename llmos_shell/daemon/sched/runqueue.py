"""The waiting entities in a policy's order, and the only door to a policy: what one raises becomes a PolicyFault."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from heapq import heappop, heappush
from itertools import count
from typing import Any

from llmos_shell.daemon.policies import Entity, GroupedPolicy, KeyedPolicy, Policy


class PolicyFault(Exception):
    """A policy raised, or answered nonsense. The text says which and how."""


class RunQueue:
    """Entities that wait. With a keyed policy a heap whose outdated items are dropped as they surface."""

    def __init__(self, policy: Policy) -> None:
        self._waiting: dict[int, Entity] = {}
        self._tickets: dict[int, int] = {}
        self._counter = count()
        self._heaps: dict[str, list[tuple[Any, int, Entity]]] = {}  # by group: (key, ticket, entity)
        self._items = 0  # in all heaps, outdated ones included
        self._fresh: list[tuple[int, Entity]] = []  # not in the heap yet
        self.use(policy)

    def use(self, policy: Policy) -> None:
        """Orders by this policy from now on."""
        self._policy = policy
        self._keyed = isinstance(policy, KeyedPolicy)
        self._grouped = policy if isinstance(policy, GroupedPolicy) else None
        self._rebuild()

    def push(self, entity: Entity) -> None:
        """Adds an entity, or takes note that one changed."""
        ticket = next(self._counter)
        self._waiting[entity.pid] = entity
        self._tickets[entity.pid] = ticket
        self._fresh.append((ticket, entity))
        if self._items + len(self._fresh) > 2 * len(self._waiting) + 64:
            self._rebuild()

    def discard(self, pid: int) -> None:
        """Removes an entity, if it is there."""
        self._waiting.pop(pid, None)
        self._tickets.pop(pid, None)

    def ahead_of(self, pid: int, now: float, most: int) -> tuple[list[Entity], int]:
        """At most `most` of those in front of one that waits, and its place in line, from 1. O(n log n)."""
        ahead: list[Entity] = []
        place = 0
        with closing(self.ranked(now)) as ranking:
            for entity in ranking:
                place += 1
                if entity.pid == pid:
                    break
                if len(ahead) < most:
                    ahead.append(entity)
        return ahead, place

    def ranked(self, now: float) -> Generator[Entity, None, None]:
        """All that wait, most deserving first; close it before pushing. Those met may be discarded meanwhile.

        Raises PolicyFault.
        """
        if self._keyed:
            yield from self._from_heap()
        else:
            yield from rank(self._policy, list(self._waiting.values()), now)

    def newest(self, most: int) -> list[Entity]:
        """The newest of those that wait, at most so many."""
        return [entity for entity, _ in zip(reversed(self._waiting.values()), range(most), strict=False)]

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, pid: object) -> bool:
        return pid in self._waiting

    def __iter__(self) -> Iterator[Entity]:
        return iter(self._waiting.values())

    def _from_heap(self) -> Generator[Entity, None, None]:
        """The best of each group, the group that used least first; each one yielded counts as a second of use."""
        met: list[tuple[Any, int, Entity]] = []
        front: list[tuple[tuple[float, ...], float, int, Entity]] = []
        taken: dict[str, int] = {}
        try:
            self._absorb()
            for name in list(self._heaps):
                self._advance(name, front, taken)
            while front:
                entity = heappop(front)[3]
                name = self._name(entity)
                met.append(self._pop(name))
                yield entity
                self._advance(name, front, taken)
        finally:
            for item in met:
                if self._valid(item[1], item[2]):
                    self._put(item)

    def _advance(
        self, name: str, front: list[tuple[tuple[float, ...], float, int, Entity]], taken: dict[str, int]
    ) -> None:
        """Brings the next of a group, which stays in its heap, to the front."""
        item = self._top(name)
        if item is None:
            return
        entity, share = item[2], item[2].share
        before: tuple[float, ...] | None = None
        if self._grouped is not None:
            with _Blame(self._policy):
                before = self._grouped.before_groups(entity)
        already = taken.get(name, 0)
        used = share.vruntime + already / share.weight if share is not None else 0.0
        taken[name] = already + 1
        heappush(front, ((1.0,) if before is None else (0.0, *before), used, item[1], entity))

    def _absorb(self) -> None:
        fresh, self._fresh = self._fresh, []
        with _Blame(self._policy):
            for ticket, entity in fresh:
                if self._valid(ticket, entity):
                    self._put((self._policy.key(entity), ticket, entity))  # type: ignore[attr-defined]

    def _put(self, item: tuple[Any, int, Entity]) -> None:
        heappush(self._heaps.setdefault(self._name(item[2]), []), item)
        self._items += 1

    def _top(self, name: str) -> tuple[Any, int, Entity] | None:
        """The best of a group's heap; what is outdated above it goes."""
        heap = self._heaps.get(name, [])
        while heap:
            if self._valid(heap[0][1], heap[0][2]):
                return heap[0]
            self._pop(name)
        self._heaps.pop(name, None)
        return None

    def _pop(self, name: str) -> tuple[Any, int, Entity]:
        self._items -= 1
        with _Blame(self._policy):
            return heappop(self._heaps[name])

    def _name(self, entity: Entity) -> str:
        return entity.group if self._grouped is not None else ""

    def _valid(self, ticket: int, entity: Entity) -> bool:
        return self._tickets.get(entity.pid) == ticket

    def _rebuild(self) -> None:
        self._heaps, self._items = {}, 0
        self._fresh = [(self._tickets[pid], entity) for pid, entity in self._waiting.items()]


def rank(policy: Policy, entities: list[Entity], now: float) -> list[Entity]:
    """The policy's order of these entities. Raises PolicyFault when it raises, loses or invents one."""
    with _Blame(policy):
        ordered = list(policy.rank(entities, now))
        if len(ordered) != len(entities) or {one.pid for one in ordered} != {one.pid for one in entities}:
            raise ValueError("rank returned other processes than it was given")
    return ordered


def preemptible(policy: Policy, waiting: Entity, running: Iterable[Entity], now: float) -> Iterator[Entity]:
    """Those that must make way for `waiting`, by the policy's `should_preempt`. Raises PolicyFault when it raises."""
    with _Blame(policy):
        for one in running:
            if policy.should_preempt(waiting, one, now):
                yield one


class _Blame:
    """Turns whatever is raised inside into a PolicyFault that names the policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, PolicyFault):
            raise PolicyFault(f"policy {self._policy.name}: {type(error).__name__}: {error}") from error
