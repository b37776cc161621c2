"""`chat`: a conversation as a process."""

from __future__ import annotations

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import PROC_ADOPT, PROC_DETACH, PROC_FORK, PROC_INFO, Adopt, Fork, Forked, Pid, Spawn
from llmos_shell.abi.types import Overflow, ProcessInfo
from llmos_shell.shell.attachments import attachment
from llmos_shell.shell.command import Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.conversation import Conversation, converse, is_typed, read_messages
from llmos_shell.shell.generation import LIMIT_OPTIONS, PROCESS_STATUSES, limits_of, spawn
from llmos_shell.shell.prompts import MODEL_OPTION, OVERFLOW_OPTION, resolve_model
from llmos_shell.shell.settings import (
    SAMPLING_OPTIONS,
    SYSTEM_OPTIONS,
    add_variables,
    default_model,
    environment_of,
    sampling_of,
    system_of,
)
from llmos_shell.shell.slash_names import SLASH_COMMANDS
from llmos_shell.shell.targets import resolve_one


def _chat(context: Context, args: Args) -> int:
    whole = "-" in (args.MODEL, args.INPUT)
    model = None if args.MODEL == "-" else args.MODEL
    if args.INPUT not in (None, "-"):
        raise UsageError(f"`{args.INPUT}` is too much: messages come from standard input, `-` takes all of it as one")
    if args.model and model:
        raise UsageError("two models are given: give one")
    add_variables(context, "chat", args, (*SAMPLING_OPTIONS, *SYSTEM_OPTIONS, RAW))
    files = "\n".join(attachment(path) for path in args.attach)
    if args.resume is not None:
        conversation = _resume(context, resolve_one(context, args.resume), raw=args.raw, files=files)
    else:
        pid = _start(context, args, model or args.model)
        conversation = Conversation(context, pid, raw=args.raw, files=files)
    if args.detach:
        if args.resume is not None:
            context.client.call(PROC_DETACH, Pid(conversation.pid))
        print(conversation.pid, file=context.out, flush=True)
        return 0
    if is_typed(context) and not whole:
        conversation.note(f"process {conversation.pid}; Ctrl-D ends it, /detach leaves it asleep, /help says more")
    try:
        ending = converse(conversation, read_messages(conversation, whole=whole))
    except (BrokenPipeError, KeyboardInterrupt, LlmosError):
        conversation.end()
        raise
    if ending.how == "exit":
        return ending.status
    if ending.how != "detach":
        return conversation.end() or ending.status
    context.client.call(PROC_DETACH, Pid(conversation.pid))
    conversation.note(f"process {conversation.pid} sleeps on: `attach {conversation.pid}` comes back")
    return ending.status


def _start(context: Context, args: Args, model: str | None) -> int:
    from llmos_shell.abi.types import Message

    system = system_of(context, args)
    request = Spawn(
        model=resolve_model(model or default_model(context)),
        messages=(Message("system", system),) if system else None,
        chat=True,
        name=args.name or f"chat {model or ''}".rstrip(),
        nice=context.nice,
        sampling=sampling_of(args),
        limits=limits_of(context, args),
        detached=context.detached or args.detach,
        overflow=Overflow(args.overflow),
        group=args.group or "",
    )
    return spawn(context, request).pid


def _resume(context: Context, pid: int, *, raw: bool, files: str) -> Conversation:
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
    conversation = Conversation(context, pid, raw=raw, files=files)
    conversation.show_so_far()
    return conversation


_SLASH_LIST = "\n".join(f"- {name}{' ' if does[:1].isupper() else ': '}{does}" for name, does in SLASH_COMMANDS.items())

RAW = Option(("--raw",), "show answers as they are, not as Markdown")

COMMANDS = (
    Command(
        "chat",
        "talk with a model",
        _chat,
        family="models",
        options=(
            MODEL_OPTION,
            *SAMPLING_OPTIONS,
            *SYSTEM_OPTIONS,
            Option(("-a", "--attach"), "give this text file along with the first message", "FILE", "file", repeat=True),
            RAW,
            OVERFLOW_OPTION,
            Option(("-d", "--detach"), "start it, print its PID, and leave it asleep"),
            Option(("-r", "--resume"), "continue this conversation, even if it has ended", "PID", "pid"),
            Option(("--name",), "the process's name in `ps`", "NAME"),
            *LIMIT_OPTIONS,
        ),
        operands=(
            Operand("MODEL", "a name of `models`, or a weights file", "model", required=False),
            Operand("INPUT", "`-`: all of standard input is one message", required=False),
        ),
        description=(
            "The conversation is one process, which sleeps between turns and keeps its memory. Ctrl-C ends an answer "
            "and keeps the conversation; Ctrl-D or /bye ends it; /detach leaves it asleep, and `attach` comes back to "
            "it from any terminal: each shows what is said from the others. On a terminal answers are shown as "
            "Markdown, unless --raw or `/set raw on` says otherwise, and Ctrl-X Ctrl-E opens your editor.\n\n"
            'From a pipe every line is a message, or every block of lines between """ and """; with `-` all of it '
            "is one. The exit status is 1 if any was refused.\n\n"
            "These lines are commands, also from a pipe, but not with `-`, which is how to pass on text that is not "
            f"your own; //TEXT sends /TEXT:\n\n{_SLASH_LIST}\n\n"
            "/undo, /retry, /clear and /system change what the model has in "
            "mind; what it said stays in the journal. /save NAME writes a file in the folder `chats` of the state, "
            "which outlives the journal; /load NAME reads it, into any chat with any model."
        ),
        environment=environment_of((*SAMPLING_OPTIONS, *SYSTEM_OPTIONS, RAW)),
        examples=(
            Example('chat -s "Answer in one word."', "with the default model"),
            Example("chat --resume 12", "go on where process 12 ended", before="pid=$(chat -d); kill $pid"),
            Example("printf 'hello\\nbye\\n' | chat", "two turns from a script"),
            Example("chat - < report.md", "one message of many lines"),
            Example("pid=$(chat -d); echo hello | attach $pid", "a conversation that a script comes back to"),
        ),
        exit_statuses=(("0", "it was ended, or left"), *PROCESS_STATUSES[1:]),
        see_also=("attach", "fork", "log", "ask", "keys"),
    ),
)
