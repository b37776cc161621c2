"""The journal's schema as an ordered list of steps. A released step is never changed; a new one is appended."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from llmos_shell.abi.errors import Code, LlmosError


def _first(db: sqlite3.Connection) -> None:
    """Processes, their tokens as a log, events, audit records."""
    db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID")
    db.execute(
        "CREATE TABLE processes (pid INTEGER PRIMARY KEY, record BLOB NOT NULL, state TEXT NOT NULL,"
        " created REAL NOT NULL, ended REAL, exit INTEGER)"
    )
    db.execute("CREATE INDEX processes_ended ON processes (ended)")
    db.execute(
        "CREATE TABLE tokens (id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, start INTEGER NOT NULL,"
        " tokens BLOB NOT NULL, text TEXT NOT NULL, turn INTEGER NOT NULL, role TEXT NOT NULL)"
    )
    db.execute("CREATE INDEX tokens_pid ON tokens (pid, id)")
    db.execute(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, level TEXT NOT NULL,"
        " source TEXT NOT NULL, text TEXT NOT NULL, pid INTEGER)"
    )
    db.execute(
        "CREATE TABLE audit (id INTEGER PRIMARY KEY, time REAL NOT NULL, pid INTEGER NOT NULL,"
        " action TEXT NOT NULL, detail TEXT NOT NULL, outcome TEXT NOT NULL)"
    )


def _settings(db: sqlite3.Connection) -> None:
    """What was set while the daemon ran, and is to stay in force: the policy, groups."""
    db.execute("CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first, _settings)
"""Step `i` takes a database from schema version `i` to `i + 1`."""


def schema_of(db: sqlite3.Connection) -> int:
    """The schema version of a database; 0 when it is empty."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return 0
    row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    return int(row[0]) if row else 0


def migrate(db: sqlite3.Connection) -> None:
    """Brings the schema up to date, each step in a transaction. Raises EPROTO when it is newer than this program's."""
    present = schema_of(db)
    if present > len(MIGRATIONS):
        versions = f"schema {present}, this program knows {len(MIGRATIONS)}"
        raise LlmosError(Code.EPROTO, f"the journal is from a newer llmos ({versions})", hint="upgrade llmos-shell")
    for version, step in enumerate(MIGRATIONS[present:], present + 1):
        with db:
            db.execute("BEGIN IMMEDIATE")
            step(db)
            db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (version,))
