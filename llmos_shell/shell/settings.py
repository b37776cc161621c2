"""Options that `run`, `ask` and `chat` have in common, the shell variables that stand in for them, and what they set.

An option wins over its variable, a variable over `sampling` and `system` of the model in models.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.arguments import convert
from llmos_shell.shell.command import Args, Option, UsageError
from llmos_shell.shell.textfiles import check_text, read_text_file

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context

SAMPLING_OPTIONS = (
    Option(("-n", "--tokens"), "generate at most N tokens", "N", "count"),
    Option(("-t", "--temperature"), "0 always takes the likeliest token", "T", "float"),
    Option(("--top-k",), "choose among the K likeliest tokens; 0: off", "K", "count"),
    Option(("--top-p",), "… among the likeliest that make up probability P; 1: off", "P", "float"),
    Option(("--min-p",), "… among those at least P times as likely as the likeliest; 0: off", "P", "float"),
    Option(("--repeat-penalty",), "make repetitions less likely; 1: off", "X", "float"),
    Option(("--seed",), "the same seed gives the same text", "N", "count"),
    Option(("--stop",), "end before this text", "TEXT", repeat=True),
    Option(("--grammar",), "a GBNF grammar that the text must obey", "FILE", "file"),
    Option(("--schema",), "a JSON schema that the text must obey: a file, or the schema itself", "SCHEMA", "file"),
    Option(("--logprobs",), "report N alternatives per token (with `-o json`)", "N", "count"),
)

SYSTEM_OPTIONS = (
    Option(("-s", "--system"), "a system prompt", "TEXT"),
    Option(("-S", "--system-file"), "a system prompt from a file, with {{NAME}} for shell variables", "FILE", "file"),
)

_EXCLUSIVE = ({"grammar", "schema"}, {"system", "system_file"})
_FIELDS = {
    "tokens": "max_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
    "seed": "seed",
    "logprobs": "logprobs",
}
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repeat_penalty": (0.01, 100),
    "logprobs": (0, 100),
    "seed": (0, 2**64 - 1),
}


def variable_of(option: Option) -> str:
    """The shell variable that stands in for an option, e.g. LLMOS_TOP_K."""
    return f"LLMOS_{option.name.upper()}"


def environment_of(options: Sequence[Option]) -> tuple[tuple[str, str], ...]:
    """What a command's page says of the variables."""
    model = ("LLMOS_MODEL", "the model where none is named")
    return (model, *((variable_of(option), f"stands in for `{option.flags[-1]}`") for option in options))


def add_variables(context: Context, command: str, args: Args, options: Sequence[Option]) -> None:
    """Enters the values of shell variables for options that were not given. Raises `UsageError` for one that is wrong.

    An empty variable is as good as none. LLMOS_STOP holds one text per line; a flag is set by anything but 0.
    """
    taken = [group for group in _EXCLUSIVE if any(args.get(name) for name in group)]
    for option in options:
        text = context.shell.get(variable_of(option))
        if not text or args.get(option.name) not in (None, (), False) or any(option.name in group for group in taken):
            continue
        if not option.value:
            args[option.name] = text != "0"
        elif option.repeat:
            args[option.name] = tuple(text.splitlines())
        else:
            args[option.name] = convert(command, text, option.type, variable_of(option))


def default_model(context: Context) -> str:
    """The model of LLMOS_MODEL; "" for that of models.toml."""
    return context.shell.get("LLMOS_MODEL") or ""


def sampling_of(args: Args) -> dict[str, Any]:
    """The fields of `Sampling` that the options set. Raises `UsageError` for values that mean nothing."""
    chosen: dict[str, Any] = {}
    for option, field in _FIELDS.items():
        if args.get(option) is not None:
            chosen[field] = check_range(option, args[option])
    if args.get("stop"):
        chosen["stop"] = list(args.stop)
    if args.get("grammar") and args.get("schema"):
        raise UsageError("--grammar and --schema exclude each other: give one of them")
    if args.get("grammar"):
        chosen["grammar"] = read_text_file(args.grammar)
    if args.get("schema"):
        chosen["json_schema"] = _read_schema(args.schema)
    return chosen


def system_of(context: Context, args: Args) -> str:
    """The system prompt of `-s` or `-S`; "" for that of the model. Raises `UsageError` for both."""
    from llmos_shell.shell.templates import fill_file

    if args.system is not None and args.system_file is not None:
        raise UsageError("--system and --system-file exclude each other: give one of them")
    if args.system_file is not None:
        return fill_file(args.system_file, context.shell.get)
    check_text(args.system or "", "the system prompt")
    return args.system or ""


def check_range(option: str, value: Any) -> Any:
    """The value if it makes sense for this option. Raises `UsageError`."""
    low, high = _RANGES.get(option, (0, float("inf")))
    if not low <= value <= high:
        raise UsageError(f"--{option.replace('_', '-')} {value}: must be from {low} to {high}")
    return value


def _read_schema(schema: str) -> str:
    """The JSON text of a schema that is given as such or as a file. Raises EINVAL unless it is a JSON object."""
    import msgspec

    text, source = (schema, "--schema") if schema.lstrip()[:1] == "{" else (read_text_file(schema), schema)
    try:
        msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise LlmosError(Code.EINVAL, f"{source}: no JSON schema: {str(error).lower()}") from None
    return text
