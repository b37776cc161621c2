"""`sys.*`, `mem.*` and `sched.*`."""

from __future__ import annotations

import asyncio
import os
from collections import deque

from llmos_shell import __version__, paths
from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.types import Event, Kind, State
from llmos_shell.daemon.core import Core
from llmos_shell.daemon.policies import POLICIES, policy_named
from llmos_shell.daemon.syscalls import Context, Handler

BACKLOG = 10_000


async def status(context: Context, args: abi.Nothing) -> abi.SystemStatus:
    """The daemon at a glance."""
    core = context.core
    counts = _states(core)
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
        policy=core.policy,
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
    waiting: deque[Event] = deque(list(core.events.ring)[-args.limit :] if args.limit > 0 else (), maxlen=BACKLOG)
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


async def show_scheduler(context: Context, args: abi.Nothing) -> abi.SchedulerInfo:
    """The scheduler."""
    core = context.core
    counts = _states(core)
    return abi.SchedulerInfo(
        core.policy, tuple(POLICIES), counts[State.RUNNING], counts[State.RUNNABLE] + counts[State.NEW],
        counts[State.SLEEPING], counts[State.STOPPED],
    )  # fmt: skip


async def set_policy(context: Context, args: abi.PolicyName) -> abi.SchedulerInfo:
    """Puts a policy in force for all models."""
    core = context.core
    policy_named(args.policy)
    core.policy = args.policy
    for conductor in core.residency.all():
        conductor.scheduler.set_policy(args.policy)
        conductor.planner.replan()
    core.events.info("sched", f"policy {args.policy}", context.caller.pid)
    return await show_scheduler(context, abi.Nothing())


def _states(core: Core) -> dict[State, int]:
    counts = dict.fromkeys(State, 0)
    for process in core.table:
        if process.kind is not Kind.SESSION and process.alive:
            counts[process.state] += 1
    return counts


HANDLERS: dict[str, Handler] = {
    "sched.show": show_scheduler,
    "sched.set": set_policy,
    "sys.status": status,
    "sys.stop": stop,
    "sys.dmesg": dmesg,
}
