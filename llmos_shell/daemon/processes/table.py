"""The process table: PIDs, the tree, and which ended processes are still remembered.

Transitions are in `lifecycle`; this owns only who is in the table.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Kind
from llmos_shell.daemon.processes.process import Phase, Process

INIT = 1
KEEP_ENDED = 256
"""Processes that have ended and been waited for; the journal has more of them."""

KEEP_TOKENS = 1 << 18
"""Of context that these have in all, unless they are …"""

LEAST_ENDED = 16
"""… so few: a token takes some 40 bytes."""

MAX_ZOMBIES = 4096
"""Ended processes that nobody has waited for."""

MAX_PROCESSES = 4096


class ProcessTable:
    """All processes by PID; PID 1 is the daemon."""

    def __init__(self, last_pid: int = 0) -> None:
        self._last = max(INIT, last_pid)
        self._all: dict[int, Process] = {}
        self._zombies: OrderedDict[int, None] = OrderedDict()
        self._gone: OrderedDict[int, int] = OrderedDict()  # their tokens
        self._gone_tokens = 0
        init = Process(INIT, "llmosd", Kind.SESSION, ppid=0, host_pid=os.getpid(), phase=Phase.IDLE)
        self._all[INIT] = init

    def next_pid(self) -> int:
        """A PID that was never used. Raises EAGAIN when the table is full."""
        self.require_room(1)
        self._last += 1
        return self._last

    def require_room(self, count: int) -> None:
        """Raises EAGAIN unless so many processes can be added."""
        exist = len(self._all) - len(self._zombies) - len(self._gone)
        if exist + count > MAX_PROCESSES:
            text = f"{exist} processes exist, and {MAX_PROCESSES} are the limit"
            raise LlmosError(Code.EAGAIN, text, hint="end some first")

    def add(self, process: Process) -> None:
        """Enters a process."""
        self._all[process.pid] = process
        if not process.alive:
            self.note_ended(process)

    def remove(self, process: Process) -> None:
        """Forgets a process entirely."""
        self._all.pop(process.pid, None)
        self._leave(process.pid)

    def note_ended(self, process: Process) -> None:
        """It has ended, was waited for, or has somebody again who may wait: the oldest that was waited for goes."""
        pid = process.pid
        if pid not in self._all:
            return
        self._leave(pid)
        if not process.reaped:
            self._zombies[pid] = None
            return
        self._gone[pid] = len(process.tokens)
        self._gone_tokens += len(process.tokens)
        while len(self._gone) > (KEEP_ENDED if self._gone_tokens <= KEEP_TOKENS else LEAST_ENDED):
            oldest = next(iter(self._gone))
            self._leave(oldest)
            del self._all[oldest]

    def _leave(self, pid: int) -> None:
        self._zombies.pop(pid, None)
        self._gone_tokens -= self._gone.pop(pid, 0)

    def excess_zombie(self) -> Process | None:
        """The oldest that nobody has waited for, if there are too many of them."""
        return self._all[next(iter(self._zombies))] if len(self._zombies) > MAX_ZOMBIES else None

    def find(self, pid: int) -> Process | None:
        """The process, also an ended one that is remembered."""
        return self._all.get(pid)

    def get(self, pid: int) -> Process:
        """The process, also an ended one that is remembered. Raises ESRCH."""
        process = self._all.get(pid)
        if process is None:
            raise LlmosError(Code.ESRCH, f"there is no process {pid}", pid=pid)
        return process

    def living(self, pid: int) -> Process:
        """A process that has not ended. Raises ESRCH."""
        process = self.get(pid)
        if not process.alive:
            how = process.exit.reason if process.exit else "unknown"
            raise LlmosError(Code.ESRCH, f"process {pid} has already ended ({how})", pid=pid)
        return process

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._all.values()))

    def live_models(self) -> list[Process]:
        """Living processes that are no sessions."""
        return [p for p in self._all.values() if p.alive and p.kind is not Kind.SESSION]

    def sessions(self) -> list[Process]:
        """Connected clients."""
        return [p for p in self._all.values() if p.kind is Kind.SESSION and p.pid != INIT]

    def children(self, pid: int) -> list[Process]:
        """Processes whose parent this is."""
        return [p for p in self._all.values() if p.ppid == pid]

    def descendants(self, pid: int) -> list[Process]:
        """All processes below this one, nearest first."""
        found: list[Process] = []
        level = self.children(pid)
        while level:
            found += level
            level = [child for parent in level for child in self.children(parent.pid)]
        return found

    def of_session(self, session: int) -> list[Process]:
        """Processes that belong to a session, ended ones included."""
        return [p for p in self._all.values() if p.session == session and p.kind is not Kind.SESSION]
