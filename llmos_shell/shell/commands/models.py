"""`models`, `load`, `unload`, `kernels` and `tokenize`."""

from __future__ import annotations

from collections.abc import Sequence

from llmos_shell.abi.syscalls import (
    KERNEL_LIST,
    MODEL_LIST,
    MODEL_LOAD,
    MODEL_PIN,
    MODEL_PLAN,
    MODEL_PROBLEMS,
    MODEL_RESIZE,
    MODEL_TOKENIZE,
    MODEL_UNLOAD,
    Awaited,
    KernelInfo,
    LoadPlan,
    ModelName,
    Nothing,
    Pin,
    ResizePool,
    Tokenize,
    TokenList,
)
from llmos_shell.abi.types import ModelStatus
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.loading import load_watch
from llmos_shell.shell.prompts import MODEL_OPTION, gather, resolve_model
from llmos_shell.shell.streaming import show_progress
from llmos_shell.shell.tables import Column, render, size, style_of, to_json

_JSON = Option(("--json",), "as JSON, with all fields")
_RSS = Column("RSS", right=True)
_MODEL_COLUMNS = (
    Column("MODEL"),
    Column("SIZE", right=True),
    Column("KERNEL"),
    Column("LOADED"),
    Column("NEEDS", right=True),
    _RSS,
    Column("CONTEXT", right=True),
    Column("KV USED", right=True),
    Column("POOL"),
    Column("PROCS", right=True),
    Column("DESCRIPTION", flexible=True),
)


def _models(context: Context, args: Args) -> int:
    found: tuple[ModelStatus, ...] = context.client.call(MODEL_LIST, Nothing())
    problems: tuple[str, ...] = context.client.call(MODEL_PROBLEMS, Nothing())
    for problem in problems:
        print(f"llmos: models: {problem}", file=context.err)
    shown = [status for status in found if not args.loaded or status.worker is not None]
    if args.json:
        context.out.write(to_json(shown))
        return bool(problems)
    rows = [_model_row(status) for status in shown]
    colours = ["red" if status.problem else "green" if status.worker is not None else "" for status in shown]
    columns = list(_MODEL_COLUMNS)
    if any(status.gpus for status in shown):
        at = columns.index(_RSS) + 1
        columns.insert(at, Column("GPUS"))
        for row, status in zip(rows, shown, strict=True):
            row.insert(at, _gpus(status))
    context.out.write(render(columns, rows, style_of(context), colours))
    return bool(problems)


def _gpus(status: ModelStatus) -> str:
    """What it was estimated to take of each GPU, and takes."""
    return " ".join(
        f"{gpu.name}:{size(gpu.estimated)}/{'-' if gpu.measured is None else size(gpu.measured)}" for gpu in status.gpus
    )


def _model_row(status: ModelStatus) -> list[str]:
    entry = status.entry
    context = status.context or entry.context or 0
    used = status.used_pages * status.page_tokens
    return [
        entry.name + (" *" if status.default else ""),
        size(status.bytes) if status.bytes else "-",
        entry.kernel,
        _loaded(status) + (" pinned" if status.pinned else ""),
        size(status.estimated_bytes) if status.estimated_bytes else "-",
        size(status.measured_bytes) if status.measured_bytes else "-",
        str(context) if context else "-",
        f"{used}/{status.pages * status.page_tokens}" if status.worker is not None else "-",
        f"{status.layout} {status.slots}" if status.worker is not None else "-",
        str(status.processes),
        status.problem or entry.description,
    ]


def _loaded(status: ModelStatus) -> str:
    if status.loading is not None:
        return f"{status.loading:.0%}"
    return "yes" if status.worker is not None else "no"


def _load(context: Context, args: Args) -> int:
    for model in args.MODEL:
        if args.dry_run:
            _show_plan(context, args, resolve_model(model))
            continue
        if args.pin:
            context.client.call(MODEL_PIN, Pin(resolve_model(model)))
        name = resolve_model(model)
        with show_progress(context, f"loading {model}", load_watch(context, Awaited(name))):
            status: ModelStatus = context.client.call(MODEL_LOAD, ModelName(name))
        if status.warning:
            print(f"llmos: load: warning: {status.warning}", file=context.err, flush=True)
        if args.json:
            context.out.write(to_json(status))
        else:
            pool = status.pages * status.page_tokens
            print(
                f"{status.entry.name}: loaded in {status.load_seconds:.2f} s,",
                f"context {status.context}, KV pool {pool} tokens ({size(pool * status.kv_bytes_per_token)})",
                file=context.out,
                flush=True,
            )
    return 0


def _show_plan(context: Context, args: Args, model: str) -> None:
    plan: LoadPlan = context.client.call(MODEL_PLAN, ModelName(model))
    if args.json:
        context.out.write(to_json(plan))
        return
    line = f"{plan.model}: needs about {size(plan.needed)} of the {size(plan.budget)} for models"
    if plan.layers:
        where = ", ".join(
            f"{plan.gpu_split.get(name, 0)} to {name}: {size(taken)}" for name, taken in plan.gpus.items()
        )
        line += f"; {plan.gpu_layers} of {plan.layers} layers go to GPUs" + (f" ({where})" if where else "")
        line += f": {plan.gpu_note}" if plan.gpu_note else ""
    if plan.loaded:
        line += "; it is loaded"
    if plan.evict:
        line += f"; would unload {', '.join(plan.evict)}"
    if plan.wait_for:
        line += f"; would wait for {', '.join(plan.wait_for)}"
    print(line, file=context.out, flush=True)


def _pin(context: Context, args: Args) -> int:
    for model in args.MODEL:
        context.client.call(MODEL_PIN, Pin(resolve_model(model)))
    return 0


def _unpin(context: Context, args: Args) -> int:
    for model in args.MODEL:
        context.client.call(MODEL_PIN, Pin(resolve_model(model), False))
    return 0


def _unload(context: Context, args: Args) -> int:
    for model in args.MODEL:
        context.client.call(MODEL_UNLOAD, ModelName(resolve_model(model)))
    return 0


def _resize(context: Context, args: Args) -> int:
    if args.pool is None and args.slots is None and args.layout is None:
        raise UsageError("say what is to change: --pool, --slots or --layout")
    model = resolve_model(args.MODEL)
    with show_progress(context, f"changing the pool of {args.MODEL}"):
        status: ModelStatus = context.client.call(
            MODEL_RESIZE, ResizePool(model, args.pool, args.slots, args.layout or None)
        )
    if args.json:
        context.out.write(to_json(status))
        return 0
    pool = status.pages * status.page_tokens
    print(
        f"{status.entry.name}: KV pool {pool} tokens ({size(pool * status.kv_bytes_per_token)}),",
        f"{status.layout}, {status.slots} slots",
        file=context.out,
    )
    return 0


def _kernels(context: Context, args: Args) -> int:
    kernels: Sequence[KernelInfo] = context.client.call(KERNEL_LIST, Nothing())
    if args.json:
        context.out.write(to_json(kernels))
        return 0
    columns = (Column("KERNEL"), Column("STATUS"), Column("FORMATS"), Column("SUMMARY", flexible=True))
    rows = [
        [
            kernel.name,
            "ready" if kernel.available else f"missing: {kernel.missing}",
            " ".join(kernel.formats),
            kernel.summary,
        ]
        for kernel in kernels
    ]
    context.out.write(render(columns, rows, style_of(context)))
    return 0


def _tokenize(context: Context, args: Args) -> int:
    prompt = gather(context, args.model, args.TEXT)
    tokens: TokenList = context.client.call(MODEL_TOKENIZE, Tokenize(prompt.text, prompt.model))
    if args.json:
        context.out.write(to_json({"count": len(tokens.tokens), "tokens": tokens.tokens}))
    elif args.ids:
        print(*tokens.tokens, file=context.out)
    else:
        print(len(tokens.tokens), file=context.out)
    return 0


_MODELS = (Operand("MODEL", "names of `models`, or weights files", "model", many=True),)

_MODELS_TOML = (("models.toml", "your models; the topic configuration says where it is"),)

COMMANDS = (
    Command(
        "models",
        "list models",
        _models,
        family="models",
        options=(Option(("-l", "--loaded"), "only those in memory"), _JSON),
        description=(
            "The default model has a star. Models are described in `models.toml`; any weights file works too. SIZE is "
            "that of the weights, NEEDS what a model was estimated to take of the RAM, RSS what it takes; where GPUs "
            "are used, GPUS says both of each. CONTEXT and KV USED are tokens, POOL says how the KV is laid out and "
            "for how many at once, PROCS are its live processes. Mistakes in `models.toml` are told on standard error, "
            "and models that cannot be loaded say why."
        ),
        examples=(
            Example("models", "what can be run?"),
            Example("models --loaded", "what is in memory?"),
        ),
        exit_statuses=(("0", "success"), ("1", "`models.toml` holds mistakes, or something failed"), ERROR_STATUSES[1]),
        files=_MODELS_TOML,
        see_also=("load", "unload", "kernels", "run"),
    ),
    Command(
        "load",
        "load models and wait until they are ready",
        _load,
        family="models",
        options=(
            Option(("--dry-run",), "only say what it would take, and which models would make way"),
            Option(("--pin",), "and keep them, as `pin` does"),
            _JSON,
        ),
        operands=_MODELS,
        description=(
            "Nothing needs this: a model is loaded when it is first used. It is unloaded again when nobody has used it "
            "for a while, or when the memory is needed for another one."
        ),
        examples=(Example("load tiny", "before it is needed"),),
        environment=(("LLMOS_KEEP_SECONDS", "a model that nobody uses is unloaded after so long"),),
        files=_MODELS_TOML,
        see_also=("unload", "models", "free"),
    ),
    Command(
        "pin",
        "keep models in memory",
        _pin,
        family="models",
        operands=_MODELS,
        description=(
            "A pinned model is not unloaded once it is loaded: not when nobody uses it, not for another model. That "
            "survives restarts of the daemon. It is loaded when it is first used, or by `load`."
        ),
        examples=(Example("pin tiny", "keep it from now on"),),
        see_also=("unpin", "load", "models"),
    ),
    Command(
        "unpin",
        "let models be unloaded again",
        _unpin,
        family="models",
        operands=_MODELS,
        examples=(Example("unpin tiny", "it may go when nobody uses it"),),
        see_also=("pin", "unload"),
    ),
    Command(
        "unload",
        "take models out of memory",
        _unload,
        family="models",
        operands=_MODELS,
        description="Their processes are kept, and load the model again when they have to run.",
        examples=(Example("unload tiny", "free what it takes", before="load tiny"),),
        see_also=("load", "free", "memory"),
    ),
    Command(
        "resize",
        "change the KV pool of a loaded model",
        _resize,
        family="models",
        options=(
            Option(("--pool",), "tokens of KV in all", "TOKENS", "count"),
            Option(("--slots",), "processes whose KV may be in memory at once", "N", "count"),
            Option(
                ("--layout",),
                "one pool that all share, or a part of its own for each slot",
                "WHAT",
                "shared|split",
            ),
            _JSON,
        ),
        operands=(Operand("MODEL", "a name of `models`, or a weights file", "model"),),
        description=(
            "The weights stay loaded. The KV of the model's processes is written out and read back into the new pool, "
            "so they go on where they were; what is not said stays as it is. A split pool holds a whole context in "
            "every slot. What is chosen here lasts until the model is unloaded and is not changed by itself; "
            "`models.toml` says what it is loaded with."
        ),
        examples=(
            Example("resize --slots 4 tiny", "fewer at once", before="load tiny"),
            Example("resize --layout shared tiny", "one pool for all", before="load tiny"),
        ),
        see_also=("models", "load", "pmap", "memory"),
    ),
    Command(
        "kernels",
        "list the kernels that can run models",
        _kernels,
        family="models",
        options=(_JSON,),
        description=(
            "A kernel is a package that runs models of some formats, in workers of its own. STATUS says what is "
            "missing, and what to install. `models.toml` chooses the kernel of a model."
        ),
        examples=(Example("kernels", "what is there?"),),
        see_also=("models", "status"),
    ),
    Command(
        "tokenize",
        "count the tokens of a text",
        _tokenize,
        family="models",
        options=(MODEL_OPTION, Option(("-i", "--ids"), "print the tokens instead of their number"), _JSON),
        operands=(Operand("TEXT", "a text; none: standard input", required=False, many=True),),
        description="The first word may be a model, as with `run`. With both, words come before input.",
        examples=(
            Example("tokenize < notes.txt", "would it fit?"),
            Example("tokenize -i kill process 12", "the tokens themselves"),
        ),
        see_also=("models", "run"),
    ),
)
