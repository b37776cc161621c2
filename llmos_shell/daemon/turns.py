"""A turn's way from its text to its tokens: loading the model, tokenizing, and handing them to worker and scheduler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon import lifecycle
from llmos_shell.daemon.process import Phase, Process

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core


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
    except asyncio.CancelledError:
        error = LlmosError(Code.EINTR, "it was ended before it began", pid=process.pid)
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
    conductor = await core.residency.get(process.model)
    conductor.attach(process)
    keep, tokens = await conductor.tokenizer.for_process(process)
    if process.phase is not Phase.NEW:
        return
    pager = conductor.workshop.pager
    context = conductor.workshop.context
    _refuse_too_long(conductor.entry, keep + len(tokens), context, process.limits.kv_tokens)
    if keep < len(process.tokens):
        del process.tokens[keep:]
    core.append_input(process, keep, tokens)
    process.tokens.extend(tokens)
    process.prompt_tokens += len(tokens)
    process.known = len(process.turns)
    lifecycle.ready(core, process)
    if process.seq is not None and not process.leaving and pager is not None:
        pager.feed(process, keep)
    conductor.changed(process)


def _refuse_too_long(entry: ModelEntry, tokens: int, context: int, kv_tokens: int | None) -> None:
    """Raises E2BIG when so many tokens leave no room for an answer."""
    if tokens >= context:
        text = f"the prompt is {tokens} tokens long, but the context of {entry.name} holds {context}"
        raise LlmosError(Code.E2BIG, text, hint="shorten it, or use a model with a longer context")
    if kv_tokens is not None and tokens >= kv_tokens:
        text = f"the prompt is {tokens} tokens long, but its limit is {kv_tokens} tokens of context"
        raise LlmosError(Code.E2BIG, text)
