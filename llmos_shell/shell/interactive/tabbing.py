"""The Tab key: completes at once where candidates come soon, so that what is typed next finds them in the line.

Candidates are gathered by a thread of their own. If they take longer than a moment (a folder on a network), the editor
goes on without them, and shows them when they come, unless the line has changed by then.
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections.abc import Sequence

from prompt_toolkit.buffer import Buffer, CompletionState
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, get_common_complete_suffix
from prompt_toolkit.document import Document
from prompt_toolkit.key_binding import KeyPressEvent

from llmos_shell.shell.command import debug

WAIT_SECONDS = 0.6


class Gathering:
    """Candidates for one document."""

    def __init__(self, completer: Completer, document: Document) -> None:
        self.document = document
        self.completions: list[Completion] = []
        self._completer = completer
        self._done = threading.Event()
        self._late: tuple[AbstractEventLoop, Buffer] | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="completion", daemon=True).start()

    def wait(self) -> bool:
        """Whether they have come, within a moment."""
        return self._done.wait(WAIT_SECONDS)

    def show_later(self, loop: AbstractEventLoop, buffer: Buffer) -> None:
        """Shows them in the buffer when they come."""
        with self._lock:
            self._late = loop, buffer
        if self._done.is_set():
            self._show_late()

    def _run(self) -> None:
        try:
            event = CompleteEvent(completion_requested=True)
            self.completions = list(self._completer.get_completions(self.document, event))
        except Exception:  # no candidate is worth a line
            if debug():
                raise
        finally:
            self._done.set()
            self._show_late()

    def _show_late(self) -> None:
        with self._lock:
            late, self._late = self._late, None
        if late is not None:
            loop, buffer = late
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._show_if_unchanged, buffer)

    def _show_if_unchanged(self, buffer: Buffer) -> None:
        if buffer.document == self.document:
            insert_completions(buffer, self.completions)


def press_tab(event: KeyPressEvent) -> None:
    """Inserts what all candidates have in common and shows them, or goes to the next one of those that are shown."""
    buffer = event.current_buffer
    if buffer.complete_state is not None:
        buffer.complete_next()
        return
    gathering = Gathering(buffer.completer, buffer.document)
    if gathering.wait():
        insert_completions(buffer, gathering.completions)
    else:
        gathering.show_later(event.app.loop or _no_loop(), buffer)


def insert_completions(buffer: Buffer, completions: Sequence[Completion]) -> None:
    """Completes as far as all candidates agree; where they do not, they are shown."""
    document = buffer.document
    found = [each for each in completions if not _does_nothing(document, each)]
    if not found:
        return
    common = get_common_complete_suffix(document, found)
    if common:
        buffer.insert_text(common)
        found = [each.new_completion_from_position(len(common)) for each in found]
    if len(completions) > 1:
        buffer.complete_state = CompletionState(buffer.document, list(found))
        buffer.on_completions_changed.fire()
    elif not common:
        buffer.apply_completion(found[0])


def _does_nothing(document: Document, completion: Completion) -> bool:
    before = document.text_before_cursor
    return before[len(before) + completion.start_position :] == completion.text


def _no_loop() -> AbstractEventLoop:
    raise AssertionError("a key was pressed outside of the event loop")
