"""`why`: in a sentence, what a process waits for, behind whom, and about how long. Reads, changes nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llmos_shell.abi.syscalls import Why
from llmos_shell.abi.types import Kind, KvState, State
from llmos_shell.daemon.processes.process import Phase, Process

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor

NAMED = 3
"""Processes that are named among those in front."""


def why(core: Core, process: Process) -> Why:
    """Why it is where it is."""
    conductor = core.residency.find(process.model) if process.kind is Kind.MODEL else None
    waited = process.waiting_seconds
    if process.waiting_since is not None:
        waited += core.now() - process.waiting_since
    answer = Why(process.pid, "", process.state, waited)
    if conductor is not None and process.wants_to_run and process.pid in conductor.scheduler:
        return _of_scheduled(core, conductor, process, answer)
    return _said(answer, _of_others(core, process))


def _of_others(core: Core, process: Process) -> str:
    if process.kind is Kind.SESSION:
        return "it is a session: a connected client"
    if not process.alive:
        return f"it has ended ({process.exit.reason if process.exit is not None else 'unknown'})"
    if process.stopped:
        return "it is stopped, until somebody sends CONT (`cont`, `fg`)"
    if process.summariser:
        return f"its context is full: it waits for a summary of its beginning, which {process.summariser} writes"
    if process.phase is Phase.IDLE:
        return "it sleeps, until it is sent a message (`attach`)"
    other = core.residency.gives_way_to(process.model)
    if other and process.phase is Phase.NEW:
        return f"it waits: {process.model} begins no turns until {other}, which waits for its memory, has had it"
    if process.phase is Phase.NEW:
        return f"it waits for {process.model} to be loaded, or for its prompt to be read"
    return "its turn is being ended" if process.interrupting else f"it waits for {process.model} to be loaded"


def _of_scheduled(core: Core, conductor: Conductor, process: Process, answer: Why) -> Why:
    scheduler, now = conductor.scheduler, core.now()
    group = core.scheduling.groups.find(process.group)
    if group is not None and group.paused(now):
        left = group.paused_until - now
        return _said(answer, f"it waits: {group.reason}; its processes go on in {left:.1f} s", seconds=left)
    if not scheduler.wants(process.pid):
        return _said(answer, "it waits until another process, which may have crashed the worker, has been tried alone")
    entity = scheduler.entity(process.pid)
    manner = f"policy {scheduler.policy}, nice {process.nice}, group {process.group}{_deadline(core, process)}"
    if process.state is not State.RUNNING:
        return _of_waiting(core, conductor, process, answer, manner)
    since = _time(now - entity.started)
    beside = len(scheduler.running) - 1
    text = f"it runs since {since}, beside {beside} other{'s' * (beside != 1)}"
    if conductor.planner.paused:
        text = f"it is in the run set since {since}, but another model has its turn on the {conductor.device}"
    elif process.prefill is not None:
        text = f"it reads its prompt, {process.prefill[0]} of {process.prefill[1]} tokens, since {since}"
    return _said(answer, f"{text} ({manner})")


def _deadline(core: Core, process: Process) -> str:
    if process.missed_deadline:
        return ", its deadline missed"
    return "" if process.deadline is None else f", deadline in {process.deadline - core.wall():.0f} s"


def _of_waiting(core: Core, conductor: Conductor, process: Process, answer: Why, manner: str) -> Why:
    scheduler, now = conductor.scheduler, core.now()
    ahead, place = scheduler.line(process.pid, now, NAMED)
    behind = [*ahead, *(pid for pid in scheduler.running if pid not in ahead)]
    named, more = behind[:NAMED], place - 1 + len(scheduler.running) - min(NAMED, len(behind))
    rate = scheduler.admission_rate(now)
    seconds = place / rate if rate else None
    entity = scheduler.entity(process.pid)
    text = f"it waits since {_time(now - entity.enqueued)}, {place}. of {scheduler.runnable} in line"
    if named:
        text += f", behind {', '.join(_name(core, pid) for pid in named)}{f' and {more} more' if more > 0 else ''}"
    reason = process.blocked or entity.held
    text += f": {reason}" if reason else ""
    text += f"; about {_time(seconds)} to go" if seconds is not None else "; for how long is not known yet"
    if process.kv is KvState.PARKED:
        text += "; its memory is parked meanwhile"
    return _said(answer, f"{text} ({manner})", place, scheduler.runnable, tuple(named), seconds)


def _name(core: Core, pid: int) -> str:
    process = core.table.find(pid)
    return f"{pid} ({process.name})" if process is not None else str(pid)


def _time(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{math.ceil(seconds)} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"


def _said(
    answer: Why, text: str, place: int = 0, of: int = 0, behind: tuple[int, ...] = (), seconds: float | None = None
) -> Why:
    return Why(answer.pid, text, answer.state, answer.waited, place, of, behind, seconds)
