"""Transcripts as text, for `log`, `attach` and `/save`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos_shell.abi.types import Reason
from llmos_shell.shell.tables import Style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmos_shell.abi.types import Turn

GENERATED = ("assistant", "completion")
"""Roles of turns whose text is the process's output."""

PLAIN = Style()

_LABELS = {"system": "system", "user": "you", "assistant": "model"}
_COLOURS = {"system": "dim", "user": "cyan", "assistant": "green"}


def render_transcript(turns: Sequence[Turn], style: Style = PLAIN, clean: Callable[[str], str] = str) -> str:
    """Raw text as it is; messages with who said them, a blank line between. `clean` is `Context.clean` or like it."""
    text = ""
    for turn in turns:
        label = _LABELS.get(turn.role)
        if label is None:
            text += clean(turn.text)
            continue
        if text:
            text = text.rstrip("\n") + "\n\n"
        text += style.paint(f"{label}: ", _COLOURS[turn.role]) + clean(turn.text)
        if turn.reason is Reason.INTERRUPT:
            text += style.paint(" [interrupted]", "dim")
    return text
