"""The controlling terminal of an interactive shell: who is in the foreground, its modes, job-control signals."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any

from llmos_shell.shell.interpreter.control import StopRequested

IGNORED = (signal.SIGTTOU, signal.SIGTTIN, signal.SIGQUIT, signal.SIGTERM)
"""What an interactive shell ignores and the programs it starts do not. (SIGTSTP is caught.)"""


_LEAVE_SCREEN = (
    "\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1l\x1b>\x1b[?25h\x1b[0m\x0f\x1b7\x1b[r\x1b8"
)
"""Undoes what full-screen programs do: other screen, mouse, keypad, hidden cursor, colours, character set, margins."""


class Terminal:
    """Takes the terminal for this process's group, lends it to jobs, and takes it back."""

    def __init__(self, fd: int) -> None:
        import termios

        self._termios = termios
        self._fd = fd
        self._lent = False
        self._stoppable: list[_Stoppable] = []  # the contexts that Ctrl-Z is to leave, the innermost last
        self._missed_stop = False
        self._previous = {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
        self._previous[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._on_stop)
        self._take_group()
        self.group = os.getpgrp()
        self._modes = termios.tcgetattr(fd)

    @classmethod
    def of_stdin(cls) -> Terminal | None:
        """The terminal on standard input, if there is one that this process may take."""
        try:
            if os.isatty(0) and os.tcgetpgrp(0) >= 0:
                return cls(0)
        except OSError:
            pass
        return None

    def _take_group(self) -> None:
        """Puts this process into a group of its own, and the group into the foreground."""
        if os.getpid() != os.getpgrp() and os.getsid(0) != os.getpid():
            os.setpgid(0, 0)
        os.tcsetpgrp(self._fd, os.getpgrp())

    def lend(self, group: int) -> None:
        """Puts a job's group into the foreground."""
        try:
            os.tcsetpgrp(self._fd, group)
            self._lent = True
        except OSError:
            pass  # the group has ended already

    def take_back(self, *, restore_modes: bool) -> None:
        """Puts the shell into the foreground; restores the modes after a job that may have left others behind."""
        if self._lent:
            os.tcsetpgrp(self._fd, self.group)
            self._lent = False
        try:
            if restore_modes:
                self._leave_screen()
                self._termios.tcsetattr(self._fd, self._termios.TCSADRAIN, self._modes)
            else:
                self._modes = self._termios.tcgetattr(self._fd)
        except self._termios.error:
            pass

    def modes(self) -> list[Any] | None:
        """Its modes at present, for `set_modes`; None where it has gone."""
        try:
            return self._termios.tcgetattr(self._fd)
        except self._termios.error:
            return None

    def set_modes(self, modes: list[Any]) -> None:
        """Puts modes in force that a job had when it was stopped."""
        with contextlib.suppress(self._termios.error):
            self._termios.tcsetattr(self._fd, self._termios.TCSADRAIN, modes)

    def _leave_screen(self) -> None:
        """Undoes what a program did that reads key by key, as full-screen programs do, and was killed."""
        canonical = self._termios.ICANON
        if self._modes[3] & canonical and not self._termios.tcgetattr(self._fd)[3] & canonical:
            with contextlib.suppress(OSError):
                os.write(self._fd, _LEAVE_SCREEN.encode())

    def stoppable(self) -> _Stoppable:
        """Inside this context Ctrl-Z raises `StopRequested`; elsewhere it does nothing."""
        return _Stoppable(self)

    def take_missed_stop(self) -> bool:
        """Whether Ctrl-Z came where it does nothing, since this was last asked: a job may not have had the terminal."""
        missed, self._missed_stop = self._missed_stop, False
        return missed

    def close(self) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stoppable:
            self._stoppable.pop().left = True  # here, since it may come when the context is just about to be left
            raise StopRequested
        self._missed_stop = True


class _Stoppable:
    def __init__(self, terminal: Terminal) -> None:
        self._contexts = terminal._stoppable
        self.left = False

    def __enter__(self) -> None:
        self._contexts.append(self)

    def __exit__(self, *_: object) -> None:
        if not self.left:
            self._contexts.pop()


def inherited_defaults(interactive: bool) -> tuple[int, ...]:
    """Signals this process ignores, that programs are to have at their defaults."""
    own = [signal.SIGPIPE, signal.SIGXFSZ]
    if interactive:
        own += [*IGNORED, signal.SIGTSTP]
    return tuple(own)


def flush_streams() -> None:
    """Writes out what built-in commands left in the buffers of stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
