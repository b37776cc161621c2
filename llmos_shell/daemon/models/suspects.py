"""Which processes may have crashed a worker. After two crashes without a token of its own a process runs alone, and one
that crashes the worker alone is to blame. Owns nothing but that list.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmos_shell.daemon.processes.process import Process

SUSPECT = 2
"""Crashes in a row without a token of its own that make a process run alone."""

GUILTY = 3
"""Crashes that end it, if it ran alone in the last one."""


class Suspects:
    """Processes that must run alone, in this order."""

    def __init__(self) -> None:
        self._queue: list[int] = []

    def may_run(self, pid: int) -> bool:
        """Whether the process may run now."""
        return not self._queue or self._queue[0] == pid

    def crashed(self, ran: Sequence[Process]) -> list[Process]:
        """Takes note of who ran when a worker crashed; returns those to blame."""
        for process in ran:
            process.crashes += 1
        if len(ran) == 1 and ran[0].crashes >= GUILTY:
            self.clear(ran[0].pid)
            return [ran[0]]
        for process in ran:
            if process.crashes >= SUSPECT and process.pid not in self._queue:
                self._queue.append(process.pid)
        return []

    def clear(self, pid: int) -> bool:
        """It made a token, or is gone; returns whether it had been suspected."""
        if pid not in self._queue:
            return False
        self._queue.remove(pid)
        return True
