"""Opening the journal's SQLite file: settings, schema, damage. Knows nothing of what is in it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.journaling.migrations import migrate

Connect = Callable[[str], sqlite3.Connection]

CHECK_BYTES = 256 * 1024 * 1024
"""A larger database is not read through at start (SQLite's quick_check takes a second for a few hundred MB)."""

CACHE_KIB = 512
"""Memory for pages of the database: what is written goes to its end, and what was written is hardly read again."""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def connect(path: str) -> sqlite3.Connection:
    """A connection that leaves transactions to its user and may change threads. The file is private to the user.

    A file that is there is not opened by anyone but SQLite: closing it again would drop the locks that this process's
    other connections hold on it, and then another process that closes the database takes its write-ahead log away.
    """
    if not os.path.exists(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)


def open_database(path: str, connect: Connect, on_error: Callable[[str], None]) -> sqlite3.Connection:
    """The writer's connection, schema up to date. A damaged file is moved aside, reported, and replaced by a fresh one.

    Raises EIO when it cannot be opened, EPROTO when its schema is newer than this program.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        try:
            return _prepared(path, connect)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            on_error(f"the journal is damaged ({error}): it was moved to {move_aside(path)}, a fresh one begins")
            return _prepared(path, connect)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise LlmosError(Code.EIO, f"cannot open the journal {path}: {why}") from error


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that the file is not a sound database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def move_aside(path: str) -> str:
    """Renames the database and what belongs to it to `PATH.corrupt-N`; returns the new path."""
    number = 1
    while os.path.exists(f"{path}.corrupt-{number}"):
        number += 1
    aside = f"{path}.corrupt-{number}"
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.replace(path + suffix, aside + suffix)
    return aside


def _prepared(path: str, connect: Connect) -> sqlite3.Connection:
    db = connect(path)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if os.path.getsize(path) <= CHECK_BYTES:
            _check(db)
        migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection) -> None:
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        error = sqlite3.DatabaseError(str(found).replace("\n", " "))
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
