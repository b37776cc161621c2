"""`run`: a prompt, and what a model makes of it."""

from __future__ import annotations

from typing import Any

from llmos_shell.abi.syscalls import PROC_INFO, Output, Pid, Spawn
from llmos_shell.abi.types import Overflow
from llmos_shell.shell.command import Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.generation import (
    LIMIT_OPTIONS,
    PROCESS_STATUSES,
    check_json,
    end_line,
    exit_status,
    limits_of,
    messages_of,
    print_text,
    spawn,
    title,
)
from llmos_shell.shell.prompts import MODEL_OPTION, OVERFLOW_OPTION, PROMPT_OPTIONS, gather
from llmos_shell.shell.settings import (
    SAMPLING_OPTIONS,
    SYSTEM_OPTIONS,
    add_variables,
    environment_of,
    sampling_of,
    system_of,
)
from llmos_shell.shell.targets import resolve_one

BEST_OF = Option(("--best-of",), "answer N times and print the likeliest answer", "N", "count")
FROM = Option(("--from",), "go on from what this process was asked and said, which shares its memory", "PID", "pid")


def _run(context: Context, args: Args) -> int:
    chat = args.chat or args.system is not None or args.system_file is not None
    if chat and args["from"] is not None:
        raise UsageError("--from goes on in the form of PID's conversation: leave --chat and system prompts out")
    add_variables(context, "run", args, (*SAMPLING_OPTIONS, *(SYSTEM_OPTIONS if chat else ())))
    check_options(args)
    if args.detach and args.best_of:
        raise UsageError("--detach and --best-of exclude each other: use `run … &` for the latter")
    source = None if args["from"] is None else resolve_one(context, args["from"])
    model = args.model if source is None or args.model else context.client.call(PROC_INFO, Pid(source)).model
    prompt = gather(context, model, args.PROMPT, template=args.file, files=args.attach)
    request = Spawn(
        model=prompt.model,
        prompt=None if chat else prompt.text,
        messages=messages_of(system_of(context, args), prompt.text) if chat else None,
        name=args.name or title("run", prompt.text),
        nice=context.nice,
        sampling=sampling_of(args),
        limits=limits_of(context, args),
        detached=context.detached or args.detach,
        private=args.private,
        overflow=Overflow(args.overflow),
        group=args.group or "",
        deadline=args.deadline,
        source=source,
    )
    if args.detach:
        print(spawn(context, request).pid, file=context.out, flush=True)
        return 0
    formal = args.schema or args.grammar
    silent = chat or args.no_echo or formal or source is not None
    return answer(context, args, request, "run", "" if silent else prompt.text)


def check_options(args: Args) -> None:
    """Raises `UsageError` for options that do not go together."""
    if args.logprobs and args.output == "text":
        raise UsageError("--logprobs needs `-o json` or `-o jsonl`")
    if args.best_of is not None and args.best_of < 1:
        raise UsageError(f"--best-of {args.best_of}: must be at least 1")
    if (args.best_of or 1) > 1 and args.temperature == 0:
        raise UsageError("--best-of with temperature 0 gives equal answers: choose another with -t")


def answer(context: Context, args: Args, request: Spawn, command: str, echo: str = "", *, lines: bool = False) -> int:
    """Starts the process and prints what it says, in the form that was asked for; its exit status."""
    if context.handover is not None and ((args.best_of or 1) > 1 or args.output != "text"):
        context.handover.impossible()
    if (args.best_of or 1) > 1:
        return _print_best(context, args, request, command, echo, lines=lines)
    pid = spawn(context, request).pid
    if args.output == "text":
        return print_text(context, pid, echo, command=command, lines=lines, json=bool(args.schema))
    return _print_json(context, args, request, pid, command)


def _print_best(context: Context, args: Args, request: Spawn, command: str, echo: str, *, lines: bool) -> int:
    from llmos_shell.shell.answers import best_of, describe_best, describe_candidate
    from llmos_shell.shell.tables import to_json

    answers = best_of(context, request, args.best_of)
    best = answers[0]
    statuses = [exit_status(context, each.followed, command) for each in answers]
    if args.output == "json":
        context.out.write(to_json(describe_best(answers)))
    elif args.output == "jsonl":
        context.out.writelines(json_line(describe_candidate(each)) for each in answers)
    elif not best.code:
        context.show(echo + best.text)
        end_line(context, best.text or echo, lines=lines)
    context.out.flush()
    return statuses[0] or (check_json(context, command, [best.text], best.followed) if args.schema else 0)


def _print_json(context: Context, args: Args, request: Spawn, pid: int, command: str) -> int:
    """One object at the end; with `jsonl` one per line as they come, and it as the last one without the text."""
    from llmos_shell.shell.answers import describe, read_answer
    from llmos_shell.shell.tables import to_json

    each = args.output == "jsonl"

    def show(item: Output) -> None:
        if each and item.text:
            context.out.write(json_line({"text": item.text, "logprobs": item.logprobs or None}))

    said = read_answer(context, pid, show)
    result: dict[str, Any] = describe(said, logprobs=not each)
    if request.prompt is not None:
        result["prompt"] = request.prompt
    context.out.write(json_line(result) if each else to_json(result))
    context.out.flush()
    status = exit_status(context, said.followed, command)
    return status or (check_json(context, command, [said.text], said.followed) if args.schema else 0)


def json_line(value: Any) -> str:
    """One line of JSON."""
    import msgspec

    return msgspec.json.encode(value).decode() + "\n"


_ENDED = "pid=$(run -d -n 5 list); wait $pid"

COMMANDS = (
    Command(
        "run",
        "complete a prompt",
        _run,
        family="models",
        options=(
            MODEL_OPTION,
            *SAMPLING_OPTIONS,
            *PROMPT_OPTIONS,
            *SYSTEM_OPTIONS,
            Option(("-c", "--chat"), "put the prompt through the model's chat template; implied by a system prompt"),
            BEST_OF,
            FROM,
            Option(("-o", "--output"), "what to print", "FORMAT", "text|json|jsonl", "text"),
            Option(("--no-echo",), "print the continuation without the prompt"),
            Option(("-d", "--detach"), "print the PID and leave it running (`attach` and `log` show its text)"),
            Option(("--name",), "the process's name in `ps`", "NAME"),
            OVERFLOW_OPTION,
            Option(("--private",), "share no memory with processes that have the same prompt"),
            Option(("--deadline",), "it should have ended by then (`sched set deadline`)", "TIME", "duration"),
            *LIMIT_OPTIONS,
        ),
        operands=(Operand("PROMPT", "words of the prompt; the first may be a model", required=False, many=True),),
        description=(
            "The prompt is completed as it stands, and printed before its continuation; with --chat it is a message to "
            "the model, and only the answer is printed. Without PROMPT it is read from standard input; with both, the "
            "words come first. Off a terminal nothing is added to the text, not even a line end.\n\n"
            "In a template of --file, {{prompt}} is the words, {{stdin}} standard input, {{files}} the attached files, "
            "and any other {{NAME}} the shell variable of that name; what the template does not name is added. Files "
            "of --attach must be text; they come before the words, and beside them standard input is one of them. "
            "With --schema or --grammar only the answer is printed, and a text that had to be JSON and was cut gives "
            "exit status 1.\n\n"
            "With --from the prompt is the next thing said to a copy of process PID, which does not notice; ended ones "
            "can be gone on from too. What was said before is neither computed nor printed again.\n\n"
            "--best-of reads the prompt once, forks N processes from there, with seeds that follow each other, and "
            "prints the answer whose tokens have the highest mean log-probability, as the model itself gives it. "
            "`-o json` shows all of them with their scores, beside text, reason, model, PID, seed and usage.\n\n"
            "Ctrl-C ends the process and keeps what it said (exit status 130); Ctrl-Z stops it. The exit status is "
            "the process's: 0 finished, 124 limit, 130 interrupted, 137 killed, 143 terminated."
        ),
        environment=environment_of((*SAMPLING_OPTIONS, *SYSTEM_OPTIONS)),
        examples=(
            Example('run -n 50 "Once upon a time"', "at most 50 tokens, from the default model"),
            Example(
                'run model.gguf -t 0 "2 + 2 ="',
                "from a weights file, always the likeliest token",
                untested="needs a weights file",
            ),
            Example('run "Summarise this:" < notes.txt', "the words, then the file"),
            Example('run -n 50 "a long story" > story.txt &', "in the background"),
            Example('run -n 20 -c -a notes.txt -a report.md "Compare"', "two files and a question"),
            Example("""run --schema '{"type": "boolean"}' "Is it so?\"""", "an answer for programs"),
            Example('run -n 20 --from 12 "And then?"', "another question to what is known already", before=_ENDED),
            Example('LLMOS_TEMPERATURE=1.2 run -n 20 --best-of 4 "Once"', "the likeliest of four"),
        ),
        exit_statuses=PROCESS_STATUSES,
        see_also=("ask", "chat", "fork", "models", "exit-statuses"),
    ),
)
