"""`proc.spawn`, `proc.input` and `proc.fork`: what makes a process begin a turn."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Kind, Limits, Message, ModelEntry, Reason, Sampling, Turn
from llmos_shell.daemon.policies import NICE_MAX, NICE_MIN
from llmos_shell.daemon.processes import lifecycle, turns
from llmos_shell.daemon.processes.copies import continue_from, copy_of, record_context
from llmos_shell.daemon.processes.process import Phase, Process, group_name, printable
from llmos_shell.daemon.processes.table import INIT
from llmos_shell.daemon.sched.groups import check_name
from llmos_shell.daemon.syscalls import Context

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

ANSWER_SECONDS = 5.0
"""How long a spawn waits for the model, to refuse a prompt at once and to tell its length."""

NAME_LENGTH = 40
MAX_FORKS = 1024
MAX_STOPS, MAX_STOP_LENGTH = 64, 1024
"""Stop strings, and characters of each: they are looked for at every token, between the steps of all."""


async def spawn(context: Context, args: abi.Spawn) -> abi.Spawned:
    """Starts a model process."""
    core = context.core
    source = None if args.source is None else await core.recall(args.source)
    entry = core.registry.resolve(args.model or (source.model if source is not None else ""))
    process = _new_process(context, args, entry)
    if source is not None:
        continue_from(process, source)
    core.scheduling.require_room(process.model, process.group)
    if args.private:
        process.scope = f"p{process.pid}"
    lifecycle.spawned(core, process)
    if process.tokens:
        record_context(core, process)
    if process.chat and (not process.turns or process.turns[-1].role not in ("user", "prompt")):
        lifecycle.sleep(core, process)
        await core.durable()
        return abi.Spawned(process.pid)
    outcome = turns.begin(core, process)
    try:
        await asyncio.wait([outcome], timeout=ANSWER_SECONDS)
        await core.durable()
    except asyncio.CancelledError:
        if not core.closing:
            lifecycle.end(core, process, Reason.INTERRUPT)
            lifecycle.reap(core, process)
        raise
    if not outcome.done():
        outcome.cancel()
        return abi.Spawned(process.pid)
    error = outcome.result()
    if error is not None and process.alive and not core.closing:
        if error.code == Code.E2BIG:  # whoever sent it has it: no need to fill the journal with it
            process.turns.clear()
        lifecycle.end(core, process, Reason.ERROR, str(error))
        lifecycle.reap(core, process)
        raise error
    conductor = core.residency.find(process.model)
    warning = conductor.workshop.landed if conductor is not None else ""
    return abi.Spawned(process.pid, process.prompt_tokens, warning)


async def take_input(context: Context, args: abi.Input) -> abi.InputTaken:
    """Gives a chat its next message."""
    core = context.core
    process = core.table.living(args.pid)
    if not process.chat:
        raise LlmosError(Code.EINVAL, f"process {args.pid} is no chat and takes no input", pid=args.pid)
    if args.end:
        lifecycle.end(core, process, Reason.END)
        return abi.InputTaken(process.output.length)
    if process.phase is not Phase.IDLE:
        text = f"process {args.pid} is still answering"
        raise LlmosError(Code.EBUSY, text, hint="wait, or interrupt it", pid=args.pid)
    before = process.sampling
    process.sampling = merged(before, args.sampling)
    offset = process.output.length
    lifecycle.take_input(core, process, Turn("prompt" if process.raw else "user", args.text))
    outcome = turns.begin(core, process)
    try:
        error = await outcome
        await core.durable()
    except asyncio.CancelledError:
        _take_back(core, process, before)
        raise
    if error is not None:
        _take_back(core, process, before)
        raise error
    return abi.InputTaken(offset)


def _take_back(core: Core, process: Process, sampling: Sampling) -> None:
    """Input that could not become a turn is as if it had not come."""
    if process.phase is Phase.NEW:
        if process.task is not None:
            process.task.cancel()
            process.task = None
        process.sampling = sampling
        lifecycle.refuse_input(core, process)


async def fork(context: Context, args: abi.Fork) -> abi.Forked:
    """Copies a process."""
    core = context.core
    if not 1 <= args.count <= MAX_FORKS:
        raise LlmosError(Code.EINVAL, f"cannot make {args.count} copies", hint=f"use 1 to {MAX_FORKS}")
    if args.nice is not None:
        check_nice(args.nice)
    source = await core.recall(args.pid)
    if source.kind is Kind.SESSION:
        raise LlmosError(Code.EINVAL, f"{args.pid} is a session and cannot be copied", pid=args.pid)
    core.registry.resolve(source.model)
    core.table.require_room(args.count)
    group = group_name(source.named_group, context.caller.tty, 0 if args.detached else context.caller.pid)
    core.scheduling.require_room(source.model, group, args.count)
    children = [copy_of(context, source, args, number) for number in range(1, args.count + 1)]
    for child in children:
        lifecycle.spawned(core, child)
        if child.phase is Phase.NEW:
            core.begin_turn(child)
        elif child.phase is Phase.READY:
            if (conductor := core.residency.at_hand(child.model)) is not None:
                conductor.attach(child)
            else:
                core.run_for(child, _resume(context, child))
        elif (conductor := core.residency.find(child.model)) is not None:
            conductor.attach(child)
            if conductor.workshop.pager is not None and child.tokens:
                conductor.workshop.pager.open_idle(child)
    await asyncio.sleep(0)  # they run before the journal is busy
    await core.durable()
    return abi.Forked(tuple(child.pid for child in children))


async def _resume(context: Context, process: Process) -> None:
    """Has a process that is READY already run, loading its model first."""
    try:
        conductor = await context.core.residency.get(process.model)
    except LlmosError as error:
        lifecycle.fail(context.core, process, str(error))
        return
    if process.alive:
        conductor.attach(process)


# -- making processes --------------------------------------------------------------------------------------------------


def _new_process(context: Context, args: abi.Spawn, entry: ModelEntry) -> Process:
    core = context.core
    if args.prompt is not None and args.messages is not None:
        raise LlmosError(Code.EINVAL, "`prompt` and `messages` exclude each other")
    if args.prompt is None and args.messages is None and not args.chat:
        raise LlmosError(Code.EINVAL, "there is no prompt")
    if args.source is not None and (args.prompt is None or args.chat):
        raise LlmosError(Code.EINVAL, "a process is continued with a prompt, and only with that")
    if args.prompt is None and not args.messages and not args.chat:
        raise LlmosError(Code.EINVAL, "there are no messages")
    check_nice(args.nice)
    check_limits(args.limits)
    if args.group:
        check_name(args.group)
    if args.deadline is not None and not 0 < args.deadline < 1e9:
        raise LlmosError(Code.EINVAL, f"a deadline in {args.deadline:g} s", hint="use more than 0")
    sampling = merged(merged(Sampling(), entry.sampling), args.sampling)
    if sampling.seed is None:
        sampling = structs.replace(sampling, seed=secrets.randbits(64))
    ppid, session = _place(context, args)
    process = Process(
        core.table.next_pid(), printable(args.name) or _name(args), Kind.MODEL, ppid=ppid, session=session,
        model=core.residency.key_of(entry),
        nice=args.nice, tty=context.caller.tty, chat=args.chat, sampling=sampling, limits=args.limits,
    )  # fmt: skip
    process.raw = args.prompt is not None
    process.overflow = args.overflow
    process.named_group, process.summoned = args.group, args.foreground and not args.detached
    if args.deadline is not None:
        process.deadline = process.started + args.deadline
    process.turns = _first_turns(args, entry)
    return process


def _first_turns(args: abi.Spawn, entry: ModelEntry) -> list[Turn]:
    if args.prompt is not None:
        return [Turn("prompt", args.prompt)]
    messages: tuple[Message, ...] = args.messages or ()
    check_roles(messages)
    if entry.system and not (messages and messages[0].role == "system"):
        messages = (Message("system", entry.system), *messages)
    return [Turn(message.role, message.content) for message in messages]


def _place(context: Context, args: abi.Spawn) -> tuple[int, int]:
    """(parent, session) of a new process."""
    if args.detached:
        return INIT, 0
    if args.parent is None or args.parent == context.caller.pid:
        return context.caller.pid, context.caller.pid
    parent = context.core.table.living(args.parent)
    return parent.pid, parent.session


def _name(args: abi.Spawn) -> str:
    """What `ps` shows when the user gave no name: the beginning of what was asked."""
    asked = args.prompt
    if asked is None and args.messages:
        asked = next((m.content for m in reversed(args.messages) if m.role == "user"), args.messages[-1].content)
    line = printable(" ".join((asked or "").split()))
    if not line:
        return "chat" if args.chat else "generate"
    return line if len(line) <= NAME_LENGTH else line[: NAME_LENGTH - 1] + "…"


def merged(base: Sampling, changes: dict[str, Any]) -> Sampling:
    """`base` with some fields replaced. Raises EINVAL for a field that does not exist or a value that does not fit."""
    if not changes:
        return base
    unknown = sorted(set(changes) - set(Sampling.__struct_fields__))
    if unknown:
        raise LlmosError(Code.EINVAL, f"there is no sampling parameter {unknown[0]!r}")
    try:
        sampling = msgspec.convert({**msgspec.to_builtins(structs.replace(base)), **changes}, Sampling)
    except msgspec.ValidationError as error:
        raise LlmosError(Code.EINVAL, f"sampling: {error}") from None
    _check_sampling(sampling)
    return sampling


def _check_sampling(s: Sampling) -> None:
    wrong = (
        ("temperature", not 0 <= s.temperature <= 100, "0 to 100"),
        ("top_k", s.top_k < 0, "0 (off) or more"),
        ("top_p", not 0 < s.top_p <= 1, "above 0, up to 1 (off)"),
        ("min_p", not 0 <= s.min_p <= 1, "0 (off) to 1"),
        ("repeat_penalty", not 0.01 <= s.repeat_penalty <= 100, "0.01 to 100; 1 is off"),
        ("presence_penalty", not -100 <= s.presence_penalty <= 100, "-100 to 100; 0 is off"),
        ("frequency_penalty", not -100 <= s.frequency_penalty <= 100, "-100 to 100; 0 is off"),
        ("repeat_last", s.repeat_last < 0, "0 (off) or more"),
        ("max_tokens", s.max_tokens is not None and s.max_tokens < 1, "1 or more"),
        ("logprobs", not 0 <= s.logprobs <= 100, "0 (off) to 100"),
        ("seed", s.seed is not None and not 0 <= s.seed < 1 << 64, "0 to 2**64 - 1"),
    )
    for name, is_wrong, allowed in wrong:
        if is_wrong:
            raise LlmosError(Code.EINVAL, f"{name} {getattr(s, name)} is out of range", hint=f"use {allowed}")
    longest = max(map(len, s.stop), default=0)
    if len(s.stop) > MAX_STOPS or longest > MAX_STOP_LENGTH:
        text = f"there are {len(s.stop)} stop strings, the longest of {longest} characters"
        raise LlmosError(Code.EINVAL, text, hint=f"use at most {MAX_STOPS}, of at most {MAX_STOP_LENGTH} characters")


def check_roles(messages: Sequence[Message]) -> None:
    """Raises EINVAL for a message that nobody could have said."""
    for message in messages:
        if message.role not in ("system", "user", "assistant"):
            text = f"a message has the role {message.role!r}"
            raise LlmosError(Code.EINVAL, text, hint="use system, user or assistant")


def check_nice(value: int) -> None:
    """Raises EINVAL outside -20…19."""
    if not NICE_MIN <= value <= NICE_MAX:
        raise LlmosError(Code.EINVAL, f"nice {value} is out of range", hint=f"use {NICE_MIN} to {NICE_MAX}")


def check_limits(limits: Limits) -> None:
    """Raises EINVAL for a limit that is not positive."""
    for name, value in (("tokens", limits.tokens), ("seconds", limits.seconds), ("kv_tokens", limits.kv_tokens)):
        if value is not None and not value > 0:
            raise LlmosError(Code.EINVAL, f"a limit of {value:g} {name} is not positive")
