"""Where a prompt comes from: the words of a command, its standard input, or both; and sampling given as options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.command import Args, Option, UsageError

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context

MODEL_OPTION = Option(("-m", "--model"), "a name of `models`, or a weights file", "MODEL", "model")

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
    Option(("--schema",), "a JSON schema that the text must obey", "FILE", "file"),
    Option(("--logprobs",), "report N alternatives per token (with `-o json`)", "N", "count"),
)
"""Options that `run`, `ask` and `chat` have in common."""

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


class Prompt(Struct, frozen=True):
    """What was asked for: a model ("" for the default) and a text."""

    model: str
    text: str


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
    for option, field in (("grammar", "grammar"), ("schema", "json_schema")):
        if args.get(option):
            chosen[field] = read_text_file(args[option])
    return chosen


def check_range(option: str, value: Any) -> Any:
    """The value if it makes sense for this option. Raises `UsageError`."""
    low, high = _RANGES.get(option, (0, float("inf")))
    if not low <= value <= high:
        raise UsageError(f"--{option.replace('_', '-')} {value}: must be from {low} to {high}")
    return value


def gather(context: Context, model: str | None, words: Sequence[str], *, names: Sequence[str] | None = None) -> Prompt:
    """The prompt: the words joined by spaces, or standard input, or both (the words, then the input).

    Without `model`, a first word that is a weights file or one of `names` is the model, if a prompt is left without it.
    """
    words = list(words)
    piped = read_stdin(context) if not stdin_is_terminal(context) else None
    if model is None and words and (len(words) > 1 or piped) and is_model(context, words[0], names):
        model = words.pop(0)
    parts = [part for part in (" ".join(words), piped) if part]
    if not words and piped is None:
        raise UsageError("PROMPT is missing: give a text, or pipe one in")
    text = "\n".join(parts)
    check_text(text, "the prompt")
    return Prompt(resolve_model(model or ""), text)


def is_model(context: Context, word: str, names: Sequence[str] | None = None) -> bool:
    """Whether a word names a model: a weights file (ENOENT when it does not exist), or an entry of models.toml."""
    import os

    if word.endswith(".gguf") and not any(char.isspace() for char in word):
        if not os.path.isfile(word):
            what = "is a folder, not a weights file" if os.path.isdir(word) else "no such file"
            raise LlmosError(Code.ENOENT, f"{word}: {what}", hint="quote the whole prompt if it is no model")
        return True
    if not word or any(char.isspace() for char in word):
        return False
    return word in (model_names(context) if names is None else names)


def model_names(context: Context) -> list[str]:
    """The names of all models the daemon knows."""
    from llmos_shell.abi.syscalls import MODEL_LIST, Nothing

    return [status.entry.name for status in context.client.call(MODEL_LIST, Nothing())]


def resolve_model(name: str) -> str:
    """A weights file as an absolute path, because the daemon has another working directory; a name as it is."""
    import os

    return os.path.abspath(name) if name.endswith(".gguf") or "/" in name else name


def stdin_is_terminal(context: Context) -> bool:
    """Whether standard input is a terminal, or nothing at all."""
    try:
        return context.stdin.isatty()
    except ValueError:
        return True


def read_stdin(context: Context) -> str:
    """All of standard input. Raises EINVAL unless it is UTF-8."""
    return decode(context.stdin.read(), "standard input")


def read_text_file(path: str) -> str:
    """A file's text. Raises EINVAL unless it is UTF-8."""
    with open(path, "rb") as file:
        return decode(file.read(), path)


def decode(data: bytes, source: str) -> str:
    """The text of UTF-8 bytes. Raises EINVAL with the place of the first byte that is wrong."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        what = f"{source} is not UTF-8 (byte {error.start} is 0x{data[error.start]:02x})"
        raise LlmosError(Code.EINVAL, what, hint="convert it with iconv") from None


def check_text(text: str, source: str) -> None:
    """Raises EINVAL for bytes on the command line that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LlmosError(Code.EINVAL, f"{source} is not UTF-8 (character {error.start})", hint="convert it") from None
