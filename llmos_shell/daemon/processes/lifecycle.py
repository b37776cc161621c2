"""The transitions of a process, one function each. Nothing else changes a process's phase, parent or session.

spawned NEW → ready READY → (finish_turn: chat → IDLE, else ENDED) ; IDLE → take_input → NEW → READY …
stop and cont are independent of the phase; end comes from anywhere; reap makes an ended process `gone`
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmos_shell.abi.types import EXIT_CODES, ExitInfo, Kind, KvState, Limits, Reason, Turn
from llmos_shell.abi.wire import Hello
from llmos_shell.daemon.processes import summary
from llmos_shell.daemon.processes.process import Phase, Process, printable
from llmos_shell.daemon.processes.table import INIT

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core


# -- sessions ----------------------------------------------------------------------------------------------------------


def start_session(core: Core, hello: Hello) -> Process:
    """A connected client, as a process; takes back the processes it had before the daemon was restarted."""
    session = Process(
        core.table.next_pid(), printable(hello.name), Kind.SESSION, ppid=INIT, tty=printable(hello.tty),
        host_pid=hello.pid, phase=Phase.IDLE,
    )  # fmt: skip
    session.session = session.pid
    core.table.add(session)
    core.events.debug("server", f"session {session.name} of host process {hello.pid} began", session.pid)
    for pid in hello.reclaim:
        process = core.table.find(pid)
        if process is not None and process.kind is not Kind.SESSION and process.session == 0:
            adopt(core, process, session)
    return session


def end_session(core: Core, session: Process, *, adopt: bool) -> None:
    """A client has gone: its processes get HUP, or with `adopt` become PID 1's."""
    session.phase = Phase.ENDED
    for process in core.table.of_session(session.pid):
        if not process.alive:
            process.ppid, process.session = INIT, 0
            reap(core, process)
        elif adopt:
            detach(core, process)
        else:
            process.session = 0
            end(core, process, Reason.HUP)
    for orphan in core.table.children(session.pid):
        orphan.ppid = INIT
    core.table.remove(session)
    core.scheduling.left(session.group)
    core.events.debug("server", f"session {session.name} ended", session.pid)


def detach(core: Core, process: Process) -> None:
    """Lets a process survive its session."""
    process.session, process.ppid = 0, INIT
    process.summoned = False
    core.residency.regrouped(process)
    core.save(process)
    if not process.alive:
        reap(core, process)
    process.notify()


def adopt(core: Core, process: Process, session: Process) -> None:
    """Makes a process belong to a session, which can then wait for it even if it has ended."""
    process.session, process.ppid = session.pid, session.pid
    process.tty = session.tty
    core.residency.regrouped(process)
    if not process.alive:
        process.reaped = False
        core.table.note_ended(process)
    process.notify()


def go_along(core: Core, child: Process, process: Process) -> None:
    """Makes a summary belong to the session, and have the nice value, of the process it is for."""
    if (child.session, child.tty) != (process.session, process.tty):
        child.session, child.tty = process.session, process.tty
        core.residency.regrouped(child)
        core.save(child)
    if child.nice != process.nice:
        renice(core, child, process.nice)


def renice(core: Core, process: Process, nice: int) -> None:
    """Gives it another nice value."""
    process.nice = nice
    core.save(process)
    conductor = core.residency.find(process.model)
    if conductor is not None and process.pid in conductor.members:
        conductor.renice(process)
    process.notify()


def watched(core: Core, process: Process, viewers: int) -> None:
    """So many more clients (or fewer) follow it in the foreground; whoever has been followed is no longer summoned."""
    before = process.foreground
    process.viewers += viewers
    process.summoned = process.summoned and viewers > 0
    if process.foreground != before and process.alive:
        core.residency.regrouped(process)


# -- running -----------------------------------------------------------------------------------------------------------


def spawned(core: Core, process: Process) -> None:
    """A new process enters the table and the journal."""
    core.table.add(process)
    core.save(process)
    core.events.info("proc", f"{process.name}: started with {process.model}", process.pid)
    arm_timer(core, process)


def ready(core: Core, process: Process) -> None:
    """Its tokens are there: it wants to run."""
    process.phase = Phase.READY
    process.turn_offset = process.output.length
    process.turn_start = len(process.tokens)
    process.sinks = min(process.sinks, process.turn_start)
    process.prefill = None
    core.save(process)
    process.notify()


def take_input(core: Core, process: Process, turn: Turn) -> None:
    """A sleeping chat got a message."""
    process.turns.append(turn)
    process.phase = Phase.NEW
    process.turn_offset = process.output.length
    core.save(process)
    process.notify()


def refuse_input(core: Core, process: Process) -> None:
    """The message just taken cannot be used: the chat sleeps on as if it had not come."""
    process.turns.pop()
    process.phase = Phase.IDLE
    core.save(process)
    process.notify()


def rewrite(core: Core, process: Process, turns: list[Turn]) -> None:
    """A sleeping chat has other turns in mind; its tokens are compared with them when it gets its next message."""
    if process.summary and (first := summary.moved(process.turns, turns, process.summarised)) is not None:
        process.summarised = first
    elif process.summary:
        process.summary, process.summarised, process.sinks, process.condensed = "", 0, 0, 0
    process.turns = turns
    process.known = 0
    core.save(process)
    process.notify()


def sleep(core: Core, process: Process) -> None:
    """A chat waits for its first input."""
    process.phase = Phase.IDLE
    core.save(process)
    process.notify()


def finish_turn(core: Core, process: Process, reason: Reason, message: str = "") -> None:
    """A turn ended: a chat falls asleep, anything else ends. Nothing is fed yet when it was NEW."""
    _say_held(core, process)
    text = process.output.read(process.turn_offset)
    count = max(0, len(process.tokens) - process.turn_start) if process.phase is Phase.READY else 0
    if process.phase is Phase.READY:
        process.known = len(process.turns) + 1
    process.turns.append(Turn(process.answer_role, text, count, reason))
    process.output.mark(reason)
    process.interrupting = False
    process.prefill = None
    _stop_waiting(process)
    process.phase = Phase.IDLE
    process.running = False
    if not process.chat:
        end(core, process, reason, message)
        return
    core.save(process)
    core.residency.changed(process)
    process.notify()


def _say_held(core: Core, process: Process) -> None:
    """Text that was held back for a stop string is said after all: the turn ends without one."""
    if process.held:
        process.output.append(process.held)
        core.append(process, len(process.tokens), (), process.held)
        process.held = ""


def forget_context(core: Core, process: Process) -> None:
    """Its model has other weights now: the tokens mean nothing to them, and its turns are read again."""
    core.events.info("proc", "its model has other weights: the conversation is read again", process.pid)
    core.swap.discard(process)
    process.tokens.clear()
    process.known = process.turn_start = process.computed = process.known_computed = process.sinks = 0
    process.kv = KvState.NONE
    process.weights = ""
    core.journal.truncate(process.pid, 0)
    core.save(process)


def set_running(process: Process, running: bool) -> bool:
    """Notes whether it is in the run set; returns whether that is news."""
    if process.running == running:
        return False
    process.running = running
    if running:
        _stop_waiting(process)
    elif process.wants_to_run:
        process.preemptions += 1
        process.waiting_since = time.monotonic()
    return True


def start_waiting(process: Process) -> None:
    """It wants to run, and does not."""
    if process.waiting_since is None and not process.running:
        process.waiting_since = time.monotonic()


def _stop_waiting(process: Process) -> None:
    if process.waiting_since is not None:
        process.waiting_seconds += time.monotonic() - process.waiting_since
        process.waiting_since = None


def stop(core: Core, process: Process) -> None:
    """It leaves the run set and keeps its KV."""
    if process.stopped:
        return
    process.stopped = True
    _stop_waiting(process)
    core.events.info("proc", "stopped", process.pid)
    core.save(process)
    core.residency.changed(process)
    process.notify()


def cont(core: Core, process: Process) -> None:
    """It goes on where it was stopped."""
    if not process.stopped:
        return
    process.stopped = False
    core.events.info("proc", "continued", process.pid)
    core.save(process)
    core.residency.changed(process)
    process.notify()


# -- ending ------------------------------------------------------------------------------------------------------------


def end(core: Core, process: Process, reason: Reason, message: str = "") -> None:
    """It is over, whatever it was doing."""
    if not process.alive:
        return
    if process.answering:
        _say_held(core, process)
        text = process.output.read(process.turn_offset)
        count = max(0, len(process.tokens) - process.turn_start) if process.phase is Phase.READY else 0
        if text or count:
            process.turns.append(Turn(process.answer_role, text, count, reason))
            process.known = len(process.turns)
    _stop_waiting(process)
    if process.timer is not None:
        process.timer.cancel()
        process.timer = None
    core.residency.release(process, cache=reason in _CLEAN)
    core.swap.discard(process)
    if process.task is not None:
        process.task.cancel()
        process.task = None
    process.phase = Phase.ENDED
    process.running = process.interrupting = process.stopped = False
    process.kv = KvState.NONE
    process.ended = time.time()
    process.exit = ExitInfo(process.pid, EXIT_CODES[reason], reason, message)
    process.output.pack()
    core.save(process)
    if core.scheduling.tracer.on:
        core.scheduling.tracer.process(process)
    level = "error" if reason in (Reason.ERROR, Reason.OOM) else "info"
    core.events.emit(level, "proc", f"{process.name}: ended ({reason}){': ' if message else ''}{message}", process.pid)
    for child in core.table.children(process.pid):
        child.ppid = child.session or INIT
    core.table.note_ended(process)
    if process.named_group:
        core.scheduling.left(process.named_group)
    if process.session == 0:
        reap(core, process)
    elif (oldest := core.table.excess_zombie()) is not None:
        reap(core, oldest)
    process.notify()
    core.note_activity()


_CLEAN = frozenset({Reason.EOS, Reason.STOP, Reason.LENGTH, Reason.CONTEXT, Reason.END, Reason.LIMIT})


def reap(core: Core, process: Process) -> None:
    """Somebody has seen how it ended, or nobody ever will. The journal still knows."""
    process.reaped = True
    core.table.note_ended(process)
    process.notify()


def fail(core: Core, process: Process, message: str) -> None:
    """Its turn cannot be carried out: a chat sleeps on, anything else ends."""
    if process.chat:
        core.events.error("proc", f"its turn failed: {message}", process.pid)
        finish_turn(core, process, Reason.ERROR, message)
    else:
        end(core, process, Reason.ERROR, message)


# -- limits ------------------------------------------------------------------------------------------------------------


def set_limits(core: Core, process: Process, limits: Limits) -> None:
    """Replaces the limits; one that is passed already ends the process."""
    process.limits = limits
    core.save(process)
    arm_timer(core, process)
    core.residency.changed(process)
    process.notify()


def arm_timer(core: Core, process: Process) -> None:
    """Ends the process when its time is up."""
    if process.timer is not None:
        process.timer.cancel()
        process.timer = None
    seconds = process.limits.seconds
    if seconds is not None and process.alive:
        left = max(0.0, process.started + seconds - time.time())
        text = f"its time limit of {seconds:g} s ran out"
        process.timer = core.loop.call_later(left, end, core, process, Reason.LIMIT, text)
