"""`nice`, `nohup` and `time`: commands that run another command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import PROC_INFO, Pid
from llmos_shell.abi.types import ProcessInfo
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.tables import duration, energy, total

if TYPE_CHECKING:
    from llmos_shell.ipc.client import Client

_COMMAND = (Operand("COMMAND", "a command and its arguments", "command", many=True),)


def _rewrite_nice(words: Sequence[str]) -> list[str]:
    """`nice -5 CMD` is `nice -n 5 CMD`."""
    if words and words[0][:1] == "-" and words[0][1:].isdigit():
        return ["-n", words[0][1:], *words[1:]]
    return list(words)


def _nice(context: Context, args: Args) -> int:
    if not args.COMMAND:
        print(context.nice, file=context.out)
        return 0
    nice = context.nice + args.adjustment
    if not -20 <= nice <= 19:
        raise UsageError(f"-n {args.adjustment}: {nice} is not from -20 (most urgent) to 19")
    return context.shell.run_words(args.COMMAND, context.derive(nice=nice))


def _nohup(context: Context, args: Args) -> int:
    return context.shell.run_words(args.COMMAND, context.derive(detached=True))


def _time(context: Context, args: Args) -> int:
    pids: list[int] = []

    def track(pid: int) -> None:
        pids.append(pid)
        context.track(pid)

    begun = time.monotonic()
    try:
        return context.shell.run_words(args.COMMAND, context.derive(on_track=track))
    finally:
        _report(context, time.monotonic() - begun, pids)


def _report(context: Context, seconds: float, pids: Sequence[int]) -> None:
    """Writes elapsed time and, of model processes, what they used."""
    lines = [f"real    {duration(seconds)} s", *(describe_usage(context.client, pids) if pids else [])]
    print("\n".join(lines), file=context.err, flush=True)


def describe_usage(client: Client, pids: Sequence[int]) -> list[str]:
    """What model processes used, in lines."""
    processes = [process for process in (_describe(client, pid) for pid in pids) if process is not None]
    if not processes:
        return []
    generated = sum(process.generated_tokens for process in processes)
    prompt = sum(process.prompt_tokens for process in processes)
    reused = sum(process.reused_tokens for process in processes)
    first = processes[0].first_token_seconds
    lines = [
        f"device  {duration(sum(process.device_seconds for process in processes))} s",
        f"tokens  {generated} generated, {prompt} of prompt ({reused} reused)",
    ]
    joules = total(process.joules for process in processes)
    if joules is not None:
        lines.insert(1, f"energy  {energy(joules)}")
    return lines if first is None else [*lines, f"first   {first:.3f} s to the first token"]


def _describe(client: Client, pid: int) -> ProcessInfo | None:
    try:
        process: ProcessInfo = client.call(PROC_INFO, Pid(pid))
    except LlmosError:
        return None
    return process


COMMANDS = (
    Command(
        "nice",
        "run a command with another priority",
        _nice,
        family="shell",
        options=(Option(("-n", "--adjustment"), "added to the nice value; above 0: less urgent", "N", "int", 10),),
        operands=(Operand("COMMAND", "a command; none: print the nice value", "command", required=False, many=True),),
        raw=True,
        rewrite=_rewrite_nice,
        description=(
            "What a model process started by COMMAND gets of the device is halved by about three steps. A program of "
            "the host is run with the host's `nice`. `nice -5 COMMAND` is `nice -n 5 COMMAND`."
        ),
        examples=(
            Example('nice -n 15 run -n 20 "list processes"', "whenever nothing else has to run"),
            Example("nice", "print the nice value of this shell", output="0"),
        ),
        exit_statuses=(("STATUS", "that of COMMAND"), ERROR_STATUSES[1]),
        see_also=("renice", "ps", "scheduling"),
    ),
    Command(
        "nohup",
        "run a command whose processes outlive this session",
        _nohup,
        family="shell",
        operands=_COMMAND,
        raw=True,
        description=(
            "If the terminal is closed meanwhile, they carry on; `ps` finds them, `attach` shows them. What a "
            "background `run` or `ask` writes to a file or a pipe goes on being written."
        ),
        examples=(Example('nohup run -n 30 "list" > story.txt &', "go home meanwhile"),),
        exit_statuses=(("STATUS", "that of COMMAND"), ERROR_STATUSES[1]),
        see_also=("disown", "attach", "jobs"),
    ),
    Command(
        "time",
        "run a command and say how long it took",
        _time,
        family="shell",
        operands=_COMMAND,
        raw=True,
        description=(
            "Writes elapsed time, device time, energy (where the device tells), tokens and the time to the first token "
            "on standard error."
        ),
        examples=(Example('time run -n 100 "list"', "how fast is it?"),),
        exit_statuses=(("STATUS", "that of COMMAND"), ERROR_STATUSES[1]),
        see_also=("top", "ps", "scheduling"),
    ),
)
