"""What the REPL knows of the daemon while it waits for it next to never: a thread of its own looks once a second.

It has its own connection, so that nothing a command does can hold it up, and it never starts a daemon again that was
stopped on purpose. What completion asks for is remembered, and waited for only for a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscall import Syscall
from llmos_shell.abi.syscalls import (
    MEM_INFO,
    MODEL_LIST,
    PROC_LIST,
    SCHED_SHOW,
    SYS_STATUS,
    List,
    MemoryInfo,
    Nothing,
    SystemStatus,
)
from llmos_shell.abi.types import ModelStatus, ProcessInfo
from llmos_shell.ipc.client import Client, ConnectionLost, connect

PERIOD_SECONDS = 1.0
FRESH_SECONDS = 0.5
"""An answer that is not older is not asked for again."""

WAIT_SECONDS = 0.3
"""The longest that completion waits for an answer; then it makes do with the one before."""

T = TypeVar("T")


class Remembered(Generic[T]):
    """The newest answer to one question. A thread asks, one at a time, however long the daemon takes."""

    def __init__(self, ask: Callable[[], T], empty: T) -> None:
        self.value = self._empty = empty
        self._ask = ask
        self._asked = -FRESH_SECONDS
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._answered.set()

    def get(self, wait_seconds: float = WAIT_SECONDS) -> T:
        """The answer; the one before, if a new one takes longer than that."""
        with self._lock:
            if self._answered.is_set() and time.monotonic() - self._asked > FRESH_SECONDS:
                self._answered.clear()
                threading.Thread(target=self._run, name="live answer", daemon=True).start()
        self._answered.wait(wait_seconds)
        return self.value

    def _run(self) -> None:
        try:
            self.value = self._ask()
        except LlmosError:
            self.value = self._empty
        finally:
            self._asked = time.monotonic()
            self._answered.set()


class Live:
    """The newest state, and who wants to hear when it changes."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.on_change = on_change
        self.text = "starting the daemon…"
        self.default_model = ""
        self.status: SystemStatus | None = None
        self._processes: Remembered[tuple[ProcessInfo, ...]] = Remembered(
            lambda: self._call(PROC_LIST, List(sessions=False)), ()
        )
        self._models: Remembered[tuple[ModelStatus, ...]] = Remembered(lambda: self._call(MODEL_LIST, Nothing()), ())
        self._policies: Remembered[tuple[str, ...]] = Remembered(lambda: self._call(SCHED_SHOW, Nothing()).policies, ())
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
        """Live processes without sessions, as far as the daemon answers in time."""
        return self._processes.get()

    def models(self) -> tuple[ModelStatus, ...]:
        """All models, as far as the daemon answers in time."""
        return self._models.get()

    def policies(self) -> tuple[str, ...]:
        """Scheduling policies, as far as the daemon answers in time."""
        return self._policies.get()

    def model_names(self) -> frozenset[str]:
        """The models last heard of; asks nobody."""
        return frozenset(model.entry.name for model in self._models.value)

    def _call(self, syscall: Syscall, args: Struct) -> Any:
        """Asks the daemon that is there, if one is. Raises `LlmosError`."""
        client = self._client
        if client is None or client.lost:
            raise ConnectionLost
        return client.call(syscall, args)

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
                models = self._models.get(PERIOD_SECONDS)
                self.default_model = next((model.entry.name for model in models if model.default), "")
            self.status = self._client.call(SYS_STATUS, Nothing())
            return describe(self.status, self._client.call(MEM_INFO, Nothing()), self.default_model)
        except LlmosError as error:
            self.status = None
            return "no daemon" if error.code in (Code.ENOENT, Code.EPIPE) else str(error)


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
