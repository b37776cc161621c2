"""`attach`, `log` and `fork`: what a process has said, and going on from there."""

from __future__ import annotations

from llmos_shell.abi.syscalls import PROC_FORK, PROC_INFO, PROC_TRANSCRIPT, Fork, Forked, Pid, Transcript
from llmos_shell.abi.types import ExitInfo, ProcessInfo, State
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.conversation import Conversation, Ended, converse, read_messages
from llmos_shell.shell.streaming import describe_exit, follow_output
from llmos_shell.shell.tables import style_of, to_json
from llmos_shell.shell.targets import resolve, resolve_one
from llmos_shell.shell.transcripts import GENERATED, render_transcript

_PID = (Operand("PID", "a process, or a job such as %1", "pid"),)


class _Watched(Exception):
    """The user no longer wants to watch; the process goes on."""


def _attach(context: Context, args: Args) -> int:
    pid = resolve_one(context, args.PID)
    process: ProcessInfo = context.client.call(PROC_INFO, Pid(pid))
    if process.chat and process.exit is None:
        return _join(context, process)
    return _watch(context, pid, args.PID)


def _join(context: Context, process: ProcessInfo) -> int:
    """Takes part in a conversation; the end of input leaves it as it is."""
    conversation = Conversation(context, process.pid, joined=True)
    if context.is_terminal():
        conversation.note(f"process {process.pid}, {process.model}; Ctrl-D leaves it running, /bye ends it")
    conversation.show_so_far()
    try:
        if process.state is not State.SLEEPING:
            conversation.show()
    except Ended as ended:
        return _report(context, ended.exit)
    ending = converse(conversation, read_messages(conversation))
    return conversation.end() if ending.how == "end" else ending.status


def _watch(context: Context, pid: int, target: int | str) -> int:
    """Shows output so far and to come; Ctrl-C stops watching, and nothing else."""

    def give_up(_count: int) -> None:
        raise _Watched

    transcript: Transcript = context.client.call(PROC_TRANSCRIPT, Pid(pid))
    context.out.write(render_transcript(transcript.turns, style_of(context), context.clean))
    context.out.flush()
    try:
        followed = follow_output(context, pid, offset=transcript.length, on_interrupt=give_up)
    except _Watched:
        print(f"\n[process {pid} goes on: `attach {pid}` comes back, `kill {pid}` ends it]", file=context.err)
        return 130
    _finish_line(context)
    return _report(context, followed.exit)


def _finish_line(context: Context) -> None:
    if context.is_terminal():
        context.out.write("\n")
    context.out.flush()


def _report(context: Context, exit: ExitInfo | None) -> int:
    if exit is None:
        return 0
    why = describe_exit(exit)
    if why:
        print(f"[process {exit.pid}: {why}]", file=context.err, flush=True)
    return exit.code


def _log(context: Context, args: Args) -> int:
    for target in args.PID:
        for pid in resolve(context, target):
            transcript: Transcript = context.client.call(PROC_TRANSCRIPT, Pid(pid))
            if args.json:
                context.out.write(to_json(transcript))
                continue
            turns = transcript.turns[-args.turns :] if args.turns else transcript.turns
            if args.answers:
                text = context.clean("".join(turn.text for turn in turns if turn.role in GENERATED)[args["from"] :])
            else:
                text = render_transcript(turns, style_of(context), context.clean)
            context.out.write(text)
            if args.follow:
                context.out.flush()
                return _follow(context, pid, transcript.length)
            if text and not text.endswith("\n") and (context.is_terminal() or len(args.PID) > 1):
                context.out.write("\n")
    return 0


def _follow(context: Context, pid: int, offset: int) -> int:
    def give_up(_count: int) -> None:
        raise _Watched

    try:
        follow_output(context, pid, offset=offset, on_interrupt=give_up, foreground=False)
    except _Watched:
        return 130
    _finish_line(context)
    return 0


def _fork(context: Context, args: Args) -> int:
    if args.count < 1:
        raise UsageError(f"-n {args.count}: must be at least 1")
    nice = context.nice if args.nice is None and context.nice else args.nice
    request = Fork(
        resolve_one(context, args.PID),
        count=args.count,
        nice=nice,
        detached=args.detach or context.detached,
        keep_seed=args.keep_seed,
    )
    forked: Forked = context.client.call(PROC_FORK, request)
    if args.json:
        context.out.write(to_json(forked.pids))
    else:
        context.out.writelines(f"{pid}\n" for pid in forked.pids)
    return 0


_CONVERSATION = "pid=$(chat -d)"
_ENDED = "pid=$(run -d -n 5 list); wait $pid"

COMMANDS = (
    Command(
        "attach",
        "come back to a process from this terminal",
        _attach,
        family="processes",
        operands=_PID,
        description=(
            "Shows what was said so far. A conversation goes on, and Ctrl-D leaves it as it is; of any other process "
            "the output is shown to its end, and Ctrl-C stops watching it. The exit status is the process's."
        ),
        examples=(
            Example("attach 12", "from any terminal of yours", before=_ENDED),
            Example("echo hello | attach 12", "say one thing to a conversation", before=_CONVERSATION),
        ),
        exit_statuses=(
            ("0", "it finished, or the conversation was left"),
            *ERROR_STATUSES,
            ("130", "it was left with Ctrl-C, or was interrupted"),
            ("STATUS", "otherwise that of the process"),
        ),
        see_also=("log", "chat", "jobs", "exit-statuses"),
    ),
    Command(
        "log",
        "show what processes were asked and said, also ended ones",
        _log,
        family="processes",
        options=(
            Option(("-f", "--follow"), "go on with what is still to come"),
            Option(("-n", "--turns"), "only the newest N turns", "N", "count"),
            Option(("-a", "--answers"), "only what the model said, as it is"),
            Option(("--from",), "leave out the first N characters of what it said (with --answers)", "N", "count", 0),
            Option(("--json",), "as JSON, with tokens and reasons"),
        ),
        operands=(Operand("PID", "processes, or jobs such as %1", "pid", many=True),),
        description=(
            "Transcripts are kept in the journal, also those of processes that ended long ago and of a daemon that was "
            "killed. With `--follow` the first process is followed to its end; Ctrl-C stops watching it, and nothing "
            "else."
        ),
        examples=(
            Example("log 12 > talk.txt", "keep a transcript", before=_ENDED),
            Example("log -f 12", "watch it write", before=_ENDED),
            Example("log -a 12 | wc -c", "only what the model said", before=_ENDED),
        ),
        exit_statuses=(("0", "success"), *ERROR_STATUSES, ("130", "left with Ctrl-C")),
        files=(("journal.db", "the journal; the topic configuration says where it is"),),
        see_also=("attach", "ps", "fork"),
    ),
    Command(
        "fork",
        "copy a process with all it has in mind",
        _fork,
        family="processes",
        options=(
            Option(("-n", "--count"), "make N copies", "N", "int", 1),
            Option(("-d", "--detach"), "the copies outlive this session"),
            Option(("--nice",), "their nice value", "N", "int"),
            Option(("--keep-seed",), "the copies draw the same random numbers"),
            Option(("--json",), "as JSON"),
        ),
        operands=_PID,
        description=(
            "Prints the PIDs of the copies. They share the memory of what was said so far. A copy of a generation goes "
            "on generating, a copy of a conversation sleeps until it is spoken to; ended processes can be copied too."
        ),
        examples=(
            Example("fork -n 3 12", "three ways on from process 12", before=_CONVERSATION),
            Example(
                "for child in $(fork -d -n 2 12); do echo hello | attach $child; done",
                "ask both the same",
                before=_CONVERSATION,
            ),
        ),
        see_also=("chat", "run", "memory", "ps"),
    ),
)
