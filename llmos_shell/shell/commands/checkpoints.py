"""`checkpoint`, `restore`, `hibernate` and `resume`: processes that outlast a daemon, a machine, a night."""

from __future__ import annotations

import os
import time

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.memory import (
    PROC_CHECKPOINT,
    PROC_RESTORE,
    SYS_HIBERNATE,
    Checkpoint,
    Checkpointed,
    Hibernated,
    Restore,
    RestoredAll,
)
from llmos_shell.abi.syscall import Nothing
from llmos_shell.abi.types import Kind, KvState, ProcessInfo, State
from llmos_shell.shell.command import Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.streaming import show_progress
from llmos_shell.shell.tables import Column, render, size, style_of, to_json
from llmos_shell.shell.targets import resolve

_RESTORED = (
    Column("PID", right=True),
    Column("WAS", right=True),
    Column("STATE"),
    Column("TOKENS", right=True),
    Column("REUSED", right=True),
    Column("RECOMP", right=True),
    Column("NAME", flexible=True),
)


def _checkpoint(context: Context, args: Args) -> int:
    pids = list(resolve(context, args.PID))
    if len(pids) != 1:
        raise UsageError(f"{args.PID} is {len(pids)} processes: name one, or use --tree with their parent")
    path = _path(args.FILE)
    with show_progress(context, "writing the checkpoint"):
        done: Checkpointed = context.client.call(PROC_CHECKPOINT, Checkpoint(pids[0], path, args.tree))
    if args.json:
        context.out.write(to_json(done))
        return 0
    count = f"{len(done.pids)} processes, " if len(done.pids) > 1 else ""
    kept = f"{count}{done.tokens} tokens, {done.kv_tokens} with their KV"
    context.out.write(f"{args.FILE}: {kept}; {size(done.bytes)}, {size(done.written)} of it new\n")
    return 0


def _restore(context: Context, args: Args) -> int:
    with show_progress(context, "restoring"):
        done: RestoredAll = context.client.call(
            PROC_RESTORE, Restore(_path(args.FILE), args.model or "", args.reread, args.detach)
        )
    if args.json:
        context.out.write(to_json(done))
        return 0
    if args.quiet:
        context.out.writelines(f"{one.pid}\n" for one in done.processes)
        return 0
    rows = [
        [
            str(one.pid),
            str(one.former_pid),
            one.state,
            str(one.tokens),
            str(one.reused_tokens),
            str(one.recomputed_tokens),
            one.name,
        ]
        for one in done.processes
    ]
    context.out.write(render(_RESTORED, rows, style_of(context)))
    for text in (done.note, *(f"{one.pid}: {one.note}" for one in done.processes if one.note)):
        if text:
            context.out.write(text + "\n")
    return 0


def _path(name: str) -> str:
    return os.path.abspath(os.path.join(os.getcwd(), name))


def _hibernate(context: Context, args: Args) -> int:
    from llmos_shell.ipc.launch import daemon_lives

    with show_progress(context, "putting everything on the disk"):
        done: Hibernated = context.client.call(SYS_HIBERNATE, Nothing())
        deadline = time.monotonic() + 30
        while daemon_lives():
            if time.monotonic() > deadline:
                raise LlmosError(Code.ETIMEDOUT, "the daemon did not end within 30 s", hint="see its log")
            time.sleep(0.02)
    if args.json:
        context.out.write(to_json(done))
        return 0
    kept = f"{done.processes} processes, {done.tokens} tokens; the KV of {done.images} is on the disk"
    context.out.write(f"{kept}, {size(done.bytes)}\n")
    if done.recomputed_tokens:
        context.out.write(f"{done.recomputed_tokens} tokens will be computed again\n")
    for problem in done.problems:
        context.error("hibernate", problem)
    return 1 if done.problems else 0


def _resume(context: Context, args: Args) -> int:
    """Starts the daemon, which brings everything back, and says what came."""
    from llmos_shell.abi.syscalls import PROC_LIST, List

    rows: tuple[ProcessInfo, ...] = context.client.call(PROC_LIST, List(sessions=False))
    living = [row for row in rows if row.kind is Kind.MODEL and row.state not in (State.ZOMBIE, State.GONE)]
    kept = sum(row.kv in (KvState.SWAPPED, KvState.PARKED, KvState.RESIDENT) for row in living)
    context.out.write(f"{len(living)} processes are here; {kept} have their KV, the others compute it again\n")
    return 0


_JSON = Option(("--json",), "as JSON, with all fields")
_FILES = (("FILE", "format: docs/images.md; nothing but these commands reads or writes it"),)
COMMANDS = (
    Command(
        "checkpoint",
        "write a process to a file",
        _checkpoint,
        family="processes",
        options=(Option(("-t", "--tree"), "its descendants as well"), _JSON),
        operands=(Operand("PID", "a process, or a job such as %1", "pid"), Operand("FILE", "where to", "file")),
        description=(
            "Tokens, text, sampler state and KV. The process goes on meanwhile. A further checkpoint to the same file "
            "writes only what is new, and the old one is good until the new one is whole. The file holds the "
            "conversation as it was, so keep it as private as that."
        ),
        examples=(
            Example("checkpoint 12 chat.ck", "a chat, for later or for elsewhere", before="pid=$(chat -d)"),
            Example("checkpoint -t 12 all.ck", "with everything it started", before="pid=$(chat -d)"),
        ),
        files=_FILES,
        see_also=("restore", "fork", "hibernate", "memory"),
    ),
    Command(
        "restore",
        "make processes of a checkpoint",
        _restore,
        family="processes",
        options=(
            Option(("-m", "--model"), "instead of the model of that name in the file", "MODEL", "model"),
            Option(("--reread",), "have a model of other weights read the conversation from its text"),
            Option(("-d", "--detach"), "survive this session"),
            Option(("-q", "--quiet"), "PIDs only"),
            _JSON,
        ),
        operands=(Operand("FILE", "a checkpoint", "file"),),
        description=(
            "They get new PIDs and go on where they were: a chat waits for its next message, an answer continues, what "
            "was stopped is stopped. The file is verified first. REUSED tokens came with their KV, RECOMP tokens are "
            "computed again. A model of other weights is refused; of the same weights with another KV type or kernel "
            "version, the tokens count and the KV is computed again."
        ),
        examples=(
            Example("restore chat.ck", "here, or on another machine", before='checkpoint "$(chat -d)" chat.ck > x'),
            Example("restore -q chat.ck", "its PID", before='checkpoint "$(chat -d)" chat.ck > x'),
        ),
        files=_FILES,
        see_also=("checkpoint", "resume", "memory"),
    ),
    Command(
        "hibernate",
        "put everything on the disk and stop the daemon",
        _hibernate,
        family="system",
        options=(_JSON,),
        description=(
            "As `daemon stop`, and the KV of all processes is kept as well, across a restart of the machine. Whatever "
            "needs the daemon next starts it, and everything goes on; `resume` does just that."
        ),
        examples=(Example("hibernate", "before switching off", untested="stops the daemon of other tests"),),
        see_also=("resume", "checkpoint", "daemon", "memory"),
    ),
    Command(
        "resume",
        "go on after hibernate",
        _resume,
        family="system",
        description="Starts the daemon if it does not run, and says which processes came back.",
        examples=(Example("resume", "after the machine was switched on"),),
        see_also=("hibernate", "daemon", "ps"),
    ),
)
