"""`sys.*` and `mem.*`."""

from __future__ import annotations

import asyncio
import os
from collections import deque

from llmos_shell import __version__, paths
from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.types import Event, Kind, State
from llmos_shell.daemon.core import Core
from llmos_shell.daemon.syscalls import Context, Handler

BACKLOG = 10_000


async def status(context: Context, args: abi.Nothing) -> abi.SystemStatus:
    """The daemon at a glance."""
    core = context.core
    counts = states(core)
    workers = [conductor.workshop.describe() for conductor in core.residency.all()]
    return abi.SystemStatus(
        version=__version__,
        daemon_pid=os.getpid(),
        started=core.started,
        home=os.environ.get("LLMOS_HOME", ""),
        socket=paths.socket_path(),
        auto_started=core.auto,
        processes=sum(counts.values()),
        running=counts[State.RUNNING],
        runnable=counts[State.RUNNABLE] + counts[State.NEW],
        sleeping=counts[State.SLEEPING],
        stopped=counts[State.STOPPED],
        sessions=len(core.table.sessions()),
        workers=tuple(worker for worker in workers if worker is not None),
        tokens_per_second=core.tokens_per_second,
        tokens_total=core.tokens_total,
        policy=core.scheduling.policy,
        journal_bytes=core.journal.size(),
        journal_error=core.journal.error,
    )


async def stop(context: Context, args: abi.Stop) -> abi.Nothing:
    """Stops the daemon, once this call is answered."""
    context.core.events.info("daemon", "asked to stop", context.caller.pid)
    context.core.loop.call_soon(context.core.stopping.set)
    return abi.Nothing()


async def dmesg(context: Context, args: abi.Dmesg) -> None:
    """The newest messages, and with `follow` those to come."""
    core = context.core
    old = await _older(core, args.limit)
    waiting: deque[Event] = deque([*old, *core.events.ring][-args.limit :] if args.limit > 0 else (), maxlen=BACKLOG)
    ended: asyncio.Future[None] = core.loop.create_future()
    paused = False

    def pump() -> None:
        nonlocal paused
        paused = False
        while waiting:
            if context.congested:
                paused = True
                context.on_drained(pump)
                return
            context.emit(waiting.popleft())
        if not args.follow and not ended.done():
            ended.set_result(None)

    def heard(event: Event) -> None:
        waiting.append(event)
        if not paused:
            pump()

    if args.follow:
        core.events.watchers.add(heard)
    try:
        pump()
        await ended
    finally:
        core.events.watchers.discard(heard)


async def _older(core: Core, limit: int) -> list[Event]:
    """Those of this daemon's life that have left the ring, as far as they are asked for and can be read."""
    ring = core.events.ring
    if limit <= len(ring) or len(ring) < (ring.maxlen or 0):
        return []
    try:
        saved = await core.read(lambda: core.journal.events(min(limit, BACKLOG)))
    except LlmosError:
        return []
    return [event for event in saved if core.started <= event.time < ring[0].time]


def states(core: Core) -> dict[State, int]:
    """How many processes are in which state."""
    counts = dict.fromkeys(State, 0)
    for process in core.table:
        if process.kind is not Kind.SESSION and process.alive:
            counts[process.state] += 1
    return counts


HANDLERS: dict[str, Handler] = {
    "sys.status": status,
    "sys.stop": stop,
    "sys.dmesg": dmesg,
}
