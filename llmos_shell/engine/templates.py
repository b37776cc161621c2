"""Conversations to text to tokens: chat templates as model files carry them, and a plain form for models without one.

The plain form, for base models, ends where the model shall go on, without a space:

    {system text}

    User: {text}
    Assistant: {text}
    User: {text}
    Assistant:

`PLAIN_STOP` are the stop strings that keep such a model from speaking for the user (`ModelInfo.chat_stop`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from json import dumps
from typing import TYPE_CHECKING, Any, NoReturn

from llmos_shell.abi.engine import Engine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Message
from llmos_shell.abi.worker import Tokenize, Tokens

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

PLAIN_STOP = ("\nUser:", "\nSystem:")
_PLAIN_NAMES = {"user": "User", "assistant": "Assistant"}


class ChatTemplate:
    """A compiled chat template. Raises EINVAL at once when it is not a template."""

    def __init__(self, source: str, bos: str = "", eos: str = "", strip_bos: bool = False) -> None:
        """`strip_bos`: the tokeniser adds BOS itself, so one at the beginning of the text is left out."""
        from jinja2 import TemplateError

        self._constants = {"bos_token": bos, "eos_token": eos}
        self._leave_out = bos if strip_bos else ""
        try:
            self._template = _environment().from_string(source)
        except TemplateError as error:
            raise LlmosError(Code.EINVAL, f"the model's chat template is broken: {error}") from error

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """The conversation as text. Raises EINVAL when the template refuses the messages."""
        plain = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._template.render(messages=plain, add_generation_prompt=generate, **self._constants)
        except Exception as error:
            raise LlmosError(Code.EINVAL, f"the model's chat template refuses this conversation: {error}") from error
        return text.removeprefix(self._leave_out) if self._leave_out else text


def render_plain(messages: Sequence[Message], generate: bool) -> str:
    """The conversation in the plain form. Raises EINVAL for an unknown role."""
    parts: list[str] = []
    for index, message in enumerate(messages):
        name = _PLAIN_NAMES.get(message.role)
        if message.role == "system":
            parts.append(f"{message.content}\n\n")
        elif name is None:
            raise LlmosError(Code.EINVAL, f"unknown role `{message.role}`")
        else:
            last = index == len(messages) - 1 and not generate
            parts.append(f"{name}: {message.content.strip()}{'' if last else chr(10)}")
    if generate:
        parts.append("Assistant:")
    return "".join(parts)


def answer(engine: Engine, request: Tokenize) -> Tokens:
    """The answer to a request; what is wrong with it is an answer too."""
    try:
        tokens, whole = tokens_for(engine, request)
    except Exception as error:
        return Tokens(request.id, (), error=str(error) or type(error).__name__)
    return Tokens(request.id, tuple(tokens), whole)


def tokens_for(engine: Engine, request: Tokenize) -> tuple[list[int], bool]:
    """Answers `Tokenize`: the tokens, and whether they stand for the whole conversation though a part was known."""
    if request.text is not None:
        return engine.tokenize(request.text, request.special), False
    if not request.messages:
        raise LlmosError(Code.EINVAL, "there is neither text nor a message")
    if not 0 <= request.known <= len(request.messages):
        raise LlmosError(Code.EINVAL, f"{request.known} of {len(request.messages)} messages cannot be known")
    whole = engine.render(request.messages, True)
    if request.known:
        rest = _unknown_rest(engine, whole, request.messages, request.known)
        if rest is not None:
            return rest, False
    return engine.tokenize(whole, request.special), request.known > 0


def _unknown_rest(engine: Engine, whole: str, messages: tuple[Message, ...], known: int) -> list[int] | None:
    """Tokens of what follows the known messages, if `whole` begins with them as they are in the context."""
    answer = messages[known - 1]
    if answer.role != "assistant":
        return None
    try:
        before = engine.render(messages[: known - 1], True)
    except LlmosError:
        return None
    for content in dict.fromkeys((answer.content, answer.content.strip(), " " + answer.content.strip())):
        if whole.startswith(before + content):
            return _continuation(engine, whole[len(before) + len(content) :], (before + content)[-1:])
    return None


def _continuation(engine: Engine, text: str, previous: str) -> list[int]:
    """Tokens of `text` in the middle of a context: without BOS, and without the space some tokenisers put in front.

    Both come only at the beginning of a text, so the character before (or a full stop) is put there and cut off again.
    """
    for anchor in (previous, "."):
        head = engine.tokenize(anchor, True)
        tokens = engine.tokenize(anchor + text, True)
        if anchor and tokens[: len(head)] == head:
            return tokens[len(head) :]
    return engine.tokenize(text, False)


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    return dumps(value, ensure_ascii=False, indent=indent)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    """The environment that templates of model files expect (that of transformers), sandboxed: they are foreign code."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise, strftime_now=_strftime_now)
    return environment
