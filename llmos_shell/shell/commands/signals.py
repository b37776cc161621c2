"""`kill`, `stop`, `cont`, `renice` and `ulimit`: acting on processes that run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import PROC_INFO, PROC_KILL, PROC_LIMITS, PROC_NICE, Kill, Nice, Pid, SetLimits
from llmos_shell.abi.types import Limits, ProcessInfo, Signal
from llmos_shell.shell.arguments import SIGNAL_NUMBERS, parse_duration, parse_integer
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.limits import set_shell_limits, shell_limits
from llmos_shell.shell.tables import to_json
from llmos_shell.shell.targets import resolve

_PIDS = (Operand("PID", "processes, or jobs such as %1", "pid", many=True),)
_TREE = Option(("-t", "--tree"), "also all its descendants")


def for_each(context: Context, command: str, targets: Sequence[int | str], act: Callable[[int], None]) -> int:
    """Acts on every target; a failure is reported and the rest still done. Status 1 if any failed."""
    status = 0
    for target in targets:
        try:
            for pid in resolve(context, target):
                act(pid)
        except LlmosError as error:
            status = context.error(command, error)
    return status


def _send(context: Context, command: str, targets: Sequence[int | str], signal: Signal, tree: bool) -> int:
    """Signals processes; of the shell's jobs also the host's programs in them."""
    status = 0
    for target in targets:
        try:
            if not _send_to_job(context, target, signal):
                for pid in resolve(context, target):
                    context.client.call(PROC_KILL, Kill(pid, signal, tree))
        except LlmosError as error:
            status = context.error(command, error)
    return status


def _send_to_job(context: Context, target: int | str, signal: Signal) -> bool:
    """Signals a job, or a host's program that is part of one; False when the target is neither."""
    jobs = context.shell.jobs()
    number = next(number for number, each in SIGNAL_NUMBERS.items() if each is signal)
    if isinstance(target, str):
        job = jobs.find(target)
        if job is None:
            raise LlmosError(Code.ESRCH, f"{target}: no such job", hint="`jobs` lists them")
        job.signal(number)
        return True
    job = jobs.of_pid(target)
    if job is None or target not in job.host_pids:
        return False
    os.kill(target, number)
    return True


def _rewrite_kill(words: Sequence[str]) -> list[str]:
    """`-9`, `-KILL` and `-SIGKILL` as `-s …`."""
    rewritten: list[str] = []
    for index, word in enumerate(words):
        if word == "--":
            return rewritten + list(words[index:])
        name = word[1:]
        named = word[:1] == "-" and (name.isdigit() or (len(name) > 1 and name.isalpha() and name.isupper()))
        rewritten += ["-s", name] if named else [word]
    return rewritten


def _kill(context: Context, args: Args) -> int:
    if args.list:
        context.out.writelines(f"{number:2d} {signal}\n" for number, signal in SIGNAL_NUMBERS.items())
        return 0
    if not args.PID:
        raise UsageError("PID is missing: usage: kill [-s SIGNAL] PID…")
    return _send(context, "kill", args.PID, args.signal, args.tree)


def _stop(context: Context, args: Args) -> int:
    return _send(context, "stop", args.PID, Signal.STOP, args.tree)


def _cont(context: Context, args: Args) -> int:
    return _send(context, "cont", args.PID, Signal.CONT, args.tree)


def _rewrite_renice(words: Sequence[str]) -> list[str]:
    """`renice -n 5 -p 12`, as elsewhere, is `renice 5 12`."""
    return [word for word in words if word not in ("-n", "-p", "--priority", "--pid")]


def _renice(context: Context, args: Args) -> int:
    if not -20 <= args.N <= 19:
        raise UsageError(f"N: {args.N} is not from -20 (most urgent) to 19: usage: renice N PID…")
    return for_each(context, "renice", args.PID, lambda pid: context.client.call(PROC_NICE, Nice(pid, args.N)))


def _ulimit(context: Context, args: Args) -> int:
    changes = _changes(args)
    if not args.PID:
        limits = msgspec.structs.replace(shell_limits(context.shell), **changes)
        if changes:
            set_shell_limits(context.shell, limits)
        else:
            _show(context, "new processes", limits, args.json)
        return 0
    return for_each(context, "ulimit", args.PID, lambda pid: _limit(context, pid, changes, args.json))


def _limit(context: Context, pid: int, changes: dict[str, Any], as_json: bool) -> None:
    process: ProcessInfo = context.client.call(PROC_INFO, Pid(pid))
    if changes:
        limits = msgspec.structs.replace(process.limits, **changes)
        context.client.call(PROC_LIMITS, SetLimits(pid, limits))
    else:
        _show(context, f"process {pid}", process.limits, as_json)


def _changes(args: Args) -> dict[str, Any]:
    """The fields of `Limits` that the options set; `unlimited` takes a limit away."""
    readers: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
        ("tokens", "tokens", parse_integer),
        ("time", "seconds", parse_duration),
        ("context", "kv_tokens", parse_integer),
    )
    changes: dict[str, Any] = {}
    for option, field, read in readers:
        text = args[option]
        if text is not None:
            try:
                changes[field] = None if text == "unlimited" else read(text)
            except (ValueError, OverflowError):
                changes[field] = -1
            if changes[field] is not None and changes[field] <= 0:
                raise UsageError(f"--{option}: `{text}` is not a limit: give a number above 0, or `unlimited`")
    return changes


def _show(context: Context, whose: str, limits: Limits, as_json: bool) -> None:
    if as_json:
        context.out.write(to_json(msgspec.structs.asdict(limits)))
        return
    context.out.write(f"limits of {whose}\n")
    rows = (
        ("tokens generated  (-n)", limits.tokens),
        ("seconds of time   (-t)", limits.seconds),
        ("tokens of context (-k)", limits.kv_tokens),
    )
    for name, value in rows:
        context.out.write(f"  {name}  {'unlimited' if value is None else value}\n")


_PER_PID = (("0", "success"), ("1", "at least one of them failed; the others are done"), ERROR_STATUSES[1])
_CONVERSATION = "pid=$(chat -d)"
_JOB = "sleep 100 &"

COMMANDS = (
    Command(
        "kill",
        "end a process, or send it another signal",
        _kill,
        family="processes",
        synopsis=("kill [-s SIGNAL | -SIGNAL] [-t] PID…", "kill -l"),
        options=(
            Option(("-s", "--signal"), "its name or number; also as -SIGNAL", "SIGNAL", "signal", Signal.TERM),
            _TREE,
            Option(("-l", "--list"), "list the signals"),
        ),
        operands=(Operand("PID", "processes, or jobs such as %1", "pid", required=False, many=True),),
        rewrite=_rewrite_kill,
        description=(
            "TERM lets the process finish its step and end (exit status 143), KILL ends it at once (137), INT is what "
            "Ctrl-C sends: a generation ends and keeps its text, a conversation only ends its turn. STOP pauses, CONT "
            "continues. What an ended process said is kept: `log` shows it, `fork` goes on from there.\n\n"
            "A number means a process of `ps` first, then a program in a job of this shell; `command -p "
            "kill` reaches other programs of the host."
        ),
        examples=(
            Example("kill 12", "ask process 12 to end", before=_CONVERSATION),
            Example("kill -9 %1", "end job 1 whatever it does", before=_JOB),
            Example("kill -t 12", "a process and all that was forked from it", before=_CONVERSATION),
            Example("kill -INT 12", "end the answer, not the conversation", before=_CONVERSATION),
        ),
        exit_statuses=_PER_PID,
        see_also=("stop", "cont", "jobs", "signals"),
    ),
    Command(
        "stop",
        "pause processes; they keep their memory until it is needed",
        _stop,
        family="processes",
        options=(_TREE,),
        operands=_PIDS,
        description=(
            "The same as `kill -STOP`. A stopped process gets no device time; where its memory is needed by others, it "
            "is parked or dropped, and comes back with `cont`. Time limits go on counting."
        ),
        examples=(
            Example("stop 12", "until `cont 12`", before=_CONVERSATION),
            Example("stop -t 12", "a process and all that was forked from it", before=_CONVERSATION),
        ),
        exit_statuses=_PER_PID,
        see_also=("cont", "kill", "signals", "memory"),
    ),
    Command(
        "cont",
        "continue processes that were stopped",
        _cont,
        family="processes",
        options=(_TREE,),
        operands=_PIDS,
        description="The same as `kill -CONT`. They go on as if nothing had happened.",
        examples=(Example("stop 12; cont 12", "a short pause", before=_CONVERSATION),),
        exit_statuses=_PER_PID,
        see_also=("stop", "bg", "fg", "signals"),
    ),
    Command(
        "renice",
        "change how urgent processes are",
        _renice,
        family="processes",
        operands=(
            Operand("N", "the nice value: -20 (most urgent) to 19 (least)", "int"),
            *_PIDS,
        ),
        rewrite=_rewrite_renice,
        description=(
            "Each step is worth about a quarter more or less device time; 0 is what processes start with. `renice -n N "
            "-p PID`, as elsewhere, works too."
        ),
        examples=(
            Example("renice 10 12", "let others go first", before=_CONVERSATION),
            Example("renice -5 12", "let it go first", before=_CONVERSATION),
        ),
        exit_statuses=_PER_PID,
        see_also=("nice", "ps", "scheduling"),
    ),
    Command(
        "ulimit",
        "show or set limits",
        _ulimit,
        family="processes",
        options=(
            Option(("-n", "--tokens"), "tokens generated over its whole life", "N"),
            Option(("-t", "--time"), "time since its start, e.g. 90 or 5m", "TIME"),
            Option(("-k", "--context"), "tokens in its context", "N"),
            Option(("--json",), "as JSON"),
        ),
        operands=(Operand("PID", "processes; none: what this shell starts from now on", "pid", False, True),),
        description=(
            "A process that reaches a limit ends with exit status 124 and keeps its text. `unlimited` takes a limit "
            "away. Without an option the limits are shown."
        ),
        examples=(
            Example("ulimit -t 60 12", "process 12 may take a minute", before=_CONVERSATION),
            Example("ulimit -n 500; ulimit", "a default for this shell"),
            Example("ulimit -n unlimited", "… and none again"),
        ),
        exit_statuses=_PER_PID,
        see_also=("run", "nice", "exit-statuses", "memory"),
    ),
)
