"""Handing over the writing of a process's text, from a thread of this shell to a program that outlives the shell."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import subprocess


class HandedOver(Exception):
    """Somebody else writes the rest."""


_SOON_SECONDS = 5.0
"""How long to wait for a command that has started its process to say how it writes: it is about to."""


class _State(Enum):
    UNKNOWN = 0
    IMPOSSIBLE = 1  # what the command writes is more than the process's text
    WRITING = 2
    NEEDLESS = 3  # it writes to the terminal, or not itself
    DONE = 4


class Handover:
    """Between the thread that writes and the one that has somebody else go on.

    The former says how it writes with `begin`, `needless` or `impossible`, writes inside of `writing`, and says `end`;
    the latter asks whether it is `possible`, and then calls `take`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known = threading.Event()
        self._state = _State.UNKNOWN
        self._pid = 0
        self._fd = -1
        self._offset = 0

    def begin(self, pid: int, out: TextIO) -> None:
        """From now on the text of this process is written there, and nothing else."""
        self._pid, self._fd = pid, out.fileno()
        self._settle(_State.WRITING)

    def needless(self) -> None:
        """There is nothing to hand over."""
        self._settle(_State.NEEDLESS)

    def end(self) -> None:
        """All is written; the file may be closed."""
        with self._lock:
            if self._state is _State.WRITING:
                self._state = _State.NEEDLESS

    def impossible(self) -> None:
        """Nobody else could write what the command does."""
        self._settle(_State.IMPOSSIBLE)

    def _settle(self, state: _State) -> None:
        with self._lock:
            self._state = state
            self._known.set()

    @contextmanager
    def writing(self, end: int) -> Iterator[None]:
        """Inside, the text up to the offset `end` is written (and flushed). Raises `HandedOver`."""
        with self._lock:
            if self._state is _State.DONE:
                raise HandedOver
            yield
            self._offset = end

    def possible(self) -> bool:
        """Whether `take` keeps everything going."""
        self._known.wait(_SOON_SECONDS)
        return self._state not in (_State.UNKNOWN, _State.IMPOSSIBLE)

    def take(self) -> None:
        """Starts a program that writes the rest; the thread writes no more."""
        with self._lock:
            if self._state is _State.WRITING:
                start_writer(self._pid, self._fd, self._offset)
                self._state = _State.DONE


def start_writer(pid: int, fd: int, offset: int = 0) -> subprocess.Popen[bytes]:
    """A program of its own that writes a process's text, from an offset on, to its end."""
    import subprocess

    log = ["log", "--follow", "--answers", "--from", str(offset), str(pid)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "llmos_shell", *log],
        stdin=subprocess.DEVNULL,
        stdout=fd,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
