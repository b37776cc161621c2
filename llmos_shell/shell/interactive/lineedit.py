"""Reading one message at a time from a terminal: with prompt_toolkit, or plainly where the terminal is dumb.

Reading can be broken off from another thread, when there is something to show first; what was typed is kept.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from llmos_shell.shell.messages import is_open

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings

    from llmos_shell.shell.command import Context

_PROMPT = "> "
_CONTINUED = "  "
_RETRY_SECONDS = 0.2
"""How soon another attempt is made to break off a prompt whose user is in an editor."""


class BrokenOff(Exception):
    """`wake` was called; `typed` is what stood at the prompt."""

    def __init__(self, typed: str) -> None:
        super().__init__(typed)
        self.typed = typed


class Reader(Protocol):
    """Reads messages."""

    def read(self, typed: str, stirred: Callable[[], bool]) -> str:
        """One message, with `typed` at the prompt already. Raises EOFError, KeyboardInterrupt and `BrokenOff`.

        `stirred` tells whether `wake` was called before it had somebody to wake.
        """

    def wake(self) -> None:
        """Has a `read` that goes on in another thread raise `BrokenOff`."""

    def close(self) -> None:
        """Gives back what it holds."""


def make_reader(context: Context) -> Reader:
    """The best reader for this terminal."""
    if os.environ.get("TERM", "") in ("", "dumb"):
        return PlainReader(context)
    return EditingReader()


class EditingReader:
    """prompt_toolkit: Enter sends, unless a block is open; Alt-Enter begins another line; Ctrl-X Ctrl-E edits."""

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import InMemoryHistory

        from llmos_shell.shell.slash_names import SLASH_COMMANDS

        self._session: PromptSession[str] = PromptSession(
            _PROMPT,
            history=InMemoryHistory(),
            key_bindings=_keys(),
            completer=WordCompleter(list(SLASH_COMMANDS), sentence=True),
            complete_while_typing=False,
            enable_suspend=False,
            multiline=True,
            prompt_continuation=_CONTINUED,
        )

    def read(self, typed: str, stirred: Callable[[], bool]) -> str:
        """One message."""

        def begun() -> None:
            if stirred():
                self.wake()

        self._session.app.erase_when_done = False
        return self._session.prompt(default=typed, pre_run=begun)

    def wake(self) -> None:
        """Breaks off from another thread."""
        loop = self._session.app.loop
        if loop is not None:
            loop.call_soon_threadsafe(self._break_off)

    def close(self) -> None:
        """Nothing is held."""

    def _break_off(self) -> None:
        app = self._session.app
        if app._running_in_terminal and app.loop is not None:
            app.loop.call_later(_RETRY_SECONDS, self._break_off)
        elif app.is_running and not app.is_done:
            app.erase_when_done = True
            app.exit(exception=BrokenOff(self._session.default_buffer.text))


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from llmos_shell.shell.interactive.editor import bind_editor

    keys = KeyBindings()
    bind_editor(keys, ".md")

    @keys.add("c-z")
    def _(event: KeyPressEvent) -> None:
        """Would be typed otherwise."""

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None
        elif is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


class PlainReader:
    """Lines as the terminal itself edits them; lines of an open block are put together."""

    def __init__(self, context: Context) -> None:
        self._out = context.out
        self._fd = context.stdin.fileno()
        self._woken, self._wake = os.pipe()
        self._block = ""

    def read(self, typed: str, stirred: Callable[[], bool]) -> str:
        """One message. Whoever wakes it leaves a mark that it finds later as well."""
        while True:
            self._out.write(_CONTINUED if self._block else _PROMPT)
            self._out.flush()
            line = self._line()
            self._block += line
            if not is_open(self._block.rstrip("\n")):
                break
        text, self._block = self._block, ""
        return text

    def wake(self) -> None:
        """Breaks off from another thread."""
        os.write(self._wake, b"!")

    def close(self) -> None:
        """Closes the pipe that wakes it."""
        os.close(self._woken)
        os.close(self._wake)

    def _line(self) -> str:
        """A line; the terminal hands over one at a time."""
        try:
            ready, _, _ = select.select([self._fd, self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 1 << 16)
                self._out.write("\n")
                raise BrokenOff("")
            data = os.read(self._fd, 1 << 16)
        except KeyboardInterrupt:
            self._block = ""
            self._out.write("\n")
            raise
        if not data:
            raise EOFError
        return data.decode(errors="replace")
