"""Hears of what happens to a chat while its terminal waits at the prompt: somebody else may speak to it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import PROC_FOLLOW, Follow, Output
from llmos_shell.abi.types import State
from llmos_shell.ipc.client import Client, connect

_END = 1 << 62
"""An offset beyond every output: follow from where it ends now."""


class Watcher:
    """Follows one process over a connection of its own, from a thread, until it is closed or the daemon goes.

    `seen` tells how far (in characters) its output is on the screen. `stirred` is set when there is something beyond,
    and `on_stir` called, from the thread.
    """

    def __init__(self, pid: int, seen: Callable[[], int], on_stir: Callable[[], None]) -> None:
        self.pid = pid
        self.stirred = threading.Event()
        self._seen = seen
        self._on_stir = on_stir
        self._client: Client | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"watching {pid}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still follows."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends it, and waits for that."""
        self._closed = True
        if self._client is not None:
            self._client.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            with connect(f"llmos watching {self.pid}", start=False) as client:
                self._client = client
                if self._closed:
                    return
                for item in client.stream(PROC_FOLLOW, Follow(self.pid, _END)):
                    if self._is_news(item):
                        self.stirred.set()
                        self._on_stir()
        except LlmosError:
            pass  # the process or the daemon has gone: whoever uses the process next is told

    def _is_news(self, item: Output) -> bool:
        if item.exit is not None:
            return True
        active = item.state is not None and item.state not in (State.SLEEPING, State.STOPPED)
        return item.offset + len(item.text) > self._seen() or (active and item.offset >= self._seen())
