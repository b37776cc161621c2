"""Ctrl-Z for `llmos COMMAND` in another shell: what the command waits for stops with it, and continues with it.

The handler uses a connection of its own, because it may have interrupted a call on the command's.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from types import FrameType

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import PROC_KILL, Kill
from llmos_shell.abi.types import Signal


def stop_together(pids: Callable[[], Collection[int]]) -> None:
    """From now on Ctrl-Z stops these processes before this one, and `fg` continues them."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        waiting = tuple(pids())
        _send(waiting, Signal.STOP)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, stop)
        _send(waiting, Signal.CONT)

    signal.signal(signal.SIGTSTP, stop)


def _send(pids: Collection[int], what: Signal) -> None:
    from llmos_shell.ipc.client import connect

    if not pids:
        return
    with suppress(LlmosError), connect("llmos", start=False) as client:
        for pid in pids:
            with suppress(LlmosError):
                client.call(PROC_KILL, Kill(pid, what))
