"""What the journal keeps, as data: chunks of tokens, saved processes, and the batch that waits to be written.

The tokens of a process are a log of chunks. Reading one cuts the tokens so far to its `start`, then appends its own;
so a chunk that starts before the end replaces what followed, and a chunk without tokens only cuts. Text is never cut:
it is what was said.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Sequence

from msgspec import Struct

from llmos_shell.abi.types import Event

ROW_BYTES = 100
"""What a record costs in memory beside its contents, roughly."""


class Chunk(Struct, frozen=True):
    """Tokens that entered a context at `start`, and the text that became readable with them."""

    start: int
    tokens: Sequence[int]
    text: str = ""
    turn: int = 0  # the entry of the transcript it belongs to
    role: str = ""  # system, user, assistant, prompt, completion


class Saved(Struct, frozen=True):
    """A process as the journal has it. `tokens` is its context; `chunks` is all that ever entered, with the text."""

    pid: int
    record: bytes
    tokens: Sequence[int]
    chunks: tuple[Chunk, ...]
    ended: float | None = None
    damage: str = ""  # what could not be read back


class Ended(Struct, frozen=True):
    """A process that ended, without its tokens."""

    pid: int
    record: bytes
    ended: float


class ProcessRow(Struct):
    """A process's record to be written."""

    pid: int
    record: bytes
    state: str
    created: float
    ended: float | None
    exit: int | None


class ChunkRow(Struct):
    """A chunk to be written; adjoining ones of one process become one."""

    pid: int
    start: int
    tokens: array[int]
    text: list[str]
    turn: int
    role: str

    def takes(self, pid: int, start: int, turn: int, role: str) -> bool:
        """Whether a chunk with these properties continues this one."""
        follows = start == self.start + len(self.tokens)
        return follows and pid == self.pid and turn == self.turn and role == self.role


class AuditRow(Struct):
    """An audit record to be written."""

    time: float
    pid: int
    action: str
    detail: str
    outcome: str


class SettingRow(Struct):
    """A setting to be written; an empty value takes it away."""

    key: str
    value: bytes


Row = ProcessRow | ChunkRow | AuditRow | SettingRow | Event
Appended = tuple[int, int, Sequence[int], str, int, str]
"""A chunk as it was handed in: pid, start, tokens, text, turn, role."""


class Batch:
    """Records to be written in one transaction. `bytes` is about what it occupies."""

    def __init__(self) -> None:
        self.bytes = 0
        self.last_pid = 0
        self.ended = 0
        self._processes: dict[int, ProcessRow] = {}  # the newest of each
        self._chunks: list[ChunkRow] = []
        self._open: dict[int, ChunkRow] = {}  # the last of each process
        self._events: list[Event] = []
        self._audit: list[AuditRow] = []
        self._settings: dict[str, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._processes or self._chunks or self._events or self._audit or self._settings or self.last_pid)

    def append(self, pid: int, start: int, tokens: Sequence[int], text: str, turn: int, role: str) -> None:
        """Adds a chunk, to the last one of its process where it continues it."""
        last = self._open.get(pid)
        if last is None or not last.takes(pid, start, turn, role):
            last = self._open[pid] = ChunkRow(pid, start, array("i"), [], turn, role)
            self._chunks.append(last)
            self.bytes += ROW_BYTES
        last.tokens.extend(tokens)
        if text:
            last.text.append(text)
        self.bytes += 4 * len(tokens) + len(text)

    def add(self, row: ProcessRow | AuditRow | SettingRow | Event) -> None:
        """Adds any other record."""
        if isinstance(row, ProcessRow):
            old = self._processes.get(row.pid)
            self.bytes += len(row.record) - (len(old.record) if old else -ROW_BYTES)
            self._processes[row.pid] = row
            self.last_pid = max(self.last_pid, row.pid)
            self.ended += row.ended is not None
        elif isinstance(row, Event):
            self._events.append(row)
            self.bytes += ROW_BYTES + len(row.text)
        elif isinstance(row, SettingRow):
            self._settings[row.key] = row.value
        else:
            self._audit.append(row)
            self.bytes += ROW_BYTES + len(row.detail)

    def shed(self, limit: int) -> int:
        """Drops the oldest events until at most `limit` bytes are held, nothing else; returns how many went."""
        count = 0
        while self.bytes > limit and count < len(self._events):
            self.bytes -= ROW_BYTES + len(self._events[count].text)
            count += 1
        del self._events[:count]
        return count

    def write(self, db: sqlite3.Connection) -> None:
        """Executes the statements; the transaction is the caller's."""
        db.executemany(
            "INSERT INTO processes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (pid) DO UPDATE SET record = excluded.record,"
            " state = excluded.state, ended = excluded.ended, exit = excluded.exit",
            ((p.pid, p.record, p.state, p.created, p.ended, p.exit) for p in self._processes.values()),
        )
        db.executemany(
            "INSERT INTO tokens (pid, start, tokens, text, turn, role) VALUES (?, ?, ?, ?, ?, ?)",
            ((c.pid, c.start, c.tokens.tobytes(), clean("".join(c.text)), c.turn, c.role) for c in self._chunks),
        )
        db.executemany(
            "INSERT INTO events (time, level, source, text, pid) VALUES (?, ?, ?, ?, ?)",
            ((e.time, e.level, e.source, clean(e.text), e.pid) for e in self._events),
        )
        db.executemany(
            "INSERT INTO audit (time, pid, action, detail, outcome) VALUES (?, ?, ?, ?, ?)",
            ((a.time, a.pid, clean(a.action), clean(a.detail), clean(a.outcome)) for a in self._audit),
        )
        db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", self._settings.items())
        if self.last_pid:
            db.execute(
                "INSERT INTO meta VALUES ('last_pid', ?)"
                " ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
                (self.last_pid,),
            )


def clean(text: str) -> str:
    """The text as SQLite can hold it: lone surrogates (undecodable bytes of a file name, say) become `?`."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def joined(rows: Iterable[tuple[int, bytes, str, int, str]]) -> tuple[array[int], tuple[Chunk, ...], str]:
    """The context, all chunks, and what is damaged, from (start, tokens, text, turn, role) in the order of writing."""
    context, chunks, damage = array("i"), [], ""
    for start, blob, text, turn, role in rows:
        tokens = array("i")
        tokens.frombytes(blob[: len(blob) - len(blob) % tokens.itemsize])
        if tokens or text:
            chunks.append(Chunk(start, tokens, text, turn, role))
        if start > len(context) and not damage:
            damage = f"tokens {len(context)} to {start} are missing"
        if not damage:
            del context[start:]
            context.extend(tokens)
    return context, tuple(chunks), damage
