"""Reading one message at a time from a terminal: with prompt_toolkit, or plainly where the terminal is dumb."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context

_PROMPT = "> "


def make_reader(context: Context) -> Callable[[], str]:
    """A function that reads one message. It raises EOFError at the end of input, KeyboardInterrupt on Ctrl-C."""
    if os.environ.get("TERM", "") in ("", "dumb"):
        return lambda: _read_plainly(context)
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from llmos_shell.shell.interactive.editor import bind_editor
    from llmos_shell.shell.slash import NAMES

    keys = KeyBindings()
    bind_editor(keys, ".md")

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        _PROMPT,
        history=InMemoryHistory(),
        key_bindings=keys,
        completer=WordCompleter(list(NAMES), sentence=True),
        complete_while_typing=False,
        enable_suspend=False,
    )
    return session.prompt


def _read_plainly(context: Context) -> str:
    context.out.write(_PROMPT)
    context.out.flush()
    line = context.stdin.readline()
    if not line:
        raise EOFError
    return line.decode(errors="replace")
