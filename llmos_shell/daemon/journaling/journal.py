"""The journal: every process, token, event and audit record in one SQLite database, written by one thread.

Handing something in costs a queue operation. The writer sleeps until there is something, waits up to 50 ms for more,
and commits it all at once: after `kill -9` at most that much is lost (after a power cut, also what the system had not
yet put on disk: `synchronous=NORMAL`). An error of the disk never reaches who hands in: it is reported once, the
records stay in memory and are written when it is over.

Kept are all live processes, the newest 10,000 that ended with their tokens (fewer of them, beyond 1 GiB), the newest
100,000 events, and every audit record.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Event
from llmos_shell.daemon.journaling.database import Connect, connect, open_database
from llmos_shell.daemon.journaling.records import AuditRow, Chunk, Ended, ProcessRow, Saved, SettingRow, joined
from llmos_shell.daemon.journaling.writer import BACKLOG_BYTES, FLUSH_SECONDS, KEEP, Keep, Writer

__all__ = ["Chunk", "Ended", "Journal", "Keep", "Saved"]

READ_FLUSH_SECONDS = 2.0
"""How long a reading waits for what was handed in before it to be written."""

_CHUNKS = "SELECT start, tokens, text, turn, role FROM tokens WHERE pid = ? ORDER BY id"


class Journal:
    """One open journal. `on_error` gets one line for the user, and is called from the writer's thread."""

    def __init__(
        self,
        path: str,
        on_error: Callable[[str], None],
        *,
        connect: Connect = connect,
        keep: Keep = KEEP,
        flush_seconds: float = FLUSH_SECONDS,
        backlog_bytes: int = BACKLOG_BYTES,
    ) -> None:
        """Opens or creates it. A damaged database is moved aside and reported; EPROTO for a newer schema, EIO else."""
        self.path = path
        self._connect = connect
        db = open_database(path, connect, on_error)
        self._writer = Writer(db, on_error, keep=keep, flush_seconds=flush_seconds, backlog_bytes=backlog_bytes)

    # -- writing: none of these waits or fails -----------------------------------------------------------------------

    def put_process(
        self, pid: int, record: bytes, ended: float | None = None, *, state: str = "", exit_code: int | None = None
    ) -> None:
        """Saves a process's record, replacing the former one. With `ended` (an instant) it is no longer live."""
        self._writer.put(ProcessRow(pid, record, state, time.time(), ended, exit_code))

    def append(
        self, pid: int, start: int, tokens: Sequence[int], text: str = "", *, turn: int = 0, role: str = ""
    ) -> None:
        """Saves tokens that entered a context at position `start`, and text that became readable with them.

        A `start` before the present end replaces what follows it. Do not change `tokens` afterwards.
        """
        self._writer.put((pid, start, tokens, text, turn, role))

    def truncate(self, pid: int, n_tokens: int) -> None:
        """Cuts the context to its first `n_tokens` tokens. The text stays: it was said."""
        self._writer.put((pid, n_tokens, (), "", -1, ""))

    def event(self, event: Event) -> None:
        """Saves a line of `dmesg`."""
        self._writer.put(event)

    def audit(self, pid: int, action: str, detail: str, outcome: str, *, now: float | None = None) -> None:
        """Saves an audit record: who did what, and whether it was allowed."""
        self._writer.put(AuditRow(time.time() if now is None else now, pid, action, detail, outcome))

    def put_setting(self, key: str, value: bytes) -> None:
        """Keeps a setting, replacing the former value; an empty one takes it away."""
        self._writer.put(SettingRow(key, value))

    def flush(self) -> Future[None]:
        """Has everything handed in so far committed at once; the future fails (ENOSPC, EIO) when that is impossible."""
        return self._writer.flush()

    def close(self) -> bool:
        """Writes what is left and closes; whether everything was written."""
        return self._writer.close()

    # -- reading: waits for what was handed in before ----------------------------------------------------------------

    def load(self) -> list[Saved]:
        """All live processes, by PID."""
        with self._reading() as db:
            rows = db.execute("SELECT pid, record FROM processes WHERE ended IS NULL ORDER BY pid").fetchall()
            return [_saved(db, pid, record, None) for pid, record in rows]

    def saved(self, pid: int) -> Saved | None:
        """One process, live or ended; None when the journal does not know it."""
        with self._reading() as db:
            row = db.execute("SELECT record, ended FROM processes WHERE pid = ?", (pid,)).fetchone()
            return _saved(db, pid, row[0], row[1]) if row else None

    def history(self, limit: int) -> list[Ended]:
        """The newest `limit` processes that ended, newest last."""
        with self._reading() as db:
            found = db.execute(
                "SELECT pid, record, ended FROM processes WHERE ended IS NOT NULL"
                " ORDER BY ended DESC, pid DESC LIMIT ?",
                (limit,),
            ).fetchall()
            return [Ended(*row) for row in reversed(found)]

    def tokens(self, pid: int) -> Sequence[int]:
        """The context of a process, live or ended; empty when the journal does not know it."""
        with self._reading() as db:
            return joined(db.execute(_CHUNKS, (pid,)))[0]

    def events(self, limit: int) -> list[Event]:
        """The newest `limit` events, newest last."""
        with self._reading() as db:
            found = db.execute(
                "SELECT time, level, source, text, pid FROM events ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()
            return [Event(*row) for row in reversed(found)]

    def settings(self) -> dict[str, bytes]:
        """All settings."""
        with self._reading() as db:
            return dict(db.execute("SELECT key, value FROM settings WHERE value != x''"))

    def last_pid(self) -> int:
        """The greatest PID ever saved; 0 at first."""
        with self._reading() as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'last_pid'").fetchone()
            return int(row[0]) if row else 0

    # -- figures -----------------------------------------------------------------------------------------------------

    @property
    def error(self) -> str:
        """Why it cannot be written at present; else empty."""
        return self._writer.error

    def size(self) -> int:
        """Bytes on disk."""
        files = (self.path, f"{self.path}-wal")
        return sum(os.path.getsize(file) for file in files if os.path.exists(file))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for one reading. What cannot be written is not seen. Raises EIO."""
        done = self._writer.flush()
        with suppress(TimeoutError):
            done.exception(READ_FLUSH_SECONDS)
        try:
            db = self._connect(self.path)
            try:
                db.execute("PRAGMA query_only = ON")
                yield db
            finally:
                db.close()
        except (OSError, sqlite3.Error) as error:
            raise LlmosError(Code.EIO, f"cannot read the journal: {error}") from error


def _saved(db: sqlite3.Connection, pid: int, record: bytes, ended: float | None) -> Saved:
    tokens, chunks, damage = joined(db.execute(_CHUNKS, (pid,)))
    return Saved(pid, record, tokens, chunks, ended, damage)
