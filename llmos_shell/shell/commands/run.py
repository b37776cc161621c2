"""`run`: a prompt, and what a model makes of it."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import (
    PROC_KILL,
    PROC_SPAWN,
    PROC_TRANSCRIPT,
    PROC_WAIT,
    Kill,
    Output,
    Pid,
    Spawn,
    Spawned,
    Wait,
)
from llmos_shell.abi.types import ExitInfo, Limits, Message, Signal, TokenLogprob
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.limits import shell_limits
from llmos_shell.shell.prompts import MODEL_OPTION, SAMPLING_OPTIONS, Prompt, gather, sampling_of
from llmos_shell.shell.streaming import Followed, Progress, call_again, describe_exit, describe_prefill, follow_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT_OPTIONS = (
    Option(("--time-limit",), "end the process after this time", "TIME", "duration"),
    Option(("--context-limit",), "longest context, in tokens", "N", "count"),
)


PROCESS_STATUSES = (
    ("0", "it finished: the model ended, or the tokens asked for are there"),
    *ERROR_STATUSES,
    ("124", "a limit was reached"),
    ("130", "it was interrupted"),
    ("137", "it was killed"),
    ("143", "it was asked to end"),
)
"""What the exit status of a command that waits for a process means."""


def spawn(context: Context, request: Spawn) -> Spawned:
    """Starts a process with the context's priority and detachment, and announces it to the shell."""
    with Progress(context.err, f"loading {request.model or 'the default model'}"):
        spawned: Spawned = context.client.call(PROC_SPAWN, request)
    context.track(spawned.pid)
    return spawned


def limits_of(context: Context, args: Args) -> Limits:
    """Limits given as options, else those of the shell's `ulimit`."""
    default = shell_limits(context.shell)
    return Limits(
        tokens=default.tokens,
        seconds=default.seconds if args.time_limit is None else args.time_limit,
        kv_tokens=default.kv_tokens if args.context_limit is None else args.context_limit,
    )


def _run(context: Context, args: Args) -> int:
    prompt = gather(context, args.model, args.PROMPT)
    chat = args.chat or args.system is not None
    if args.logprobs and args.output == "text":
        raise UsageError("--logprobs needs `-o json` or `-o jsonl`")
    request = Spawn(
        model=prompt.model,
        prompt=None if chat else prompt.text,
        messages=_messages(args.system, prompt.text) if chat else None,
        name=args.name or _name(prompt),
        nice=context.nice,
        sampling=sampling_of(args),
        limits=limits_of(context, args),
        detached=context.detached or args.detach,
        private=args.private,
    )
    spawned = spawn(context, request)
    if args.detach:
        print(spawned.pid, file=context.out, flush=True)
        return 0
    if args.output == "text":
        return print_text(context, spawned.pid, "" if chat or args.no_echo else prompt.text)
    return _print_json(context, spawned, prompt, each=args.output == "jsonl")


def _messages(system: str | None, text: str) -> tuple[Message, ...]:
    first = (Message("system", system),) if system else ()
    return (*first, Message("user", text))


def _name(prompt: Prompt) -> str:
    """What `ps` shows: the command and the beginning of the prompt."""
    text = " ".join(prompt.text[:200].split())
    return f"run {text[:60]}…" if len(text) > 60 else f"run {text}"


def print_text(context: Context, pid: int, echo: str = "", *, command: str = "run", lines: bool = False) -> int:
    """Streams prompt and continuation as they are; a terminal gets a final line end, with `lines` any output does."""
    if context.detached and context.background and not context.is_terminal():
        return _print_from_elsewhere(context, pid, echo, command)
    last = echo[-1:]

    def take(item: Output) -> None:
        nonlocal last
        context.show(item.text)
        last = item.text[-1:] or last

    with ending_with_reader(context, pid):
        context.out.write(echo)
        context.out.flush()
        followed = follow_with_progress(context, pid, take)
        if (lines or context.is_terminal()) and last not in ("", "\n"):
            context.out.write("\n")
        context.out.flush()
    return exit_status(context, followed, command)


def _print_from_elsewhere(context: Context, pid: int, echo: str, command: str) -> int:
    """Has a program of its own write the text, because this shell may be gone before the process is."""
    import subprocess
    import sys

    context.out.write(echo)
    context.out.flush()
    writer = subprocess.Popen(
        [sys.executable, "-P", "-m", "llmos_shell", "log", "--follow", "--answers", str(pid)],
        stdin=subprocess.DEVNULL,
        stdout=context.out.fileno(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
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
    with Progress(context.err, "waiting for the first token") as progress:

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


def _print_json(context: Context, spawned: Spawned, prompt: Prompt, *, each: bool) -> int:
    """One object at the end, or with `each` one per line as they come and a last one with the exit."""
    from llmos_shell.shell.tables import to_json

    begun = time.monotonic()
    pieces: list[str] = []
    logprobs: list[TokenLogprob] = []

    def take(item: Output) -> None:
        pieces.append(item.text)
        logprobs.extend(item.logprobs)
        if each and item.text:
            context.out.write(json_line({"text": item.text, "logprobs": item.logprobs or None}))

    with ending_with_reader(context, spawned.pid):
        followed = follow_with_progress(context, spawned.pid, take, logprobs=True)
    transcript = context.client.call(PROC_TRANSCRIPT, Pid(spawned.pid))
    exit = followed.exit
    result: dict[str, Any] = {
        "pid": spawned.pid,
        "model": transcript.model,
        "prompt": prompt.text,
        "text": "".join(pieces),
        "prompt_tokens": spawned.prompt_tokens,
        "tokens": sum(turn.tokens for turn in transcript.turns if turn.role in ("assistant", "completion")),
        "reason": None if exit is None else exit.reason,
        "code": 0 if exit is None else exit.code,
        "seed": transcript.seed,
        "seconds": round(time.monotonic() - begun, 6),
    }
    if logprobs and not each:
        result["logprobs"] = logprobs
    context.out.write(json_line(result) if each else to_json(result))
    context.out.flush()
    return exit_status(context, followed)


def json_line(value: Any) -> str:
    """One line of JSON."""
    import msgspec

    return msgspec.json.encode(value).decode() + "\n"


COMMANDS = (
    Command(
        "run",
        "complete a prompt",
        _run,
        family="models",
        options=(
            MODEL_OPTION,
            *SAMPLING_OPTIONS,
            Option(("-s", "--system"), "a system prompt; implies --chat", "TEXT"),
            Option(("-c", "--chat"), "put the prompt through the model's chat template"),
            Option(("-o", "--output"), "what to print", "FORMAT", "text|json|jsonl", "text"),
            Option(("--no-echo",), "print the continuation without the prompt"),
            Option(("-d", "--detach"), "print the PID and leave it running (`attach` and `log` show its text)"),
            Option(("--name",), "the process's name in `ps`", "NAME"),
            Option(("--private",), "share no memory with processes that have the same prompt"),
            *LIMIT_OPTIONS,
        ),
        operands=(Operand("PROMPT", "words of the prompt; the first may be a model", required=False, many=True),),
        description=(
            "The prompt is completed as it stands, and printed before its continuation; with --chat it is a message to "
            "the model, and only the answer is printed. Without PROMPT it is read from standard input; with both, the "
            "words come first. Off a terminal nothing is added to the text, not even a line end.\n\n"
            "Ctrl-C ends the process and keeps what it said (exit status 130); Ctrl-Z stops it. The exit status is "
            "the process's: 0 finished, 124 limit, 130 interrupted, 137 killed, 143 terminated."
        ),
        examples=(
            Example('run -n 50 "Once upon a time"', "at most 50 tokens, from the default model"),
            Example(
                'run model.gguf -t 0 "2 + 2 ="',
                "from a weights file, always the likeliest token",
                untested="needs a weights file",
            ),
            Example('run "Summarise this:" < notes.txt', "the words, then the file"),
            Example('run -n 50 "a long story" > story.txt &', "in the background"),
        ),
        exit_statuses=PROCESS_STATUSES,
        see_also=("ask", "chat", "fork", "models", "exit-statuses"),
    ),
)
