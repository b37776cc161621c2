"""A turn's way from its text to its tokens: loading the model, tokenizing, and handing them to worker and scheduler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon.processes import lifecycle, overflow
from llmos_shell.daemon.processes.process import Phase, Process

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor


def begin(core: Core, process: Process) -> asyncio.Future[LlmosError | None]:
    """Starts to bring a NEW process to READY.

    The future tells how that went; whoever drops it leaves an error to `lifecycle.fail`, by cancelling it.
    """
    outcome: asyncio.Future[LlmosError | None] = core.loop.create_future()
    process.task = core.spawn_task(_begin(core, process, outcome))
    return outcome


async def _begin(core: Core, process: Process, outcome: asyncio.Future[LlmosError | None]) -> None:
    error: LlmosError | None = None
    try:
        await _prepare(core, process)
    except LlmosError as failed:
        error = failed
    except asyncio.CancelledError:  # by whoever ended the turn, or by the daemon's end, which ends nothing
        if not outcome.done():
            outcome.set_result(LlmosError(Code.EINTR, "it was ended before it began", pid=process.pid))
        raise
    except Exception as fault:
        core.events.exception("proc", fault)
        error = LlmosError(Code.EIO, f"{type(fault).__name__}: {fault}", pid=process.pid)
    finally:
        if process.task is asyncio.current_task():
            process.task = None
    if not outcome.done():
        outcome.set_result(error)
    elif error is not None and process.phase is Phase.NEW:
        lifecycle.fail(core, process, str(error))


async def _prepare(core: Core, process: Process) -> None:
    """Its model is loaded, its tokens are known and fit, and it wants to run."""
    get = core.residency.of_turn if process.summarises else core.residency.get
    conductor = await get(process.model)
    conductor.attach(process)
    _refuse_unread(conductor, process)
    keep, tokens = await conductor.tokenizer.for_process(process)
    if process.phase is not Phase.NEW:
        return
    keep, tokens = await overflow.make_room(conductor, process, keep, tokens)
    if process.phase is not Phase.NEW:
        return
    if core.residency.find(process.model) is not conductor:  # it made way for another while a summary was written
        await _prepare(core, process)
        return
    pager = conductor.workshop.pager
    context = conductor.workshop.context
    length = keep + len(tokens)
    _refuse_too_long(conductor.entry, f"{length} tokens long", length, context, core.scheduling.kv_limit(process))
    if keep < len(process.tokens):
        del process.tokens[keep:]
    core.append_input(process, keep, tokens)
    process.tokens.extend(tokens)
    process.prompt_tokens += len(tokens)
    process.known = len(process.turns)
    process.weights = conductor.weights
    lifecycle.ready(core, process)
    if process.seq is not None and not process.leaving and pager is not None:
        pager.feed(process, keep)
    conductor.changed(process)


def _refuse_unread(conductor: Conductor, process: Process) -> None:
    """Raises E2BIG for text so long that no tokens of it could fit: reading it would hold up everybody's worker."""
    info = conductor.workshop.info
    longest = info.longest_piece_bytes if info is not None else 0
    kv_tokens = conductor.core.scheduling.kv_limit(process)
    if longest:
        new = (turn.text for turn in process.turns[process.known :] if turn.role != "assistant")
        size = sum(len(text.strip().encode()) for text in new)  # templates may strip, and cut what was answered
        least = -(-size // longest)
        what = f"{size} bytes long, at least {least} tokens"
        _refuse_too_long(conductor.entry, what, least, conductor.workshop.context, kv_tokens)


def _refuse_too_long(entry: ModelEntry, what: str, tokens: int, context: int, kv_tokens: int | None) -> None:
    """Raises E2BIG when so many tokens leave no room for an answer; `what` says how long the prompt is."""
    if tokens >= context:
        text = f"the prompt is {what}, but the context of {entry.name} holds {context}"
        raise LlmosError(Code.E2BIG, text, hint="shorten it, or use a model with a longer context")
    if kv_tokens is not None and tokens >= kv_tokens:
        text = f"the prompt is {what}, but its limit is {kv_tokens} tokens of context"
        raise LlmosError(Code.E2BIG, text)
