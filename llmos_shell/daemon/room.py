"""What limits the run set of one worker, as `Scheduler.choose` sees it."""

from __future__ import annotations

from collections.abc import Iterable

from llmos_shell.daemon.pager import Pager
from llmos_shell.daemon.process import Process


class PoolRoom:
    """Implements `runset.Room`. Admitting really makes room: it takes memory from whoever is not reserved."""

    def __init__(self, pager: Pager, members: dict[int, Process], running: Iterable[int]) -> None:
        self._pager = pager
        self._members = members
        self.reserved = set(running)
        self._evicted: set[int] = set()

    def admit(self, pid: int) -> bool:
        """Makes the process resident."""
        process = self._members[pid]
        again = pid in self._evicted and process.seq is not None and not process.leaving
        if not again and not self._pager.make_resident(process, self.reserved):
            return False
        self.reserved.add(pid)
        self._evicted.discard(pid)
        return True

    def evict(self, pid: int) -> None:
        """Its memory may be taken."""
        self.reserved.discard(pid)
        self._evicted.add(pid)

    def possible(self, pid: int) -> bool:
        """Whether it fits into the empty pool."""
        pager, process = self._pager, self._members[pid]
        if pager.on_its_way(process):
            return False
        return len(process.tokens) // pager.ledger.page_tokens + 1 <= pager.ledger.quota
