"""Starting a model process for a command, showing what it says, and its exit status: the ground `run`, `ask` and `chat`
stand on.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import PROC_KILL, PROC_SPAWN, PROC_WAIT, Awaited, Kill, Output, Spawn, Spawned, Wait
from llmos_shell.abi.types import ExitInfo, Limits, Message, Reason, Signal
from llmos_shell.shell.command import ERROR_STATUSES, Args, Context, Option
from llmos_shell.shell.handover import HandedOver, start_writer
from llmos_shell.shell.limits import shell_limits
from llmos_shell.shell.loading import load_watch
from llmos_shell.shell.streaming import (
    Followed,
    call_again,
    describe_exit,
    describe_prefill,
    follow_output,
    show_progress,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LIMIT_OPTIONS = (
    Option(("--time-limit",), "end the process after this time", "TIME", "duration"),
    Option(("--context-limit",), "longest context, in tokens", "N", "count"),
    Option(("--group",), "share the model as a part of this group (see `group`)", "NAME"),
)

PROCESS_STATUSES = (
    ("0", "it finished: the model ended, or the tokens asked for are there"),
    *ERROR_STATUSES,
    ("124", "a limit was reached"),
    ("130", "it was interrupted"),
    ("137", "it was killed"),
    ("143", "it was asked to end"),
)


def spawn(context: Context, request: Spawn) -> Spawned:
    """Starts a process with the context's priority and detachment, and announces it to the shell."""
    if not context.background and not request.detached:
        request = msgspec.structs.replace(request, foreground=True)
    watch = load_watch(context, Awaited(request.model))
    with show_progress(context, f"loading {request.model or 'the default model'}", watch):
        spawned = _begin(context, request)
    context.track(spawned.pid)
    if spawned.warning:
        print(f"llmos: warning: {spawned.warning}", file=context.err, flush=True)
    return spawned


def _begin(context: Context, request: Spawn) -> Spawned:
    """A process that Ctrl-C or Ctrl-Z came too late for is announced, and so stopped with the rest, or interrupted."""
    late: list[int] = []

    def note(spawned: Spawned) -> None:
        late.append(spawned.pid)
        context.track(spawned.pid)

    try:
        spawned: Spawned = context.client.call(PROC_SPAWN, request, too_late=note)
    except KeyboardInterrupt:
        for pid in late:
            with suppress(LlmosError):
                context.client.call(PROC_KILL, Kill(pid, Signal.INT))
        raise
    return spawned


def limits_of(context: Context, args: Args) -> Limits:
    """Limits given as options, else those of the shell's `ulimit`."""
    default = shell_limits(context.shell)
    return Limits(
        tokens=default.tokens,
        seconds=default.seconds if args.time_limit is None else args.time_limit,
        kv_tokens=default.kv_tokens if args.context_limit is None else args.context_limit,
    )


def messages_of(system: str, text: str) -> tuple[Message, ...]:
    """A first message, after a system prompt if there is one."""
    first = (Message("system", system),) if system else ()
    return (*first, Message("user", text))


def title(command: str, text: str) -> str:
    """What `ps` shows: the command and the beginning of the prompt."""
    short = " ".join(text[:200].split())
    return f"{command} {short[:60]}…" if len(short) > 60 else f"{command} {short}"


def print_text(
    context: Context, pid: int, echo: str = "", *, command: str = "run", lines: bool = False, json: bool = False
) -> int:
    """Streams prompt and continuation as they are; a terminal gets a final line end, with `lines` any output does.

    With `json` the text has to be JSON as a whole, or the exit status says that it is not.
    """
    handover = context.handover if context.background else None
    if context.detached and context.background and not context.is_terminal():
        return _print_from_elsewhere(context, pid, echo, command)
    pieces: list[str] = []  # without `json` only the last is of interest

    def take(item: Output) -> None:
        with handover.writing(item.offset + len(item.text)) if handover is not None else nullcontext():
            context.show(item.text)
            if handover is not None:
                context.out.flush()
        if item.text:
            if not json:
                pieces.clear()
            pieces.append(item.text)

    with ending_with_reader(context, pid):
        context.out.write(echo)
        context.out.flush()
        if handover is not None:
            handover.needless() if context.is_terminal() else handover.begin(pid, context.out)
        try:
            followed = follow_with_progress(context, pid, take)
        except HandedOver:
            return 0
        finally:
            if handover is not None:
                handover.end()
        end_line(context, pieces[-1] if pieces else echo, lines=lines)
    return exit_status(context, followed, command) or (check_json(context, command, pieces, followed) if json else 0)


def end_line(context: Context, shown: str, *, lines: bool = False) -> None:
    """Gives what was shown its final line end, on a terminal, or with `lines` anywhere."""
    if (lines or context.is_terminal()) and shown and not shown.endswith("\n"):
        context.out.write("\n")
    context.out.flush()


def check_json(context: Context, command: str, pieces: Sequence[str], followed: Followed) -> int:
    """Exit status 1, with a word on stderr, for text that is no JSON because the process ended too early."""
    import msgspec

    try:
        msgspec.json.decode("".join(pieces))
    except msgspec.DecodeError:
        reason = followed.exit.reason if followed.exit is not None else ""
        what = "the text is no whole JSON"
        if reason == Reason.LENGTH:
            return context.error(command, f"{what}: it was cut at the token limit: allow more with -n")
        return context.error(command, f"{what} (it ended for the reason `{reason}`)")
    return 0


def _print_from_elsewhere(context: Context, pid: int, echo: str, command: str) -> int:
    """Has a program of its own write the text, because this shell may be gone before the process is."""
    context.out.write(echo)
    context.out.flush()
    if context.handover is not None:
        context.handover.needless()
    writer = start_writer(pid, context.out.fileno())
    exit: ExitInfo = call_again(context, PROC_WAIT, Wait(pid))
    writer.wait()
    return exit_status(context, Followed(0, exit, None, False), command)


@contextmanager
def ending_with_reader(context: Context, pid: int) -> Iterator[None]:
    """Ends the process when nobody reads its output any more, unless it is meant to outlive its session."""
    try:
        yield
    except BrokenPipeError:
        if not context.detached:
            with suppress(LlmosError):
                context.client.call(PROC_KILL, Kill(pid, Signal.TERM))
                context.client.call(PROC_WAIT, Wait(pid))
        raise


def follow_with_progress(context: Context, pid: int, take: Callable[[Output], None], **options: Any) -> Followed:
    """Follows to the end; on a terminal a changing line shows what goes on until the first text comes."""
    with show_progress(context, "waiting for the first token", load_watch(context, Awaited(pid=pid))) as progress:

        def show(item: Output) -> None:
            if item.text or item.exit is not None or item.turn is not None:
                progress.stop()
            elif item.prefill is not None:
                progress.say(describe_prefill(*item.prefill))
            take(item)

        return follow_output(context, pid, on_item=show, **options)


def exit_status(context: Context, followed: Followed, command: str = "run") -> int:
    """Reaps the process and returns its exit code; says on stderr why it failed, if it did."""
    exit = followed.exit
    if exit is None:
        return 0
    with suppress(LlmosError):
        context.client.call(PROC_WAIT, Wait(exit.pid))
    why = describe_exit(exit)
    if why and not followed.interrupted:
        context.error(command, f"process {exit.pid}: {why}")
    return exit.code
