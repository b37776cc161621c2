"""Processes that begin with what another one has in mind: its tokens, so that they share its KV, and its turns."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from msgspec import structs

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Kind, KvState, Limits, Reason, Turn
from llmos_shell.daemon.processes.output import Output
from llmos_shell.daemon.processes.process import Phase, Process
from llmos_shell.daemon.processes.summary import only_of_an_answer
from llmos_shell.daemon.processes.table import INIT

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.syscalls import Context


def copy_of(context: Context, source: Process, args: abi.Fork, number: int) -> Process:
    """A child with the same tokens and text. Where it goes on depends on what the source was doing."""
    core = context.core
    sampling = source.sampling
    if not args.keep_seed:
        seed = (
            (sampling.seed or 0) + number if args.again else secrets.randbits(64)
        )  # anew: repeatable, if the first is
        sampling = structs.replace(sampling, seed=seed % (1 << 64))
    ppid, session = (INIT, 0) if args.detached else (context.caller.pid, context.caller.pid)
    child = Process(
        core.table.next_pid(), source.name, Kind.MODEL, ppid=ppid, session=session, model=source.model,
        nice=source.nice if args.nice is None else args.nice, tty=context.caller.tty, chat=source.chat,
        scope=source.scope, overflow=source.overflow, sampling=sampling,
        limits=Limits() if not source.alive else source.limits,
    )  # fmt: skip
    child.named_group = source.named_group
    take_context(child, source)
    child.turn_start, child.turn_offset = source.turn_start, source.turn_offset
    child.output.append(source.output.read(0))
    child.held = source.held
    child.output.marks = list(source.output.marks)
    child.output.mark_offsets = list(source.output.mark_offsets)
    child.phase = source.phase
    if not source.alive:
        child.chat, child.phase = True, Phase.IDLE
    elif source.interrupting:
        child.phase = Phase.IDLE
        child.output.append(child.held)
        child.held = ""
        child.turns.append(Turn(child.answer_role, child.output.read(child.turn_offset), 0, Reason.INTERRUPT))
        child.known = len(child.turns)
    if args.again:
        _begin_again(child, source)
    record_context(core, child)
    return child


def continue_from(process: Process, source: Process) -> None:
    """Has a new process, with a prompt as its only turn, go on from where `source` is; that one does not notice.

    What was said before is part of its turns, not of its output. Raises EINVAL when the two do not fit.
    """
    if source.kind is Kind.SESSION:
        raise LlmosError(Code.EINVAL, f"{source.pid} is a session and cannot be continued", pid=source.pid)
    if process.model != source.model:
        text = f"process {source.pid} is of another model, {source.model.rpartition('/')[2]}"
        raise LlmosError(Code.EINVAL, text, hint="leave the model out, or name that one", pid=source.pid)
    prompt = process.turns[-1].text
    take_context(process, source)
    process.scope = source.scope
    if source.answering:
        answer = source.transcript()[-1]
        process.turns.append(structs.replace(answer, text=answer.text + source.held, reason=Reason.INTERRUPT))
        if source.phase is Phase.READY:
            process.known = len(process.turns)
    process.turns.append(Turn("prompt" if process.raw else "user", prompt))


def record_context(core: Core, process: Process) -> None:
    """Has the journal keep the tokens, and the text of its output, that a process begins with."""
    turn = process.known - 1
    core.journal.append(process.pid, 0, process.tokens[:], process.output.read(0), turn=turn, role="fork")


def take_context(process: Process, source: Process) -> None:
    """Gives it the other's conversation as far as its tokens go, and says where their KV is."""
    process.sinks, process.forgotten = source.sinks, source.forgotten
    process.summary, process.summarised, process.condensed = source.summary, source.summarised, source.condensed
    process.raw, process.turns, process.known = source.raw, list(source.turns), source.known
    process.tokens, process.weights = list(source.tokens), source.weights
    process.prompt_tokens = len(process.tokens)
    process.origin = source.seq
    process.kv = KvState.DROPPED if process.tokens else KvState.NONE


def _begin_again(child: Process, source: Process) -> None:
    """Takes a copy back to where its source's present or last answer began."""
    if not source.answering:
        child.turns = list(source.turns)
        if child.turns and child.turns[-1].role == child.answer_role:
            child.turns.pop()
    if not child.turns or child.turns[-1].role not in ("user", "prompt"):
        raise LlmosError(Code.EINVAL, f"process {source.pid} was asked nothing that it could answer again")
    begun = source.sinks <= source.turn_start <= len(source.tokens)  # not if some of the answer is forgotten
    alone = bool(child.summary) and only_of_an_answer(child.turns, child.summarised)
    fits = begun and not alone and source.known and source.phase is not Phase.NEW
    start = source.turn_start if fits else 0
    child.chat, child.limits, child.held = source.chat, source.limits, ""
    if alone:
        child.summary, child.summarised, child.condensed = "", 0, 0
    if not start:
        child.sinks = child.forgotten = 0
    child.tokens = source.tokens[:start]
    child.prompt_tokens = start
    child.kv = KvState.DROPPED if start else KvState.NONE
    child.known = len(child.turns) if start else 0
    child.phase = Phase.READY if start else Phase.NEW
    child.output = Output(source.output.read(0, source.turn_offset))
    for offset, mark in zip(source.output.mark_offsets, source.output.marks, strict=True):
        if offset <= source.turn_offset:
            child.output.marks.append(mark)
            child.output.mark_offsets.append(offset)
