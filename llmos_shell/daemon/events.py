"""The daemon's messages: a bounded ring for `dmesg`, the log file, and whoever follows.

Owns no state but the ring. The journal keeps them too, and more of them, through the `sink` it is given.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from llmos_shell.abi.types import Event

RING = 1000
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
logger = logging.getLogger("llmosd")


class EventLog:
    """Where every part of the daemon says what it did. `watchers` are called with each new event."""

    def __init__(self, ring: int = RING) -> None:
        self.ring: deque[Event] = deque(maxlen=ring)
        self.watchers: set[Callable[[Event], None]] = set()
        self.sink: Callable[[Event], None] | None = None

    def emit(self, level: str, source: str, text: str, pid: int | None = None) -> None:
        """Records one message."""
        event = Event(time.time(), level, source, text, pid)
        self.ring.append(event)
        logger.log(_LEVELS[level], "%s: %s%s", source, f"[{pid}] " if pid is not None else "", text)
        if self.sink is not None:
            self.sink(event)
        for watcher in tuple(self.watchers):
            watcher(event)

    def debug(self, source: str, text: str, pid: int | None = None) -> None:
        """A detail for somebody who looks for a fault."""
        self.emit("debug", source, text, pid)

    def info(self, source: str, text: str, pid: int | None = None) -> None:
        """Something happened, as it should."""
        self.emit("info", source, text, pid)

    def warning(self, source: str, text: str, pid: int | None = None) -> None:
        """Something went wrong and was dealt with."""
        self.emit("warning", source, text, pid)

    def error(self, source: str, text: str, pid: int | None = None) -> None:
        """Something went wrong and cost somebody work."""
        self.emit("error", source, text, pid)

    def exception(self, source: str, error: BaseException) -> None:
        """A fault of the daemon itself: one line for people, the traceback for the log."""
        self.emit("error", source, f"{type(error).__name__}: {error}")
        logger.error("traceback", exc_info=error)
