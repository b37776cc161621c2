"""`ask` and `?`: a question, answered by a model, or by the assistant that knows this shell."""

from __future__ import annotations

from collections.abc import Sequence

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import MODEL_LIST, Nothing, Output, Spawn
from llmos_shell.abi.types import ModelStatus
from llmos_shell.shell.command import Args, Command, Context, Example, Operand, Option
from llmos_shell.shell.commands.run import BEST_OF, answer, check_options
from llmos_shell.shell.generation import (
    LIMIT_OPTIONS,
    PROCESS_STATUSES,
    exit_status,
    follow_with_progress,
    limits_of,
    messages_of,
    spawn,
    title,
)
from llmos_shell.shell.prompts import MODEL_OPTION, PROMPT_OPTIONS, gather, stdin_is_terminal
from llmos_shell.shell.settings import (
    SAMPLING_OPTIONS,
    SYSTEM_OPTIONS,
    add_variables,
    environment_of,
    sampling_of,
    system_of,
)
from llmos_shell.shell.tables import to_json


def _ask(context: Context, args: Args) -> int:
    models: Sequence[ModelStatus] = context.client.call(MODEL_LIST, Nothing())
    names = [status.entry.name for status in models]
    about_shell = not any(args[name] for name in _BEYOND_SHELL) and args.system is None
    question = gather(context, args.model, args.QUESTION, names=names, template=args.file, files=args.attach)
    model = next((m for m in models if m.entry.name == question.model or (m.default and not question.model)), None)
    if model is not None and model.entry.role == "assistant" and about_shell:
        return consult(context, question.text, model.entry.name, names, as_json=args.output == "json")
    add_variables(context, "ask", args, (*SAMPLING_OPTIONS, *SYSTEM_OPTIONS))
    check_options(args)
    request = Spawn(
        model=question.model,
        messages=messages_of(system_of(context, args), question.text),
        name=title("ask", question.text),
        nice=context.nice,
        sampling=sampling_of(args),
        limits=limits_of(context, args),
        detached=context.detached,
        group=args.group or "",
    )
    return answer(context, args, request, "ask", lines=True)


_BEYOND_SHELL = ("system_file", "file", "attach", "grammar", "schema", "best_of", "logprobs")
"""Options that make `ask` put the question to the model as to any other, be it the assistant or not."""


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
    from llmos_shell.shell.assistant_forms import SHOWN
    from llmos_shell.shell.interactive.proposals import propose

    prepared = assistant.prepare(question, names)
    sampling = {"temperature": 0.0, "max_tokens": assistant.MAX_TOKENS, "grammar": prepared.grammar}
    request = Spawn(
        model=model,
        prompt=prepared.prompt,
        name=title("ask", question),
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
        context.out.write(SHOWN.get(proposal.text, proposal.text) + "\n")
    context.out.flush()
    return 1 if proposal.kind == "unknown" else 0


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
            *PROMPT_OPTIONS,
            *SYSTEM_OPTIONS,
            BEST_OF,
            Option(("-o", "--output"), "what to print", "FORMAT", "text|json|jsonl", "text"),
            *LIMIT_OPTIONS,
        ),
        operands=_QUESTION,
        description=(
            "The question goes through the model's chat template, and only the answer is printed. The built-in model "
            "is an assistant that knows this shell: it answers with a command line, or in a sentence, unless it gets "
            "a system prompt, files or a form for its answer, which make it a model like any other. The options mean "
            "what they mean for `run`."
        ),
        environment=environment_of((*SAMPLING_OPTIONS, *SYSTEM_OPTIONS)),
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
