"""`ask` and `?`: a question, answered by a model, or by the assistant that knows this shell."""

from __future__ import annotations

from collections.abc import Sequence

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import MODEL_LIST, Nothing, Output, Spawn
from llmos_shell.abi.types import Message, ModelStatus
from llmos_shell.shell.command import Args, Command, Context, Example, Operand, Option
from llmos_shell.shell.commands.run import (
    LIMIT_OPTIONS,
    PROCESS_STATUSES,
    exit_status,
    follow_with_progress,
    limits_of,
    print_text,
    spawn,
)
from llmos_shell.shell.prompts import MODEL_OPTION, SAMPLING_OPTIONS, gather, sampling_of, stdin_is_terminal
from llmos_shell.shell.tables import to_json


def _ask(context: Context, args: Args) -> int:
    models: Sequence[ModelStatus] = context.client.call(MODEL_LIST, Nothing())
    names = [status.entry.name for status in models]
    question = gather(context, args.model, args.QUESTION, names=names)
    model = next((m for m in models if m.entry.name == question.model or (m.default and not question.model)), None)
    if model is not None and model.entry.role == "assistant" and args.system is None:
        return consult(context, question.text, model.entry.name, names, as_json=args.output == "json")
    system = (Message("system", args.system),) if args.system else ()
    request = Spawn(
        model=question.model,
        messages=(*system, Message("user", question.text)),
        name=_name("ask", question.text),
        nice=context.nice,
        sampling=sampling_of(args),
        limits=limits_of(context, args),
        detached=context.detached,
    )
    pid = spawn(context, request).pid
    if args.output == "json":
        return _answer_json(context, pid)
    return print_text(context, pid, command="ask", lines=True)


def _answer_json(context: Context, pid: int) -> int:
    pieces: list[str] = []
    followed = follow_with_progress(context, pid, lambda item: pieces.append(item.text))
    reason = None if followed.exit is None else followed.exit.reason
    context.out.write(to_json({"kind": "answer", "text": "".join(pieces), "pid": pid, "reason": reason}))
    return exit_status(context, followed, "ask")


def _question_mark(context: Context, args: Args) -> int:
    if not args.QUESTION and stdin_is_terminal(context):
        return _explain_failure(context)
    models: Sequence[ModelStatus] = context.client.call(MODEL_LIST, Nothing())
    assistants = [status for status in models if status.entry.role == "assistant"]
    if not assistants:
        raise LlmosError(Code.ENOENT, "no model has the role `assistant`", hint="`ask` asks the default model")
    model = next((status for status in assistants if status.default), assistants[0])
    names = [status.entry.name for status in models]
    question = gather(context, model.entry.name, args.QUESTION)
    return consult(context, question.text, model.entry.name, names, as_json=False)


def _explain_failure(context: Context) -> int:
    """Says why the last command failed; a mended line goes to the edit buffer."""
    from llmos_shell.shell.explanations import explain
    from llmos_shell.shell.interactive.proposals import propose
    from llmos_shell.shell.surroundings import ShellSurroundings

    failures = context.shell.failures
    failure = failures.last
    if failure is None:
        context.out.write(
            "Nothing has failed yet. `? how do I …` proposes a command line, `help` lists the commands.\n"
        )
        return 0
    explanation = explain(failure, ShellSurroundings(context.shell))
    which = "" if failures.fresh else f"The last line that failed: {failure.text}\n"
    context.out.write(context.clean(f"{which}{explanation.text}\n"))
    context.out.flush()
    if explanation.line and context.shell.interactive and context.is_terminal():
        propose(explanation.line)
    return 0


def consult(context: Context, question: str, model: str, names: Sequence[str], *, as_json: bool) -> int:
    """Puts a question to the assistant. In a REPL a command line goes to the edit buffer, else it is printed."""
    from llmos_shell.shell import assistant
    from llmos_shell.shell.interactive.proposals import propose

    prepared = assistant.prepare(question, names)
    sampling = {"temperature": 0.0, "max_tokens": assistant.MAX_TOKENS, "grammar": prepared.grammar}
    request = Spawn(
        model=model,
        prompt=prepared.prompt,
        name=_name("ask", question),
        nice=context.nice,
        sampling={key: value for key, value in sampling.items() if value is not None},
    )
    pieces: list[str] = []

    def take(item: Output) -> None:
        pieces.append(item.text)

    status = exit_status(context, follow_with_progress(context, spawn(context, request).pid, take), "ask")
    if status:
        return status
    proposal = assistant.finish(prepared, "".join(pieces))
    if as_json:
        context.out.write(to_json({"kind": proposal.kind, "text": proposal.text, "destructive": proposal.destructive}))
    elif proposal.kind == "command" and context.shell.interactive and context.is_terminal():
        propose(proposal.text)
        if proposal.destructive:
            print("[this ends or overwrites something: look before pressing Enter]", file=context.err)
    else:
        context.out.write(proposal.text + "\n")
    context.out.flush()
    return 1 if proposal.kind == "unknown" else 0


def _name(command: str, text: str) -> str:
    short = " ".join(text[:200].split())
    return f"{command} {short[:60]}…" if len(short) > 60 else f"{command} {short}"


_QUESTION = (Operand("QUESTION", "the question; none: standard input", required=False, many=True),)

COMMANDS = (
    Command(
        "ask",
        "ask a model one question",
        _ask,
        family="models",
        options=(
            MODEL_OPTION,
            *SAMPLING_OPTIONS,
            Option(("-s", "--system"), "a system prompt", "TEXT"),
            Option(("-o", "--output"), "what to print", "FORMAT", "text|json", "text"),
            *LIMIT_OPTIONS,
        ),
        operands=_QUESTION,
        description=(
            "The question goes through the model's chat template, and only the answer is printed. The built-in model "
            "is an assistant that knows this shell: it answers with a command line, or in a sentence."
        ),
        examples=(
            Example("ask list processes by memory", "from the built-in assistant"),
            Example('ask -m qwen "Why is the sky blue?"', "from another model", untested="needs a model of that name"),
            Example("echo how do I list models | ask", "a question from a pipe", output="models"),
            Example("ask -o json kill process 42", "for a program"),
        ),
        exit_statuses=(*PROCESS_STATUSES[:1], ("1", "it has no answer, or something failed"), *PROCESS_STATUSES[2:]),
        see_also=("?", "run", "chat", "models"),
    ),
    Command(
        "?",
        "ask the assistant how to do something in this shell",
        _question_mark,
        family="models",
        operands=_QUESTION,
        description=(
            "In a shell on a terminal the command line it proposes is put at the prompt, to be looked at, changed and "
            "run; it is never run by itself. `?` alone explains why the last command failed, and proposes a mended "
            "line where there is one."
        ),
        examples=(
            Example("? pause process 7", "proposes a line", output="stop 7"),
            Example("?", "what went wrong?", untested="explains the last command typed"),
        ),
        exit_statuses=(*PROCESS_STATUSES[:1], ("1", "it has no answer, or something failed"), *PROCESS_STATUSES[2:]),
        see_also=("ask", "help", "apropos"),
    ),
)
