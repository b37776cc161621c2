"""`sched.*`, `group.*` and `proc.why`."""

from __future__ import annotations

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.types import State
from llmos_shell.daemon.core import Core
from llmos_shell.daemon.handlers.system import states
from llmos_shell.daemon.policies import configured, names, parameters_of
from llmos_shell.daemon.processes.table import MAX_PROCESSES
from llmos_shell.daemon.sched import reasons
from llmos_shell.daemon.sched.scheduling import QUEUE_LIMIT
from llmos_shell.daemon.syscalls import Context, Handler


async def show(context: Context, args: abi.Nothing) -> abi.SchedulerInfo:
    """The scheduler."""
    core = context.core
    counts = states(core)
    scheduling = core.scheduling
    return abi.SchedulerInfo(
        scheduling.policy, names(), counts[State.RUNNING], counts[State.RUNNABLE] + counts[State.NEW],
        counts[State.SLEEPING], counts[State.STOPPED], _parameters(core), scheduling.quarantined, scheduling.devices(),
        QUEUE_LIMIT, MAX_PROCESSES,
    )  # fmt: skip


async def set_policy(context: Context, args: abi.PolicyName) -> abi.SchedulerInfo:
    """Puts a policy in force for all models."""
    core = context.core
    core.scheduling.set_policy(args.policy, args.parameters)
    await core.durable()
    settings = "".join(f" {name}={value:g}" for name, value in args.parameters.items())
    core.events.info("sched", f"policy {args.policy}{settings}", context.caller.pid)
    return await show(context, abi.Nothing())


async def set_gang(context: Context, args: abi.Gang) -> abi.SchedulerInfo:
    """Whether models that share a device take turns."""
    context.core.scheduling.set_gang(args.mode)
    await context.core.durable()
    return await show(context, abi.Nothing())


async def trace(context: Context, args: abi.Trace) -> abi.TraceRecord:
    """Begins or ends a record."""
    core = context.core
    tracer = core.scheduling.tracer
    if args.action == "stop":
        return tracer.stop()
    tracer.start()
    for process in core.table.live_models():
        tracer.process(process)
    return abi.TraceRecord()


async def list_groups(context: Context, args: abi.Nothing) -> tuple[abi.GroupInfo, ...]:
    """The groups."""
    return tuple(context.core.scheduling.group_rows())


async def set_group(context: Context, args: abi.SetGroup) -> abi.GroupInfo:
    """A group's weight and limits."""
    core = context.core
    group = core.scheduling.set_group(args.name, args.changes, reset=args.reset)
    await core.durable()
    core.events.info("sched", f"group {args.name} was set", context.caller.pid)
    members = [process for process in core.table.live_models() if process.group == group.name]
    return core.scheduling.describe(group, members)


async def why(context: Context, args: abi.Pid) -> abi.Why:
    """Why a process runs or waits."""
    return reasons.why(context.core, await context.core.recall(args.pid))


def _parameters(core: Core) -> tuple[abi.PolicyParameter, ...]:
    policy = configured(core.scheduling.policy, core.scheduling.parameters)
    return tuple(
        abi.PolicyParameter(one.name, value, one.default, one.low, one.high, one.help)
        for one, value in parameters_of(policy).values()
    )


HANDLERS: dict[str, Handler] = {
    "sched.show": show,
    "sched.set": set_policy,
    "sched.gang": set_gang,
    "sched.trace": trace,
    "group.list": list_groups,
    "group.set": set_group,
    "proc.why": why,
}
