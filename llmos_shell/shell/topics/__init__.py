"""Pages on topics rather than commands: `help TOPIC`. Their texts are the Markdown files of this folder.

The first line of a file is `# NAME: summary`. A line `<!-- table: NAME -->` stands for a table made from the code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from msgspec import Struct

from llmos_shell.abi.types import EXIT_CODES, Reason, Signal
from llmos_shell.shell.arguments import SIGNAL_NUMBERS
from llmos_shell.shell.document import Block, Heading, parse_markdown, to_text
from llmos_shell.shell.manpage import page_width
from llmos_shell.shell.tables import Style

NAMES = (
    "language",
    "expansion",
    "redirection",
    "scripts",
    "jobs",
    "signals",
    "exit-statuses",
    "models",
    "models-in-the-shell",
    "memory",
    "scheduling",
    "configuration",
    "keys",
    "prompt",
)
"""All topics, in the order of `help`."""

_FOLDER = os.path.dirname(__file__)
_MARK = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)


class Topic(Struct, frozen=True):
    """A page; `text` is Markdown without the title."""

    name: str
    summary: str
    text: str


def load(name: str) -> Topic:
    """Reads one of `NAMES`."""
    with open(os.path.join(_FOLDER, f"{name}.md"), encoding="utf-8") as file:
        title, _, text = file.read().partition("\n")
    _, _, summary = title.partition(": ")
    return Topic(name, summary, _MARK.sub(lambda match: _TABLES[match.group(1)](), text).strip("\n"))


def topic_blocks(topic: Topic) -> list[Block]:
    """The page, its title first."""
    return [Heading(f"{topic.name}: {topic.summary}", 1), *parse_markdown(topic.text)]


def topic_page(topic: Topic, style: Style) -> str:
    """The page as text."""
    return to_text(topic_blocks(topic), page_width(style), style)


def _table(header: str, rows: list[tuple[str, ...]]) -> str:
    head = [f"| {header} |", "|" + "---|" * (header.count("|") + 1)]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)])


_EFFECTS = {
    Signal.HUP: "ends it because its terminal or session has gone",
    Signal.INT: "what Ctrl-C sends: a generation ends and keeps its text, a conversation ends only its turn",
    Signal.KILL: "ends it at once, whatever it does",
    Signal.TERM: "lets it finish its step, then ends it; what `kill` sends",
    Signal.CONT: "lets a stopped process go on",
    Signal.STOP: "pauses it; what Ctrl-Z sends to the job in the foreground",
}


def _signals() -> str:
    rows: list[tuple[str, ...]] = [(str(number), signal, _EFFECTS[signal]) for number, signal in SIGNAL_NUMBERS.items()]
    return _table("number | signal | effect on a model process", rows)


_REASONS = {
    Reason.EOS: "the model ended its text or its turn",
    Reason.STOP: "a text given with `--stop` came up",
    Reason.LENGTH: "the number of tokens asked for with `-n` was reached",
    Reason.CONTEXT: "the context is full",
    Reason.END: "the conversation was ended by its user",
    Reason.LIMIT: "a limit of `ulimit`, `--time-limit` or `--context-limit` was reached",
    Reason.HUP: "its session ended",
    Reason.INTERRUPT: "it was interrupted (Ctrl-C)",
    Reason.KILL: "it was killed",
    Reason.OOM: "it did not fit into memory",
    Reason.TERM: "it was asked to end",
    Reason.ERROR: "the worker, the kernel or the input failed",
}


def _reasons() -> str:
    return _table(
        "status | reason | meaning", [(str(EXIT_CODES[reason]), reason, _REASONS[reason]) for reason in Reason]
    )


_TABLES: dict[str, Callable[[], str]] = {"signals": _signals, "reasons": _reasons}
