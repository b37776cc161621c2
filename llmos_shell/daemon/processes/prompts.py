"""From turns to tokens: asks the worker to tokenize, and keeps the questions until they are answered.

Also fences: the worker answers them in order, so an answer means that it has heard, and said, everything before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import structs

from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Reason
from llmos_shell.daemon.processes.process import Process
from llmos_shell.daemon.processes.summary import viewed

if TYPE_CHECKING:
    from llmos_shell.daemon.models.conductor import Conductor

ATTEMPTS = 2
"""How many workers may die over one question."""


class _Question:
    __slots__ = ("answer", "attempts", "message")

    def __init__(self, message: abi.Tokenize, answer: asyncio.Future[abi.Tokens]) -> None:
        self.message = message
        self.answer = answer
        self.attempts = 1


class Tokenizer:
    """Questions to one model's worker."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._questions: dict[int, _Question] = {}
        self._fences: dict[int, Callable[[], None]] = {}
        self._next = 0
        self._gone: LlmosError | None = None  # why nobody will answer any more

    @property
    def pending(self) -> bool:
        """Whether a question is not answered yet."""
        return bool(self._questions or self._fences)

    async def ask(self, question: abi.Tokenize) -> abi.Tokens:
        """The tokens of a text or a conversation. Raises EINVAL when the template refuses it.

        Raises what `fail` was told when the model has gone.
        """
        if self._gone is not None:
            raise self._gone
        answer: asyncio.Future[abi.Tokens] = asyncio.get_running_loop().create_future()
        question = structs.replace(question, id=self._number())
        self._conductor.send(question)
        self._questions[question.id] = _Question(question, answer)
        tokens = await answer
        if tokens.error:
            raise LlmosError(Code.EINVAL, tokens.error)
        return tokens

    def fence(self, then: Callable[[], None]) -> None:
        """Calls `then` when the worker has dealt with all that was sent before; also when it died meanwhile."""
        number = self._number()
        self._conductor.send(abi.Fence(number))
        self._fences[number] = then

    async def settled(self) -> None:
        """Waits until the worker has dealt with all that was sent before, or died."""
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fence(lambda: None if heard.done() else heard.set_result(None))
        await heard

    async def for_process(self, process: Process) -> tuple[int, tuple[int, ...]]:
        """(tokens of its context to keep, tokens to append) so that its turns up to the last are in the context."""
        known = process.known if process.tokens and not _ended_by_stop_string(process) else 0
        if process.raw:
            text = "".join(turn.text for turn in process.turns[known:])
            tokens = await self.ask(abi.Tokenize(0, text=text, special=not known))
            keep = len(process.tokens) if known else common(process.tokens, tokens.tokens)
            return keep, tokens.tokens if known else tokens.tokens[keep:]
        known = viewed(process.turns, known, process.summary, process.summarised)
        answer = await self.ask(abi.Tokenize(0, messages=process.messages(), known=known))
        if known and not answer.whole:
            return len(process.tokens), answer.tokens
        keep = common(process.tokens, answer.tokens)
        return keep, answer.tokens[keep:]

    def answered(self, message: abi.Tokens) -> None:
        """The worker answers."""
        question = self._questions.pop(message.id, None)
        if question is not None and not question.answer.done():
            question.answer.set_result(message)

    def passed(self, message: abi.Fenced) -> None:
        """The worker has come to a fence."""
        then = self._fences.pop(message.id, None)
        if then is not None:
            then()

    def resend(self) -> None:
        """Asks another worker; a question over which several died is given up."""
        self._open_fences()
        for number, question in list(self._questions.items()):
            question.attempts += 1
            if question.attempts > ATTEMPTS:
                del self._questions[number]
                self._refuse(question, LlmosError(Code.EIO, "the worker crashed while reading this text"))
            else:
                self._conductor.send(question.message)

    def fail(self, error: LlmosError) -> None:
        """There is no worker any more, nor will there be."""
        self._gone = error
        questions, self._questions = self._questions, {}
        for question in questions.values():
            self._refuse(question, error)
        self._open_fences()

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _open_fences(self) -> None:
        fences, self._fences = self._fences, {}
        for then in fences.values():
            then()

    @staticmethod
    def _refuse(question: _Question, error: LlmosError) -> None:
        if not question.answer.done():
            question.answer.set_exception(error)


def _ended_by_stop_string(process: Process) -> bool:
    """Whether its last answer's tokens hold a stop string that is not part of the conversation."""
    answers = [turn for turn in process.turns[: process.known] if turn.reason is not None]
    return bool(answers) and answers[-1].reason is Reason.STOP


def common(left: list[int], right: tuple[int, ...]) -> int:
    """Leading tokens that are equal, leaving at least one of `right`."""
    most = min(len(left), len(right) - 1)
    if tuple(left[:most]) == right[:most]:
        return max(0, most)
    return next(index for index in range(most) if left[index] != right[index])
