"""Where a prompt comes from: words, standard input, a template, attached files. And which model it is for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.command import Option, UsageError
from llmos_shell.shell.settings import default_model
from llmos_shell.shell.textfiles import check_text, decode, read_text_file

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context

MODEL_OPTION = Option(("-m", "--model"), "a name of `models`, or a weights file", "MODEL", "model")

OVERFLOW_OPTION = Option(
    ("--overflow",),
    "when the context is full: stop, go on without the older half of it or with a summary of it, or fail",
    "WHAT",
    "stop|shift|summarise|error",
    "stop",
)

PROMPT_OPTIONS = (
    Option(
        ("-f", "--file"),
        "a template for the prompt, with {{prompt}}, {{stdin}}, {{files}} and {{NAME}}",
        "FILE",
        "file",
    ),
    Option(
        ("-a", "--attach"),
        "give it this text file along, with its name; `-`: standard input",
        "FILE",
        "file",
        repeat=True,
    ),
)
"""Where `run` and `ask` have prompts from, besides their words and standard input."""


class Prompt(Struct, frozen=True):
    """What was asked for: a model ("" for the default) and a text."""

    model: str
    text: str


def gather(
    context: Context,
    model: str | None,
    words: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    template: str | None = None,
    files: Sequence[str] = (),
) -> Prompt:
    """The prompt: the words joined by spaces, or standard input, or both (the words, then the input).

    `files` come before both, because questions about the same files then begin alike and share their memory; beside
    them standard input is one of them. A `template` says itself where each of these goes; what it does not name is
    added. Without `model`, a first word that is a weights file or one of `names` is the model, if a prompt is left
    without it.
    """
    words = list(words)
    parts = _Parts(context, files)
    more = len(words) > 1 or template or files or parts.has_input
    if model is None and words and more and is_model(context, words[0], names):
        model = words.pop(0)
    parts.words = " ".join(words)
    if template is not None:
        text = _from_template(context, template, parts)
    elif not words and not files and not parts.has_input:
        raise UsageError("PROMPT is missing: give a text, or pipe one in")
    else:
        text = parts.rest(())
    check_text(text, "the prompt")
    return Prompt(resolve_model(model or default_model(context)), text)


class _Parts:
    """What a prompt is made of; standard input is read once, and where a `-` among the files asks for it, as a file."""

    def __init__(self, context: Context, files: Sequence[str]) -> None:
        self._context = context
        self._files = files
        self.words = ""
        self.input = None if stdin_is_terminal(context) and "-" not in files else context.stdin.read()

    @property
    def has_input(self) -> bool:
        """Whether there is any standard input."""
        return bool(self.input)

    def given(self) -> str:
        """For `{{prompt}}`."""
        if not self.words:
            raise LlmosError(Code.EINVAL, "the template wants a {{prompt}}", hint="give one as words")
        return self.words

    def stdin(self) -> str:
        """For `{{stdin}}`."""
        if self.input is None:
            raise LlmosError(Code.EINVAL, "the template wants {{stdin}}", hint="pipe a text in")
        return decode(self.input, "standard input").rstrip("\n")

    def files(self, *, with_input: bool = False) -> str:
        """For `{{files}}`: those of the options, and standard input if it is to be one of them."""
        from llmos_shell.shell.attachments import attachment, text_of, wrapped

        def one(path: str) -> str:
            return wrapped(text_of(self.input or b"", "standard input"), "stdin") if path == "-" else attachment(path)

        last = ("-",) if with_input and self._files and self.input and "-" not in self._files else ()
        return "\n".join(one(path) for path in (*self._files, *last))

    def rest(self, named: Collection[str], text: str = "") -> str:
        """Files, then `text` or the words, then standard input, without those that are `named` in the text already."""
        loose = "stdin" not in named and not self._files and self.input
        parts = [
            "" if "files" in named else self.files(with_input="stdin" not in named),
            text,
            "" if "prompt" in named else self.words,
            decode(self.input or b"", "standard input") if loose else "",
        ]
        return "\n".join(part for part in parts if part)


def _from_template(context: Context, path: str, parts: _Parts) -> str:
    from llmos_shell.shell.templates import fill, names_in

    template = read_text_file(path).rstrip("\n")
    named = names_in(template)
    given = {
        "prompt": parts.given,
        "stdin": parts.stdin,
        "files": lambda: parts.files(with_input="stdin" not in named),
    }
    return parts.rest(named, fill(template, path, context.shell.get, given))


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
