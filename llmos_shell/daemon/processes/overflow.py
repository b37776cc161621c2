"""What happens when a context is full, as its user chose: stop, fail, or forget the older half and go on.

Or have it summarised, by `summarising`; where that cannot be done, it is forgotten.

Forgetting keeps the beginning (the system prompt; at least the first tokens, which models lean on whatever they are:
Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023), and is always said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.types import Message, Overflow, Reason
from llmos_shell.daemon.processes import lifecycle, summarising
from llmos_shell.daemon.processes.process import Phase, Process
from llmos_shell.daemon.processes.prompts import common
from llmos_shell.daemon.processes.summary import reserve

if TYPE_CHECKING:
    from llmos_shell.daemon.models.conductor import Conductor

LEAST_SINKS = 4
FILL = 0.75
"""How much of the context is used after a turn's input, when something had to be forgotten for it."""

ANSWER_SHARE = 8
"""A turn begins with at least the context by this free for the answer, when something may be forgotten."""


def full(conductor: Conductor, process: Process) -> None:
    """Its context may not grow any more, in the middle of an answer."""
    core = conductor.core
    if process.overflow is Overflow.ERROR:
        lifecycle.fail(core, process, f"its context of {conductor.workshop.context} tokens is full")
    elif process.overflow is Overflow.STOP:
        lifecycle.finish_turn(core, process, Reason.CONTEXT)
    elif not process.shifting:
        process.shifting = True
        core.spawn_task(_go_on(conductor, process))


async def make_room(
    conductor: Conductor, process: Process, keep: int, tokens: tuple[int, ...]
) -> tuple[int, tuple[int, ...]]:
    """Forgets something if a turn's input, `tokens` after the first `keep`, would leave no room; the same anew."""
    context = conductor.workshop.context
    if process.forgotten and keep < len(process.tokens):
        keep, tokens = _still_forgotten(process, keep, tokens)
    length = keep + len(tokens)
    if process.overflow is Overflow.SUMMARISE:
        if length <= context - reserve(context) - context // ANSWER_SHARE:
            return keep, tokens
        done = await _summarised(conductor, process, summarising.before_an_answer)
        conductor = await conductor.core.residency.of_turn(process.model)  # it may have made way meanwhile
        if done:
            return await conductor.tokenizer.for_process(process)
    if process.overflow in (Overflow.STOP, Overflow.ERROR) or length <= context - context // ANSWER_SHARE:
        return keep, tokens
    if process.overflow is Overflow.SUMMARISE:
        _note_refused(conductor, process)
    sinks = await _sinks(conductor, process)
    excess = length - int(context * FILL)
    if keep < len(process.tokens) or not keep:  # the conversation is read again as a whole
        whole = (*process.tokens[:keep], *tokens)
        if excess > len(whole) - sinks - 1:
            return keep, tokens
        whole = (*whole[:sinks], *whole[sinks + excess :])
        _note(conductor, process, sinks, excess)
        return min(keep, sinks), whole[min(keep, sinks) :]
    discard = min(max(excess, (keep - sinks) // 2), keep - sinks)
    if length - discard < context and process.phase is Phase.NEW:
        _forget(conductor, process, sinks, discard)
    return len(process.tokens), tokens


def _still_forgotten(process: Process, keep: int, tokens: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The conversation was read again as a whole: what was forgotten stays so, if it is the same up to the answer."""
    sinks, forgotten = process.sinks, process.forgotten
    whole = (*process.tokens[:keep], *tokens)
    rest = (*whole[:sinks], *whole[sinks + forgotten :])
    same = common(process.tokens, rest) if rest else 0
    if same >= process.turn_start > sinks:
        return same, rest[same:]
    process.forgotten = 0
    return keep, tokens


async def _go_on(conductor: Conductor, process: Process) -> None:
    done, core = False, conductor.core
    try:
        if process.overflow is Overflow.SUMMARISE:
            done = await _summarised(conductor, process, summarising.within_an_answer)
            conductor = await core.residency.of_turn(process.model)  # it may have made way meanwhile
        sinks = await _sinks(conductor, process)
    except LlmosError as error:
        core.events.error("residency", str(error), process.pid)
        lifecycle.stop(core, process)  # `cont` tries again
        return
    finally:
        process.shifting = False
    if done:
        conductor.changed(process)
    elif process.phase is Phase.READY and len(process.tokens) >= process.cap:
        discard = (len(process.tokens) - sinks) // 2
        if process.overflow is Overflow.SUMMARISE:
            _note_refused(conductor, process)
        if discard < 1:
            lifecycle.finish_turn(core, process, Reason.CONTEXT)
            return
        _forget(conductor, process, sinks, discard)
        conductor.changed(process)


async def _summarised(
    conductor: Conductor, process: Process, how: Callable[[Conductor, Process], Awaitable[bool]]
) -> bool:
    try:
        return await how(conductor, process)
    except LlmosError as error:
        conductor.core.events.warning("memory", f"it cannot be summarised: {error}", process.pid)
        return False


def _note_refused(conductor: Conductor, process: Process) -> None:
    text = "there is no summary that would make room: the older half is forgotten instead"
    conductor.core.events.warning("memory", text, process.pid)


async def _sinks(conductor: Conductor, process: Process) -> int:
    """How many leading tokens stay: those of the system prompt, and a few at least."""
    count = process.sinks or LEAST_SINKS
    if not process.sinks and not process.raw and process.turns and process.turns[0].role == "system":
        messages = (Message("system", process.turns[0].text), Message("user", ""))
        try:
            asked = await conductor.tokenizer.ask(abi.Tokenize(0, messages=messages))
            same = (left == right for left, right in zip(process.tokens, asked.tokens, strict=False))
            count = max(count, next((index for index, equal in enumerate(same) if not equal), len(asked.tokens)))
        except LlmosError:
            pass  # a template that refuses this: the least will do
    return min(count, conductor.workshop.context // 2)


def _forget(conductor: Conductor, process: Process, keep: int, discard: int) -> None:
    pager = conductor.workshop.pager
    if pager is not None:
        pager.shift(process, keep, discard)
    del process.tokens[keep : keep + discard]
    process.turn_start -= discard
    _note(conductor, process, keep, discard)
    core = conductor.core
    core.journal.append(process.pid, keep, process.tokens[keep:], "", turn=len(process.turns), role="shift")
    core.save(process)


def _note(conductor: Conductor, process: Process, keep: int, discard: int) -> None:
    process.sinks = keep
    process.forgotten += discard
    text = f"its context of {conductor.workshop.context} tokens was full: {discard} tokens after the first {keep}"
    conductor.core.events.info("memory", f"{text} were forgotten", process.pid)
