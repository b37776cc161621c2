"""What a signal does to a process, in each of its states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Kind, Reason, Signal
from llmos_shell.daemon.processes import lifecycle
from llmos_shell.daemon.processes.process import Phase, Process
from llmos_shell.daemon.processes.table import INIT

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

_ENDS = {Signal.TERM: Reason.TERM, Signal.KILL: Reason.KILL, Signal.HUP: Reason.HUP}


def send(core: Core, pid: int, signal: Signal, *, tree: bool) -> None:
    """Sends a signal to a process, and with `tree` first to those below it.

    Raises ESRCH for one that has ended, EPERM for the daemon, EINVAL for a signal a session cannot take.
    """
    if pid == INIT:
        raise LlmosError(Code.EPERM, "PID 1 is the daemon", hint="`llmos daemon stop` stops it", pid=pid)
    process = core.table.living(pid)
    if tree:
        for below in reversed(core.table.descendants(pid)):
            if below.alive:
                _deliver(core, below, signal)
    if process.alive:
        _deliver(core, process, signal)


def _deliver(core: Core, process: Process, signal: Signal) -> None:
    if process.kind is Kind.SESSION:
        _hang_up(core, process, signal)
    elif signal is Signal.STOP:
        lifecycle.stop(core, process)
    elif signal is Signal.CONT:
        lifecycle.cont(core, process)
    elif signal is Signal.INT:
        interrupt(core, process)
    else:
        lifecycle.end(core, process, _ENDS[signal])


def interrupt(core: Core, process: Process) -> None:
    """Ends the turn of a chat, or a process that is no chat; a sleeping chat does not notice."""
    if not process.chat:
        lifecycle.end(core, process, Reason.INTERRUPT)
    elif process.phase is Phase.NEW:
        if process.task is not None:
            process.task.cancel()
            process.task = None
        lifecycle.finish_turn(core, process, Reason.INTERRUPT)
    elif process.phase is Phase.READY and not process.interrupting:
        conductor = core.residency.find(process.model)
        if conductor is not None and process.pid in conductor.members:
            conductor.interrupt(process, Reason.INTERRUPT)
        else:
            lifecycle.finish_turn(core, process, Reason.INTERRUPT)


def _hang_up(core: Core, session: Process, signal: Signal) -> None:
    if signal not in (Signal.HUP, Signal.TERM, Signal.KILL):
        raise LlmosError(Code.EINVAL, f"a session cannot take {signal}", hint="HUP ends it", pid=session.pid)
    for connection in list(core.connections):
        if connection.session is session:
            core.loop.call_soon(connection.close)
