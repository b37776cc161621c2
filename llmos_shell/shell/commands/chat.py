"""`chat`: a conversation as a process."""

from __future__ import annotations

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import PROC_ADOPT, PROC_DETACH, PROC_FORK, PROC_INFO, Adopt, Fork, Forked, Pid, Spawn
from llmos_shell.abi.types import ProcessInfo
from llmos_shell.shell.command import Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.conversation import Conversation, converse, read_lines
from llmos_shell.shell.generation import LIMIT_OPTIONS, PROCESS_STATUSES, limits_of, spawn
from llmos_shell.shell.prompts import MODEL_OPTION, resolve_model
from llmos_shell.shell.settings import SAMPLING_OPTIONS, sampling_of
from llmos_shell.shell.tables import style_of
from llmos_shell.shell.targets import resolve_one
from llmos_shell.shell.transcripts import render_transcript


def _chat(context: Context, args: Args) -> int:
    if args.model and args.MODEL:
        raise UsageError("two models are given: give one")
    if args.resume is not None:
        conversation = _resume(context, resolve_one(context, args.resume))
    else:
        conversation = Conversation(context, _start(context, args))
    if args.detach:
        if args.resume is not None:
            context.client.call(PROC_DETACH, Pid(conversation.pid))
        print(conversation.pid, file=context.out, flush=True)
        return 0
    if context.is_terminal():
        conversation.note(f"process {conversation.pid}; Ctrl-D ends it, /detach leaves it asleep, /help says more")
    try:
        ending = converse(conversation, read_lines(context))
    except (BrokenPipeError, KeyboardInterrupt, LlmosError):
        conversation.end()
        raise
    if ending.how == "exit":
        return ending.status
    if ending.how != "detach":
        return conversation.end()
    context.client.call(PROC_DETACH, Pid(conversation.pid))
    conversation.note(f"process {conversation.pid} sleeps on: `attach {conversation.pid}` comes back")
    return 0


def _start(context: Context, args: Args) -> int:
    from llmos_shell.abi.types import Message

    model = resolve_model(args.MODEL or args.model or "")
    request = Spawn(
        model=model,
        messages=(Message("system", args.system),) if args.system else None,
        chat=True,
        name=args.name or f"chat {args.MODEL or args.model or ''}".rstrip(),
        nice=context.nice,
        sampling=sampling_of(args),
        limits=limits_of(context, args),
        detached=context.detached or args.detach,
        group=args.group or "",
    )
    return spawn(context, request).pid


def _resume(context: Context, pid: int) -> Conversation:
    """Takes back a chat that lives, or continues a copy of one that has ended."""
    process: ProcessInfo = context.client.call(PROC_INFO, Pid(pid))
    if process.exit is None:
        if not process.chat:
            raise UsageError(f"process {pid} is no conversation: `attach {pid}` shows its output")
        context.client.call(PROC_ADOPT, Adopt(pid))
    else:
        forked: Forked = context.client.call(PROC_FORK, Fork(pid))
        pid = forked.pids[0]
    context.track(pid)
    conversation = Conversation(context, pid)
    show_so_far(conversation)
    return conversation


def show_so_far(conversation: Conversation) -> None:
    """Writes the transcript on a terminal, and moves to its end."""
    transcript = conversation.catch_up()
    context = conversation.context
    if transcript.turns and context.is_terminal():
        text = render_transcript(transcript.turns, style_of(context), context.clean)
        context.out.write(text if text.endswith("\n") else text + "\n")
        context.out.flush()


COMMANDS = (
    Command(
        "chat",
        "talk with a model",
        _chat,
        family="models",
        options=(
            MODEL_OPTION,
            *SAMPLING_OPTIONS,
            Option(("-s", "--system"), "a system prompt", "TEXT"),
            Option(("-d", "--detach"), "start it, print its PID, and leave it asleep"),
            Option(("-r", "--resume"), "continue this conversation, even if it has ended", "PID", "pid"),
            Option(("--name",), "the process's name in `ps`", "NAME"),
            *LIMIT_OPTIONS,
        ),
        operands=(Operand("MODEL", "a name of `models`, or a weights file", "model", required=False),),
        description=(
            "The conversation is one process, which sleeps between turns and keeps its memory. Ctrl-C ends an answer "
            "and keeps the conversation; Ctrl-D or /bye ends it; /detach leaves it asleep, and `attach` comes back to "
            "it from any terminal. From a pipe every line is a message.\n\n"
            "/help lists the commands that begin with a slash."
        ),
        examples=(
            Example('chat -s "Answer in one word."', "with the default model"),
            Example("chat --resume 12", "go on where process 12 ended", before="pid=$(chat -d); kill $pid"),
            Example("printf 'hello\\nbye\\n' | chat", "two turns from a script"),
            Example("pid=$(chat -d); echo hello | attach $pid", "a conversation that a script comes back to"),
        ),
        exit_statuses=(("0", "it was ended, or left"), *PROCESS_STATUSES[1:]),
        see_also=("attach", "fork", "log", "ask", "keys"),
    ),
)
