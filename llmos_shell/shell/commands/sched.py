"""`sched`, `group`, `why` and `schedtrace`: who gets the device, and why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    GROUP_LIST,
    GROUP_SET,
    PROC_WHY,
    SCHED_GANG,
    SCHED_SET,
    SCHED_SHOW,
    SCHED_TRACE,
    DeviceSharing,
    Gang,
    GroupInfo,
    Nothing,
    Pid,
    PolicyName,
    SchedulerInfo,
    SetGroup,
    Trace,
    TraceRecord,
    Why,
)
from llmos_shell.shell.arguments import parse_integer
from llmos_shell.shell.command import Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.tables import Column, duration, energy, render, style_of, to_json
from llmos_shell.shell.targets import resolve

_SCHED_USAGE = "usage: sched [show | set POLICY [NAME=VALUE…] | gang auto|on|off]"

# -- sched -----------------------------------------------------------------------------------------------------------


def _sched(context: Context, args: Args) -> int:
    words = list(args.POLICY)
    if words[:1] == ["gang"]:
        if len(words) != 2 or words[1] not in ("auto", "on", "off"):
            raise UsageError("gang takes one of auto, on, off: " + _SCHED_USAGE)
        info: SchedulerInfo = context.client.call(SCHED_GANG, Gang(words[1]))
    elif words in ([], ["show"]):
        info = context.client.call(SCHED_SHOW, Nothing())
    else:
        info = context.client.call(SCHED_SET, _policy(words[1:] if words[0] == "set" else words))
    context.out.write(to_json(info) if args.json else _describe(info))
    return 0


def _policy(words: Sequence[str]) -> PolicyName:
    if not words:
        raise UsageError("POLICY is missing: " + _SCHED_USAGE)
    parameters: dict[str, float] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        try:
            parameters[name] = float(value)
        except ValueError:
            what = f"`{value}` is not a number" if equals else f"unexpected argument `{word}`"
            raise UsageError(f"{what}: {_SCHED_USAGE}") from None
    return PolicyName(words[0], parameters)


def _describe(info: SchedulerInfo) -> str:
    marked = " ".join(f"[{policy}]" if policy == info.policy else policy for policy in info.policies)
    lines = [f"policy     {info.policy}   (of {marked})"]
    lines += [f"  {one.name:<8} {one.value:g}   {one.help}" for one in info.parameters]
    lines += [f"failed     {name}: {how}" for name, how in info.quarantined.items()]
    lines += [f"{state:<10} {getattr(info, state)}" for state in ("running", "runnable", "sleeping", "stopped")]
    lines.append(f"limits     {info.queue_limit} waiting per model, {info.process_limit} processes")
    lines += [_device(device) for device in info.devices]
    return "\n".join(lines) + "\n"


def _device(device: DeviceSharing) -> str:
    if device.mode == "alone":
        how = "one model at most wants to run"
    elif device.mode == "free":
        how = f"{', '.join(device.models)} run side by side"
    else:
        how = f"{', '.join(device.models)} take turns of {device.quantum:g} s; {device.holder} has it"
    how += " (measuring)" if device.measuring else f" ({device.setting})"
    rates = ((device.free_rate, "side by side"), (device.gang_rate, "in turns"))
    measured = ", ".join(f"{rate:.0f} tokens/s {what}" for rate, what in rates if rate is not None)
    return f"{device.device:<10} {how}" + (f"; measured: {measured}" if measured else "")


# -- group -----------------------------------------------------------------------------------------------------------

_GROUPS = (
    Column("GROUP", flexible=True),
    Column("WEIGHT", right=True),
    Column("PROC", right=True),
    Column("RUN", right=True),
    Column("WAIT", right=True),
    Column("TOKENS", right=True),
    Column("TIME", right=True),
    Column("ENERGY", right=True),
    Column("LIMITS"),
)
_LIMITS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("processes", "processes", parse_integer),
    ("tokens_per_second", "tokens_per_second", float),
    ("kv", "kv_tokens", parse_integer),
    ("device_share", "device_share", float),
)
"""Option, field of `GroupSettings`, and how to read it."""


def _group(context: Context, args: Args) -> int:
    if args.ACTION == "set":
        if args.NAME is None:
            raise UsageError("NAME is missing: usage: group set NAME [OPTION…]")
        info: GroupInfo = context.client.call(GROUP_SET, SetGroup(args.NAME, _changes(args), args.reset))
        context.out.write(to_json(info) if args.json else _group_table(context, [info]))
        return 0
    if _changes(args) or args.reset:
        raise UsageError("options that set something need `set NAME`: usage: group set NAME [OPTION…]")
    groups: Sequence[GroupInfo] = context.client.call(GROUP_LIST, Nothing())
    if args.NAME is not None:
        groups = [group for group in groups if group.name == args.NAME]
        if not groups:
            raise LlmosError(Code.ENOENT, f"there is no group {args.NAME}", hint="`group` lists them")
    context.out.write(to_json(groups) if args.json else _group_table(context, groups))
    return 0


def _changes(args: Args) -> dict[str, Any]:
    changes: dict[str, Any] = {} if args.weight is None else {"weight": args.weight}
    for option, field, read in _LIMITS:
        text = args[option]
        if text is None:
            continue
        try:
            changes[field] = None if text == "unlimited" else read(text)
        except (ValueError, OverflowError):
            name = option.replace("_", "-")
            raise UsageError(f"--{name}: `{text}` is not a limit: give a number, or `unlimited`") from None
    return changes


def _group_table(context: Context, groups: Sequence[GroupInfo]) -> str:
    rows = [
        [
            group.name,
            f"{group.settings.weight:g}",
            str(group.processes),
            str(group.running),
            str(group.runnable),
            str(group.tokens),
            duration(group.device_seconds),
            energy(group.joules),
            _limits(group) + (" (reached)" if group.paused else ""),
        ]
        for group in groups
    ]
    return render(_GROUPS, rows, style_of(context))


def _limits(group: GroupInfo) -> str:
    settings = group.settings
    named = (
        (settings.processes, "{:d} processes"),
        (settings.tokens_per_second, "{:g} tokens/s"),
        (settings.kv_tokens, "{:d} KV tokens"),
        (settings.device_share and settings.device_share * 100, "{:g} % of the device"),
    )
    return ", ".join(text.format(value) for value, text in named if value is not None) or "-"


# -- why and schedtrace ----------------------------------------------------------------------------------------------


def _why(context: Context, args: Args) -> int:
    answers: list[Why] = [
        context.client.call(PROC_WHY, Pid(pid)) for target in args.PID for pid in resolve(context, target)
    ]
    if args.json:
        context.out.write(to_json(answers))
        return 0
    context.out.writelines(f"{answer.pid}: {answer.text}\n" for answer in answers)
    return 0


def _schedtrace(context: Context, args: Args) -> int:
    words = list(args.FILE)
    action = words.pop(0) if words[:1] in (["start"], ["stop"]) else ""
    if len(words) > 1 or (action == "start") == bool(words):
        raise UsageError("usage: schedtrace [--seconds N] FILE, or schedtrace start and then schedtrace stop FILE")
    if action == "start":
        context.client.call(SCHED_TRACE, Trace("start"))
        return 0
    with open(f"{words[0]}.tmp", "w", encoding="utf-8") as file:  # before anything is recorded in vain
        try:
            record = _record(context, args.seconds) if not action else context.client.call(SCHED_TRACE, Trace("stop"))
            from llmos_shell.shell.traces import write_trace

            write_trace(record, file)
        except BaseException:
            os.unlink(file.name)
            raise
    os.replace(f"{words[0]}.tmp", words[0])
    lost = f", {record.dropped} older ones dropped" if record.dropped else ""
    print(f"{words[0]}: {len(record.events)} events{lost}", file=context.err)
    return 0


def _record(context: Context, seconds: float | None) -> TraceRecord:
    """Records for so long, or until Ctrl-C."""
    context.client.call(SCHED_TRACE, Trace("start"))
    if seconds is None and context.is_terminal():
        print("recording; Ctrl-C ends it", file=context.err, flush=True)
    try:
        time.sleep(1e8 if seconds is None else seconds)
    except KeyboardInterrupt:
        if seconds is not None:
            context.client.call(SCHED_TRACE, Trace("stop"))
            raise
    record: TraceRecord = context.client.call(SCHED_TRACE, Trace("stop"))
    return record


COMMANDS = (
    Command(
        "sched",
        "show or choose the scheduling policy",
        _sched,
        family="system",
        synopsis=("sched [show] [--json]", "sched set POLICY [NAME=VALUE…]", "sched gang auto|on|off"),
        options=(Option(("--json",), "as JSON"),),
        operands=(Operand("POLICY", "`set NAME`, or just the name", "policy", required=False, many=True),),
        description=(
            "The policy decides which processes run when not all can: the topic scheduling describes them and their "
            "parameters. It can be changed at any time, and stays in force when the daemon is restarted. A policy that "
            "fails is replaced by `fair`, which `dmesg` reports.\n\n"
            "When several models want to run on one device, it is measured whether they get more done side by side or "
            "in turns, and the better way is taken; `gang on` and `gang off` decide it instead."
        ),
        examples=(
            Example("sched", "which one is in force?"),
            Example("sched set fifo; sched set fair", "first come, first served; and back"),
            Example("sched set rr quantum=2; sched set fair", "turns of two seconds of device time; and back"),
        ),
        see_also=("nice", "renice", "group", "why", "top", "scheduling"),
    ),
    Command(
        "group",
        "list groups, or set what they get and may use",
        _group,
        family="system",
        synopsis=("group [list] [NAME] [--json]", "group set NAME [OPTION…]"),
        options=(
            Option(("-w", "--weight"), "its share beside other groups, which have 1", "W", "float"),
            Option(("--processes",), "most processes at a time", "N"),
            Option(("--tokens-per-second",), "most tokens generated per second", "R"),
            Option(("--kv",), "most tokens of context of those of its processes that run", "TOKENS"),
            Option(("--device-share",), "most of the devices' time, 0 to 1", "SHARE"),
            Option(("--reset",), "take all other settings away"),
            Option(("--json",), "as JSON"),
        ),
        operands=(
            Operand("ACTION", "list or set", "list|set", required=False),
            Operand("NAME", "a group", required=False),
        ),
        description=(
            "Groups share a model by their weights, and the processes of a group share what it gets. A process belongs "
            "to the group that `run --group NAME` names, else to that of its terminal, so that a hundred jobs of one "
            "terminal do not slow down the one process of another. A group is made when it is first named.\n\n"
            "A group with as many processes as it may have starts no more; one that has used up its tokens or its time "
            "pauses; one that has no KV tokens left has its processes take turns. `why PID` says so. `unlimited` takes "
            "a limit away. Settings outlast a restart of the daemon."
        ),
        examples=(
            Example("group", "who shares with whom?"),
            Example("group set night --weight 0.2 --processes 50", "little, for many"),
            Example("group set night --tokens-per-second 20", "slowly"),
        ),
        see_also=("run", "sched", "why", "ulimit", "scheduling"),
    ),
    Command(
        "why",
        "say why a process runs, waits or sleeps",
        _why,
        family="processes",
        options=(Option(("--json",), "as JSON: place in line, who is in front, seconds to go"),),
        operands=(Operand("PID", "processes, or jobs such as %1", "pid", many=True),),
        description=(
            "Says what the process waits for, behind whom, and about how long: its place in line, divided by how many "
            "processes per second were admitted lately."
        ),
        examples=(
            Example(
                "why 12", "what is it waiting for?", before='run -d -n 2000 "a story" > pid.txt; pid=$(cat pid.txt)'
            ),
        ),
        see_also=("ps", "sched", "group", "schedtrace"),
    ),
    Command(
        "schedtrace",
        "record what the scheduler does, for a trace viewer",
        _schedtrace,
        family="system",
        synopsis=("schedtrace [--seconds N] FILE", "schedtrace start", "schedtrace stop FILE"),
        options=(Option(("-s", "--seconds"), "for so long; else until Ctrl-C", "TIME", "duration"),),
        operands=(Operand("FILE", "where to write it, as JSON; or `start`, or `stop FILE`", "file", many=True),),
        description=(
            "The file opens in Perfetto (ui.perfetto.dev) and in chrome://tracing: a track for each process, with when "
            "it ran, waited, slept or was parked; one for each model's steps; and the policy's decisions. The newest "
            "200,000 events are kept."
        ),
        examples=(
            Example("schedtrace --seconds 1 trace.json", "one second"),
            Example("schedtrace start; run -n 20 hello; schedtrace stop trace.json", "around a command"),
        ),
        see_also=("sched", "why", "top"),
    ),
)
