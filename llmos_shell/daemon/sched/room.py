"""What limits the run set of one worker, as `Scheduler.choose` sees it."""

from __future__ import annotations

from collections.abc import Iterable

from llmos_shell.daemon.memory.pager import Pager
from llmos_shell.daemon.processes.process import Process
from llmos_shell.daemon.sched.groups import Groups


class PoolRoom:
    """Implements `runset.Room`. Admitting really makes room: it takes memory from whoever is not reserved.

    The run set of a group holds at most the group's KV tokens.
    """

    def __init__(self, pager: Pager, members: dict[int, Process], running: Iterable[int], groups: Groups) -> None:
        self._pager = pager
        self._members = members
        self._groups = groups
        self._held: dict[str, int] = {}  # KV tokens of groups with a limit
        self.reserved = set(running)
        self._evicted: set[int] = set()
        for pid in self.reserved:
            self._count(members[pid], 1)

    def within_limits(self, running: list[int]) -> list[int]:
        """Those that may go on running: of a group that has outgrown its limit the last ones leave."""
        kept = list(running)
        for pid in reversed(running):
            process = self._members[pid]
            limit = self._limit(process)
            if limit is not None and len(process.tokens) < self._held[process.group] > limit:
                self._block(process, limit)
                kept.remove(pid)
                self.reserved.discard(pid)
                self._count(process, -1)
        return kept

    def admit(self, pid: int) -> bool:
        """Makes the process resident."""
        process = self._members[pid]
        limit = self._limit(process)
        if limit is not None and self._held.get(process.group, 0) + len(process.tokens) > limit:
            self._block(process, limit)
            return False
        again = pid in self._evicted and process.seq is not None and not process.leaving
        if not again and not self._pager.make_resident(process, self.reserved):
            return False
        process.blocked = ""
        self.reserved.add(pid)
        self._count(process, 1)
        self._evicted.discard(pid)
        return True

    def evict(self, pid: int) -> None:
        """Its memory may be taken."""
        self.reserved.discard(pid)
        self._count(self._members[pid], -1)
        self._evicted.add(pid)

    def possible(self, pid: int) -> bool:
        """Whether it fits into the empty pool, and into what its group may hold."""
        pager, process = self._pager, self._members[pid]
        limit = self._limit(process)
        if pager.on_its_way(process) or (limit is not None and len(process.tokens) > limit):
            return False
        return len(process.tokens) // pager.ledger.page_tokens + 1 <= pager.ledger.quota

    def _limit(self, process: Process) -> int | None:
        group = self._groups.find(process.group)
        return group.settings.kv_tokens if group is not None else None

    def _count(self, process: Process, sign: int) -> None:
        if self._limit(process) is not None:
            self._held[process.group] = self._held.get(process.group, 0) + sign * len(process.tokens)

    def _block(self, process: Process, limit: int) -> None:
        process.blocked = f"the limit of group {process.group}, {limit} KV tokens, is reached"
