"""What a conversation keeps when a summary takes the place of its beginning. Pure; `summarising` has it made.

The beginning that stays is the system prompt. Of the turns after it the last ones stay word for word, with the summary
before the first of them; a text that is completed as it stands keeps its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmos_shell.abi.types import Message, Turn

RESERVE_SHARE = 4
"""The context by this is left free for the instruction and the summary."""

SUMMARY_SHARE = 6
"""The context by this is the longest summary, in tokens."""

TAIL_SHARE = 8
"""The context by this is the least that must be left of an answer, or a text, behind its new beginning."""

FILL = 0.75
"""Of the context without the reserve, so much is used when a summary has taken its place."""

EXCHANGES = 2
"""The most questions, with their answers, that stay word for word."""

INSTRUCTION = "Summarise our conversation so far in a few sentences. Keep names, numbers, decisions and open questions."
INSTRUCTION_RAW = "\n\nIn short, what was written so far:"
PREFACE = "(Our conversation so far, in short: {summary})\n\n{text}"
PREFACE_RAW = "In short, what was written so far: {summary}\n\n"


def reserve(context: int) -> int:
    """Tokens of a context that a process does not use, which has it summarised when it is full."""
    return context // RESERVE_SHARE


def longest_summary(context: int) -> int:
    """In tokens."""
    return max(1, context // SUMMARY_SHARE)


def room(context: int) -> int:
    """Tokens that may be in a context after its beginning was summarised."""
    return int((context - reserve(context)) * FILL)


def beginnings(turns: Sequence[Turn], since: int) -> list[int]:
    """Indices of questions that may be the first turn that stays, those that keep most first.

    None of those that would leave nothing to sum up, or that a summary of what is before `since` covers already.
    """
    return [index for index in _asked(turns) if index > max(since, _systems(turns))][-EXCHANGES - 1 :]


def last_question(turns: Sequence[Turn]) -> int | None:
    """The index of the turn that is being answered."""
    return max(_asked(turns), default=None)


def view(turns: Sequence[Turn], summary: str, first: int) -> tuple[Message, ...]:
    """The messages of a conversation of which a summary, if any, covers all between the system prompt and a question.

    That is turn `first`, or its answer so far too.
    """
    messages = [Message(turn.role, turn.text) for turn in turns]
    if not summary:
        return tuple(messages)
    told = Message(messages[first].role, PREFACE.format(summary=summary, text=messages[first].content))
    return (*messages[: _systems(turns)], told, *messages[first + 1 :])


def only_of_an_answer(turns: Sequence[Turn], first: int) -> bool:
    """Whether a summary before turn `first`, the question that is answered, covers nothing but the answer so far."""
    return first <= _systems(turns) and first == last_question(turns)


def moved(before: Sequence[Turn], after: Sequence[Turn], first: int) -> int | None:
    """Where turn `first` is when turns become others; None if a summary before it would no longer be of them.

    It may be of the answer to that turn too.
    """
    old, new = before[_systems(before) :], after[_systems(after) :]
    covered = first - _systems(before) + 2
    same = len(new) >= covered and new[:covered] == old[:covered]
    return first - _systems(before) + _systems(after) if same else None


def viewed(turns: Sequence[Turn], count: int, summary: str, first: int) -> int:
    """How many messages of the view the first `count` turns are: none, or such as go beyond `first`."""
    return count - first + _systems(turns) if count and summary else count


def _asked(turns: Sequence[Turn]) -> list[int]:
    return [index for index, turn in enumerate(turns) if turn.role == "user"]


def _systems(turns: Sequence[Turn]) -> int:
    return int(bool(turns) and turns[0].role == "system")
