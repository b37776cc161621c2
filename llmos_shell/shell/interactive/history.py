"""The shell's history: one file that all sessions append to and read from while they run. Knows no terminal.

Each entry is a comment line with its time, then its lines, each with a `+` before it. Whoever reads or writes holds a
lock on the file, so that no entry is seen half written, and none is lost when the file is shortened.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from llmos_shell import paths

DEFAULT_LIMIT = 10_000
"""Entries that are kept when `HISTSIZE` is not set."""

_HEAD = 32
"""Bytes by which a session knows the file again."""

SLACK = 1.1
"""The file may grow to so many times the limit before it is shortened."""


class History:
    """The entries, oldest first, those of other sessions included as of the last `refresh`.

    Where the file cannot be read or written, `problem` says why and what is typed is kept in memory.
    """

    def __init__(self, path: str, limit: int = DEFAULT_LIMIT) -> None:
        self.path = os.path.realpath(path)
        self.limit = max(limit, 1)
        self.problem = ""
        self._entries: list[str] = []
        self._times: list[str] = []
        self._head = b""
        self._read_bytes = 0
        self._newest_first: list[str] | None = None
        self.refresh()

    @property
    def entries(self) -> Sequence[str]:
        """All of them; number 1 is the first."""
        return self._entries

    @property
    def times(self) -> Sequence[str]:
        """When each was entered, as the file says."""
        return self._times

    def newest_first(self) -> Sequence[str]:
        """The entries without repetitions, each where it was used last."""
        if self._newest_first is None:
            self._newest_first = list(dict.fromkeys(reversed(self._entries)))
        return self._newest_first

    def refresh(self) -> None:
        """Takes in what this and other sessions have added since."""
        try:
            with self._locked(fcntl.LOCK_SH) as fd:
                self._take_in(fd)
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            self.problem = (error.strerror or str(error)).lower()

    def append(self, text: str) -> None:
        """Adds an entry at the end; not one that repeats the newest, is blank, or begins with a space."""
        if not text.strip() or text.startswith(" "):
            return
        text = text.rstrip("\n")
        try:
            with self._locked(fcntl.LOCK_EX, create=True) as fd:
                self._take_in(fd)
                if self._entries[-1:] != [text]:
                    _write_all(fd, _encode(text, str(datetime.now())))
                    self._take_in(fd)
                if len(self._entries) > self.limit * SLACK:
                    self._replace(range(len(self._entries) - self.limit, len(self._entries)))
        except OSError as error:
            self.problem = (error.strerror or str(error)).lower()
            if self._entries[-1:] != [text]:
                self._entries.append(text)
                self._times.append(str(datetime.now()))
                self._newest_first = None

    def delete(self, first: int, last: int | None = None) -> None:
        """Forgets the entries with these numbers. Raises IndexError, OSError."""
        last = first if last is None else last
        with self._locked(fcntl.LOCK_EX, create=True) as fd:
            self._take_in(fd)
            count = len(self._entries)
            if not 1 <= first <= last <= count:
                raise IndexError(first if not 1 <= first <= count else last)
            self._replace([*range(first - 1), *range(last, count)])

    def clear(self) -> None:
        """Forgets all. Raises OSError."""
        if os.path.exists(self.path):
            with self._locked(fcntl.LOCK_EX, create=True):
                self._replace(())

    # -- the file ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, how: int, *, create: bool = False) -> Iterator[int]:
        """A descriptor of the present file, locked: whoever replaces it does so under the lock of the old one."""
        if create:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        flags = (os.O_RDWR | os.O_APPEND | os.O_CREAT) if create else os.O_RDONLY
        while True:
            fd = os.open(self.path, flags | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, how)
                with suppress(FileNotFoundError):
                    if os.stat(self.path).st_ino == os.fstat(fd).st_ino:
                        yield fd
                        return
            finally:
                os.close(fd)

    def _take_in(self, fd: int) -> None:
        """Reads what is new; everything, when the file is another one or has been cut."""
        status = os.fstat(fd)
        head = os.pread(fd, min(_HEAD, self._read_bytes), 0)
        if not self._read_bytes or status.st_size < self._read_bytes or head != self._head:
            self._forget()
        if status.st_size == self._read_bytes:
            return
        data = b""
        while piece := os.pread(fd, 1 << 20, self._read_bytes + len(data)):
            data += piece
        self._read_bytes += len(data)
        self._head = self._head if len(self._head) == _HEAD else os.pread(fd, min(_HEAD, self._read_bytes), 0)
        for time, text in _decode(data):
            self._times.append(time)
            self._entries.append(text)
        self._newest_first = None

    def _forget(self) -> None:
        self._entries, self._times, self._head, self._read_bytes, self._newest_first = [], [], b"", 0, None

    def _replace(self, kept: Iterable[int]) -> None:
        """Puts a file with the entries at these places where the present one is, whose lock is held."""
        head = f"# {os.urandom(16).hex()}\n".encode()  # so that another session sees that it is another file
        data = head + b"".join(_encode(self._entries[at], self._times[at]) for at in kept)
        fd, temporary = tempfile.mkstemp(dir=os.path.dirname(self.path))
        try:
            _write_all(fd, data)
            os.replace(temporary, self.path)
            self._forget()
            self._take_in(fd)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        finally:
            os.close(fd)


def open_history(size: str | None = None) -> History:
    """The user's history; `size` is the value of `HISTSIZE`."""
    limit = int(size) if size and size.isascii() and size.isdigit() and len(size) < 10 else DEFAULT_LIMIT
    return History(paths.history_path(), limit)


def _encode(text: str, time: str) -> bytes:
    lines = "".join(f"+{line}\n" for line in text.split("\n"))
    return f"\n# {time}\n{lines}".encode("utf-8", "surrogateescape")


def _decode(data: bytes) -> Iterator[tuple[str, str]]:
    """Time and text of each entry."""
    time, lines = "", list[str]()
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        if line.startswith("+"):
            lines.append(line[1:])
            continue
        if lines:
            yield time, "\n".join(lines)
            lines = []
        if line.startswith("# "):
            time = line[2:]
    if lines:
        yield time, "\n".join(lines)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
