"""Holding back Python signal handlers over a few statements that must not be torn apart.

A handler that raises (KeyboardInterrupt, say) between receiving bytes and filing them would lose those bytes. Inside
`Uninterrupted` the handlers of Ctrl-C and Ctrl-Z are only noted, and run when it ends. Handlers run in the main thread
only, so elsewhere this does nothing. Keep the body free of anything that can wait.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTSTP)


class Uninterrupted:
    """A context manager; each instance is used by one thread at a time and may be used again, but not nested."""

    __slots__ = ("_noted", "_saved")

    def __init__(self) -> None:
        self._saved: list[tuple[signal.Signals, Callable[[int, FrameType | None], Any]]] = []
        self._noted: list[int] = []

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._saved.append((number, handler))
                    signal.signal(number, self._note)
        except BaseException:  # one that is not replaced yet
            self._restore()
            raise

    def __exit__(self, *_: object) -> None:
        if not self._saved:
            return
        noted, self._noted = self._noted, []
        self._restore()
        for received in noted:
            signal.raise_signal(received)

    def _restore(self) -> None:
        """Puts all handlers back, though one that is back may raise at once."""
        try:
            while self._saved:
                signal.signal(*self._saved[-1])
                self._saved.pop()
        finally:
            if self._saved:
                self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)
