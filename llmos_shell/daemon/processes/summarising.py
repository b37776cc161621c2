"""Has a summary take the place of a conversation's beginning when its context is full. What it keeps is in `summary`.

The summary is written by a process of its own, a child that shares the KV of the conversation, is charged and scheduled
like any other, and ends with it. The conversation waits for it, in the state D. After a crash of the worker both go on;
after one of the daemon the child is found again, or another one is started. The turns stay in the journal as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import structs

from llmos_shell.abi import worker as abi
from llmos_shell.abi.types import Kind, Limits, Reason, Turn
from llmos_shell.daemon.processes import lifecycle, summary
from llmos_shell.daemon.processes.copies import record_context, take_context
from llmos_shell.daemon.processes.process import Phase, Process
from llmos_shell.daemon.processes.prompts import common

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor

_USABLE = frozenset({Reason.EOS, Reason.STOP, Reason.LENGTH, Reason.CONTEXT})


async def within_an_answer(conductor: Conductor, process: Process) -> bool:
    """Makes room in the context of a process that is READY. False when that cannot be done; then nothing changed."""

    def still() -> bool:
        return process.phase is Phase.READY and not process.interrupting and process.alive

    text = await _written(conductor, process, still)
    conductor = await conductor.core.residency.of_turn(process.model)
    if not text or not still():
        return False
    context = conductor.workshop.context
    tail = process.tokens[max(process.turn_start, process.sinks if process.turn_start < process.sinks else 0) :]
    if process.raw:
        question, first = abi.Tokenize(0, text=summary.PREFACE_RAW.format(summary=text)), 0
        tail = process.tokens
    else:
        asked = summary.last_question(process.turns)
        if asked is None:
            return False
        first = asked
        question = abi.Tokenize(0, messages=summary.view(process.turns, text, first))
    beginning = (await conductor.tokenizer.ask(question)).tokens
    left = summary.room(context) - len(beginning)
    if left < context // summary.TAIL_SHARE or not still():
        return False
    tail = tail[-left:]
    _replace(conductor, process, beginning, tail)
    _note(conductor, process, text, first)
    return True


async def before_an_answer(conductor: Conductor, process: Process) -> bool:
    """The same, of a process that is NEW: its turns are to be read again as a whole."""

    def still() -> bool:
        return process.phase is Phase.NEW and process.alive

    if process.raw or not process.known:
        return False
    text = await _written(conductor, process, still)
    conductor = await conductor.core.residency.of_turn(process.model)
    if not text or not still():
        return False
    since = process.summarised if process.summary else -1
    for first in summary.beginnings(process.turns, since):
        messages = summary.view(process.turns, text, first)
        tokens = (await conductor.tokenizer.ask(abi.Tokenize(0, messages=messages))).tokens
        if not still():
            return False
        if len(tokens) <= summary.room(conductor.workshop.context):
            _count(process, len(process.tokens) - len(tokens))
            process.known = process.sinks = 0
            _note(conductor, process, text, first)
            return True
    return False


async def _written(conductor: Conductor, process: Process, still: Callable[[], bool]) -> str:
    """The summary of what is in a process's context; "" when there is none, or nobody wants it any more."""
    core = conductor.core
    child = _begun(core, process) or _begin(conductor, process)
    process.summariser = child.pid
    conductor.changed(process)
    process.notify()
    try:
        await _ended(core, child, process, still)
    except BaseException:
        if not core.closing:
            _dismiss(core, child)
        raise
    finally:
        process.summariser = 0
    _dismiss(core, child)
    if child.exit is None or child.exit.reason not in _USABLE or not child.turns:
        return ""
    return child.turns[-1].text.strip()


def _begun(core: Core, process: Process) -> Process | None:
    """A summary that was begun before the daemon was started again."""
    return next((one for one in core.table.live_models() if one.summarises == process.pid), None)


def _begin(conductor: Conductor, source: Process) -> Process:
    core, context = conductor.core, conductor.workshop.context
    sampling = structs.replace(
        source.sampling, max_tokens=summary.longest_summary(context), stop=(), grammar=None, json_schema=None,
        ignore_eos=False, logprobs=0,
    )  # fmt: skip
    child = Process(
        core.table.next_pid(), f"summary of {source.pid}", Kind.MODEL, ppid=source.pid, session=source.session,
        model=source.model, nice=source.nice, tty=source.tty, scope=source.scope, sampling=sampling, limits=Limits(),
        summarises=source.pid, summoned=source.foreground, named_group=source.named_group,
    )  # fmt: skip
    take_context(child, source)
    child.turns = child.turns[: source.known]
    if source.phase is Phase.READY:
        said = source.transcript()[-1]
        child.turns.append(structs.replace(said, text=said.text + source.held, reason=Reason.INTERRUPT))
        child.known = len(child.turns)
    role, instruction = ("prompt", summary.INSTRUCTION_RAW) if source.raw else ("user", summary.INSTRUCTION)
    child.turns.append(Turn(role, instruction))
    lifecycle.spawned(core, child)
    record_context(core, child)
    core.begin_turn(child)
    return child


async def _ended(core: Core, child: Process, process: Process, still: Callable[[], bool]) -> None:
    """Waits until the child has ended or is not needed; it goes along with what is done to the process."""
    stopped, changed = child.stopped, asyncio.Event()
    watched = (child, process)
    for one in watched:
        one.watchers.add(changed.set)
    try:
        while child.alive and still():
            if process.stopped != stopped:  # a child that is stopped alone, for want of memory or by a user, stays so
                stopped = process.stopped
                (lifecycle.stop if stopped else lifecycle.cont)(core, child)
            lifecycle.go_along(core, child, process)
            await changed.wait()
            changed.clear()
    finally:
        for one in watched:
            one.watchers.discard(changed.set)


def _dismiss(core: Core, child: Process) -> None:
    lifecycle.end(core, child, Reason.INTERRUPT)
    if not child.reaped:
        lifecycle.reap(core, child)


def _replace(conductor: Conductor, process: Process, beginning: tuple[int, ...], tail: list[int]) -> None:
    """Gives a process in the middle of an answer another context, of which `tail` is the end of the present one."""
    core, pager = conductor.core, conductor.workshop.pager
    tokens = [*beginning, *tail]
    keep = common(process.tokens, tuple(tokens))
    if pager is not None:
        pager.replaced(process, keep)
    gone = len(process.tokens) - len(tokens)
    process.tokens[:] = tokens
    process.turn_start -= gone
    process.sinks = len(beginning)
    _count(process, gone)
    core.journal.append(process.pid, keep, tokens[keep:], "", turn=len(process.turns), role="summary")


def _count(process: Process, gone: int) -> None:
    """So many tokens fewer are in the context; what was forgotten before has gone with them."""
    process.condensed += process.forgotten + max(0, gone)
    process.forgotten = 0


def _note(conductor: Conductor, process: Process, text: str, first: int) -> None:
    core = conductor.core
    process.summary, process.summarised = text, first
    what = f"its context of {conductor.workshop.context} tokens was full: a summary of {len(text.split())} words"
    core.events.info("memory", f"{what} stands for the beginning now", process.pid)
    core.save(process)
