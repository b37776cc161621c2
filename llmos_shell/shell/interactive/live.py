"""What the REPL knows of the daemon without ever waiting for it: a thread of its own looks about once a second.

It has its own connection, so that nothing a command does can hold it up, and it never starts a daemon again that was
stopped on purpose.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import (
    MEM_INFO,
    MODEL_LIST,
    PROC_LIST,
    SYS_STATUS,
    List,
    MemoryInfo,
    Nothing,
    SystemStatus,
)
from llmos_shell.abi.types import ModelStatus, ProcessInfo
from llmos_shell.ipc.client import Client, connect

PERIOD_SECONDS = 1.0

T = TypeVar("T")


class Live:
    """The newest state, and who wants to hear when it changes."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.on_change = on_change
        self.text = "starting the daemon…"
        self.default_model = ""
        self._client: Client | None = None
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)

    def start(self) -> None:
        """Begins to look; starts a daemon in the background if there is none."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and its connection."""
        self._stop.set()
        self._wake.set()
        if self._client is not None:
            self._client.close()

    def pause(self) -> None:
        """Stops looking, while a command runs and no toolbar is shown."""
        self._wake.clear()

    def resume(self) -> None:
        """Looks again, at once."""
        self._wake.set()

    def processes(self) -> tuple[ProcessInfo, ...]:
        """Live processes without sessions; none when the daemon does not answer."""
        return self._ask(lambda client: client.call(PROC_LIST, List(sessions=False)))

    def models(self) -> tuple[ModelStatus, ...]:
        """All models; none when the daemon does not answer."""
        return self._ask(lambda client: client.call(MODEL_LIST, Nothing()))

    def _ask(self, call: Callable[[Client], tuple[T, ...]]) -> tuple[T, ...]:
        client = self._client
        if client is None or client.lost:
            return ()
        try:
            return call(client)
        except LlmosError:
            return ()

    def _run(self) -> None:
        start = True
        while not self._stop.is_set():
            text = self._look(start)
            start = False
            if text != self.text:
                self.text = text
                self.on_change()
            self._stop.wait(PERIOD_SECONDS)
            self._wake.wait()

    def _look(self, start: bool) -> str:
        try:
            if self._client is None or self._client.lost:
                self._client = None
                self._client = connect("llmos toolbar", start=start)
            if not self.default_model:
                models: tuple[ModelStatus, ...] = self._client.call(MODEL_LIST, Nothing())
                self.default_model = next((status.entry.name for status in models if status.default), "")
            status = self._client.call(SYS_STATUS, Nothing())
            return describe(status, self._client.call(MEM_INFO, Nothing()), self.default_model)
        except LlmosError as error:
            return "no daemon" if not start else str(error)


def describe(status: SystemStatus, memory: MemoryInfo, default_model: str) -> str:
    """The toolbar's one line."""
    counts = (
        (status.running, "running"),
        (status.runnable, "runnable"),
        (status.sleeping, "sleeping"),
        (status.stopped, "stopped"),
    )
    parts = [f"{count} {what}" for count, what in counts if count] or ["no processes"]
    if status.tokens_per_second >= 0.05:
        parts.append(f"{status.tokens_per_second:.1f} tok/s")
    for pool in memory.pools:
        parts.append(f"{pool.model} {pool.used_pages / max(pool.pages, 1):.0%} of pool")
    if default_model:
        parts.append(f"default model {default_model}")
    if status.journal_error:
        parts.append(f"JOURNAL: {status.journal_error}")
    return " · ".join(parts)
