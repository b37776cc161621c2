"""The journal's writer thread: it gathers what is handed in, commits it in batches, and outlasts errors of the disk."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Event
from llmos_shell.daemon.journaling.records import Appended, AuditRow, Batch, ProcessRow, SettingRow

FLUSH_SECONDS = 0.05
"""How long a record waits for company."""

RETRY_SECONDS = (0.1, 5.0)
"""First and longest pause between attempts while the database cannot be written."""

BACKLOG_BYTES = 64 * 1024 * 1024
"""Memory for unwritten records; beyond it the oldest events are dropped, never tokens."""

PRUNE_EVERY = 500
"""Processes that end between two prunings."""


class Keep(Struct, frozen=True):
    """How much of the past is kept: the newest so many."""

    ended: int = 10_000  # processes
    events: int = 100_000
    bytes: int = 1 << 30  # of the database: beyond that fewer processes, but always …
    least_ended: int = 256  # … so many


KEEP = Keep()


class Writer:
    """Owns the writing connection and its thread. `put` and `flush` may be called from any thread."""

    def __init__(
        self,
        db: sqlite3.Connection,
        on_error: Callable[[str], None],
        *,
        keep: Keep = KEEP,
        flush_seconds: float = FLUSH_SECONDS,
        backlog_bytes: int = BACKLOG_BYTES,
    ) -> None:
        self.error = ""  # why nothing can be written at present
        self._db = db
        self._on_error = on_error
        self._keep = keep
        self._flush_seconds = flush_seconds
        self._backlog_bytes = backlog_bytes
        self._queue: deque[Appended | ProcessRow | AuditRow | SettingRow | Event | Future[None]] = deque()
        self._something = threading.Event()
        self._urgent = threading.Event()
        self._closing = False
        self._batch = Batch()
        self._flushes: list[Future[None]] = []
        self._dropped = 0  # events, since writing failed
        self._pause = 0.0  # between attempts, while they fail
        self._ended = PRUNE_EVERY  # processes, since the last pruning: the first commit prunes
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def put(self, item: Appended | ProcessRow | AuditRow | SettingRow | Event) -> None:
        """Hands in one record. Costs a queue operation."""
        self._queue.append(item)
        if not self._something.is_set():
            self._something.set()

    def flush(self) -> Future[None]:
        """Done when everything handed in before is committed; fails with the error (ENOSPC, EIO) when it cannot be.

        A failed flush loses nothing: the records stay with the writer.
        """
        done: Future[None] = Future()
        if not self._thread.is_alive():
            done.set_exception(LlmosError(Code.EPIPE, "the journal is closed"))
            return done
        self._queue.append(done)
        self._urgent.set()
        self._something.set()
        return done

    def close(self) -> bool:
        """Writes what is left, in one attempt, and ends the thread; whether everything was written."""
        self._closing = True
        self._urgent.set()
        self._something.set()
        self._thread.join()
        return not self._batch

    def _run(self) -> None:
        while not self._closing:
            self._something.wait()
            self._something.clear()
            self._urgent.wait(self._pause or self._flush_seconds)
            self._urgent.clear()
            self._turn()
        self._turn()
        if self._batch:
            self._say(f"the journal closes with {self._batch.bytes} bytes unwritten: {self.error}")
        self._db.close()

    def _turn(self) -> None:
        """Writes all there is, or keeps it for the next turn."""
        try:
            self._drain()
            self._commit()
        except Exception as error:
            self._failed(error)
        else:
            self._succeeded()

    def _drain(self) -> None:
        queue, batch = self._queue, self._batch
        while queue:
            item = queue.popleft()
            if isinstance(item, tuple):
                batch.append(*item)
            elif isinstance(item, Future):
                self._flushes.append(item)
            else:
                batch.add(item)

    def _commit(self) -> None:
        if not self._batch:
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._batch.write(self._db)
        if self._ended + self._batch.ended >= PRUNE_EVERY:
            self._prune()
        self._db.execute("COMMIT")
        self._ended = (self._ended + self._batch.ended) % PRUNE_EVERY
        self._batch = Batch()

    def _succeeded(self) -> None:
        if self.error:
            lost = f"{self._dropped} old events were dropped" if self._dropped else "nothing was lost"
            self.error, self._pause, self._dropped = "", 0.0, 0
            self._say(f"the journal can be written again; {lost}")
        for done in self._flushes:
            if done.set_running_or_notify_cancel():  # whoever waited may have given up
                done.set_result(None)
        self._flushes = []

    def _failed(self, error: Exception) -> None:
        """Keeps the batch, says so once, and sees to another attempt."""
        text = f"{type(error).__name__}: {error}" if not isinstance(error, sqlite3.Error) else str(error)
        if self._db.in_transaction:
            self._db.rollback()
        first, longest = RETRY_SECONDS
        self._pause = min(self._pause * 2 or first, longest)
        if not self.error:
            self._say(f"the journal cannot be written ({text}): keeping records in memory, trying again")
        self.error = text
        self._shed()
        waiting = [done for done in self._flushes if done.set_running_or_notify_cancel()]
        for done in waiting:
            done.set_exception(LlmosError(_code(error), f"the journal cannot be written: {text}"))
        self._flushes = []
        self._something.set()

    def _shed(self) -> None:
        before = self._dropped
        self._dropped += self._batch.shed(self._backlog_bytes)
        if self._dropped and not before:
            self._say(f"the journal's backlog exceeds {self._backlog_bytes} bytes: dropping the oldest events")

    def _say(self, text: str) -> None:
        with suppress(Exception):  # whoever listens may be closing down; the records matter more
            self._on_error(text)

    def _prune(self) -> None:
        keep = self._keep.ended
        self._keep_ended(keep)
        while self._used_bytes() > self._keep.bytes and keep > self._keep.least_ended:
            keep = max(self._keep.least_ended, keep * 3 // 4)
            self._keep_ended(keep)
        self._db.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (self._keep.events,))

    def _keep_ended(self, count: int) -> None:
        """Forgets all processes that have ended but the newest so many."""
        old = "SELECT pid FROM processes WHERE ended IS NOT NULL ORDER BY ended DESC, pid DESC LIMIT -1 OFFSET ?"
        self._db.execute(f"DELETE FROM tokens WHERE pid IN ({old})", (count,))
        self._db.execute(f"DELETE FROM processes WHERE pid IN ({old})", (count,))

    def _used_bytes(self) -> int:
        """What the database would have without its free pages."""
        size, pages, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
        return int(size * (pages - free))


def _code(error: Exception) -> Code:
    full = isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return Code.ENOSPC if full else Code.EIO
