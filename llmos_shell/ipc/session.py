"""A connection that is made on first use, and made again after the daemon went away.

Processes that belong to the session are taken back from the new daemon, which found them in its journal.
"""

from __future__ import annotations

import threading

from llmos_shell.ipc.client import Client, connect


class Session:
    """Gives out the one live client; may be used by several threads."""

    def __init__(self, name: str, *, interactive: bool = False, start: bool = True) -> None:
        self._name = name
        self._interactive = interactive
        self._start = start
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._owned: set[int] = set()

    def client(self) -> Client:
        """The connection; connects (and starts a daemon) if there is none. Raises as `connect` does."""
        with self._lock:
            if self._client is None or self._client.lost:
                if self._client is not None:
                    self._client.close(bye=False)
                reclaim = tuple(sorted(self._owned))
                self._client = connect(self._name, interactive=self._interactive, start=self._start, reclaim=reclaim)
            return self._client

    def current(self) -> Client | None:
        """The connection if there is a live one; never waits for another thread that is connecting."""
        client = self._client
        return None if client is None or client.lost else client

    def own(self, pid: int) -> None:
        """Remembers a process to take back after a reconnect."""
        self._owned.add(pid)

    def disown(self, pid: int) -> None:
        """Forgets one: it has ended, or was detached."""
        self._owned.discard(pid)

    def close(self, *, bye: bool = True) -> None:
        """Ends the session, if it ever began."""
        with self._lock:
            if self._client is not None:
                self._client.close(bye=bye)
                self._client = None
