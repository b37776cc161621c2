"""The record of what the scheduler does, while somebody wants one: bounded, and next to free when nobody does."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from llmos_shell.abi.syscalls import TraceEvent, TraceRecord
from llmos_shell.abi.types import KvState, State

if TYPE_CHECKING:
    from llmos_shell.daemon.processes.process import Process

MAX_EVENTS = 200_000
"""About 50 MB; beyond it the oldest go."""

_STATES = {
    State.NEW: "loading",
    State.RUNNING: "running",
    State.SLEEPING: "sleeping",
    State.STOPPED: "stopped",
    State.ZOMBIE: "ended",
    State.GONE: "ended",
}


class Tracer:
    """Events, newest last. Callers ask `on` first, so that nothing is computed in vain."""

    def __init__(self, most: int = MAX_EVENTS) -> None:
        self.on = False
        self._most = most
        self._events: deque[TraceEvent] = deque(maxlen=most)
        self._count = 0
        self._states: dict[int, str] = {}

    def start(self) -> None:
        """Begins a new record."""
        self._events.clear()
        self._states.clear()
        self._count = 0
        self.on = True

    def stop(self) -> TraceRecord:
        """Ends the record and hands it over."""
        self.on = False
        record = TraceRecord(tuple(self._events), max(0, self._count - self._most))
        self._events.clear()
        self._states.clear()
        return record

    def note(self, kind: str, pid: int, text: str = "", **args: Any) -> None:
        """Records an event."""
        self._count += 1
        self._events.append(TraceEvent(time.monotonic(), kind, pid, text, args))

    def process(self, process: Process) -> None:
        """Records the state of a process if it is news; its first appearance with what it is, its last with figures."""
        state = _STATES.get(process.state) or ("parked" if process.kv is KvState.PARKED else "waiting")
        before = self._states.get(process.pid)
        if state == before:
            return
        if before is None:
            self.note(
                "spawn", process.pid, process.name, model=process.model, nice=process.nice, group=process.group,
                prompt_tokens=process.prompt_tokens, started=process.started, foreground=process.foreground,
            )  # fmt: skip
        self._states[process.pid] = state
        self.note("state", process.pid, state)
        if state == "ended":
            del self._states[process.pid]
            self.note(
                "exit", process.pid, process.exit.reason if process.exit else "",
                prompt_tokens=process.prompt_tokens, generated_tokens=process.generated_tokens,
                device_seconds=process.device_seconds, preemptions=process.preemptions,
            )  # fmt: skip
