"""`proc.*`: processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import MsgspecError

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ExitInfo, Kind, ProcessInfo, State
from llmos_shell.daemon.handlers.rewrite import rewrite
from llmos_shell.daemon.handlers.start import check_limits, check_nice, fork, spawn, take_input
from llmos_shell.daemon.processes import lifecycle, signals
from llmos_shell.daemon.processes.follow import Follower
from llmos_shell.daemon.processes.process import Figures, Phase, Process
from llmos_shell.daemon.processes.record import decode_record, from_record
from llmos_shell.daemon.syscalls import Context, Handler

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

MAX_HISTORY = 100_000
"""Ended processes that `ps` shows at most; the journal keeps fewer."""


async def list_(context: Context, args: abi.List) -> tuple[ProcessInfo, ...]:
    """`ps`."""
    core = context.core
    rows: dict[int, ProcessInfo] = {}
    limit = min(max(0, args.limit), MAX_HISTORY)
    if args.all:
        rows = await core.read(lambda: _old_rows(core, limit))
    for process in core.table:
        if process.kind is Kind.SESSION and not args.sessions:
            continue
        if process.alive or not process.reaped or args.all:
            rows[process.pid] = process.info(core.figures(process))
    gone = sorted((row for row in rows.values() if row.state is State.GONE), key=lambda row: (row.ended or 0, row.pid))
    for row in gone[: max(0, len(gone) - limit)]:
        del rows[row.pid]
    return tuple(row for _, row in sorted(rows.items()))


async def info(context: Context, args: abi.Pid) -> ProcessInfo:
    """One row of `ps`."""
    process = await context.core.recall(args.pid)
    if not process.alive:
        await context.core.metering.settled(process.pid)
    return process.info(context.core.figures(process))


async def kill(context: Context, args: abi.Kill) -> abi.Nothing:
    """A signal."""
    signals.send(context.core, args.pid, args.signal, tree=args.tree)
    return abi.Nothing()


async def nice(context: Context, args: abi.Nice) -> abi.Nothing:
    """Priority."""
    check_nice(args.nice)
    lifecycle.renice(context.core, _model_process(context, args.pid), args.nice)
    return abi.Nothing()


async def wait(context: Context, args: abi.Wait) -> ExitInfo | None:
    """Waits; a session's own child is reaped."""
    process = await context.core.recall(args.pid)
    if process.kind is Kind.SESSION:
        raise LlmosError(Code.ECHILD, f"{args.pid} is a session", hint="wait for one of its processes", pid=args.pid)

    def over() -> bool:
        return not process.alive or (args.until == "idle" and process.phase is Phase.IDLE)

    if args.timeout is not None and not args.timeout >= 0:
        raise LlmosError(Code.EINVAL, f"a time-out of {args.timeout} s", hint="use 0 or more")
    try:
        async with asyncio.timeout(args.timeout):
            await until(process, over)
    except TimeoutError:
        text = f"process {args.pid} did not {'end' if args.until == 'exit' else 'fall asleep'} in {args.timeout:g} s"
        raise LlmosError(Code.ETIMEDOUT, text, pid=args.pid) from None
    if process.alive:
        return None
    await context.core.durable()
    if not process.reaped and context.caller.pid in (process.session, process.ppid):
        lifecycle.reap(context.core, process)
    return process.exit


async def follow(context: Context, args: abi.Follow) -> None:
    """Streams output."""
    process = await context.core.recall(args.pid)
    if process.kind is Kind.SESSION:
        raise LlmosError(Code.EINVAL, f"{args.pid} is a session, which has no output", pid=args.pid)
    conductor = context.core.residency.find(process.model)
    process.readers += 1
    if conductor is not None:
        conductor.planner.replan()
    try:
        await Follower(context, process, args).run()
    finally:
        process.readers -= 1


async def limits(context: Context, args: abi.SetLimits) -> abi.Nothing:
    """`ulimit`."""
    check_limits(args.limits)
    lifecycle.set_limits(context.core, _model_process(context, args.pid), args.limits)
    return abi.Nothing()


async def detach(context: Context, args: abi.Pid) -> abi.Nothing:
    """`disown`."""
    lifecycle.detach(context.core, _model_process(context, args.pid))
    return abi.Nothing()


async def adopt(context: Context, args: abi.Adopt) -> abi.Nothing:
    """Takes a process into the calling session."""
    lifecycle.adopt(context.core, _model_process(context, args.pid), context.caller)
    return abi.Nothing()


async def transcript(context: Context, args: abi.Pid) -> abi.Transcript:
    """What was asked and said."""
    process = await context.core.recall(args.pid)
    return abi.Transcript(
        process.pid, process.model, process.transcript(), process.sampling.seed or 0, process.output.length
    )


# -- shared ------------------------------------------------------------------------------------------------------------


async def until(process: Process, over: Callable[[], bool]) -> None:
    """Waits until `over()`, looking whenever the process changed."""
    if over():
        return
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def look() -> None:
        if over() and not done.done():
            done.set_result(None)

    process.watchers.add(look)
    try:
        await done
    finally:
        process.watchers.discard(look)


def _old_rows(core: Core, limit: int) -> dict[int, ProcessInfo]:
    """The rows of the newest processes that the journal has as ended, as far as they can be read. Not on the loop."""
    rows: dict[int, ProcessInfo] = {}
    for old in core.journal.history(limit):
        try:
            record = decode_record(old.record)
        except (MsgspecError, ValueError) as error:
            text = f"process {old.pid} cannot be read back: {error}"
            core.loop.call_soon_threadsafe(core.events.warning, "journal", text)
        else:
            rows[old.pid] = from_record(record, [], "").info(Figures(record.token_count))
    return rows


def _model_process(context: Context, pid: int) -> Process:
    process = context.core.table.living(pid)
    if process.kind is Kind.SESSION:
        raise LlmosError(Code.EINVAL, f"{pid} is a session, not a model's process", pid=pid)
    return process


HANDLERS: dict[str, Handler] = {
    "proc.spawn": spawn,
    "proc.list": list_,
    "proc.info": info,
    "proc.kill": kill,
    "proc.nice": nice,
    "proc.wait": wait,
    "proc.input": take_input,
    "proc.rewrite": rewrite,
    "proc.follow": follow,
    "proc.fork": fork,
    "proc.limits": limits,
    "proc.detach": detach,
    "proc.adopt": adopt,
    "proc.transcript": transcript,
}
