"""The keys of the line editor that differ from prompt_toolkit's own, in Emacs and vi mode."""

from __future__ import annotations

import re
from collections.abc import Callable

from prompt_toolkit.application.current import get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, emacs_mode, has_completions, has_focus, is_searching, vi_navigation_mode
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.search import accept_search
from prompt_toolkit.validation import ValidationError

from llmos_shell.shell.interactive.bang import NoSuchEntry, expand_history
from llmos_shell.shell.interactive.editor import bind_editor
from llmos_shell.shell.interactive.history import History
from llmos_shell.shell.interactive.tabbing import press_tab

_WORD = re.compile(r"\s*[^\s/]*(?:/|\s+|\Z)")


def make_keys(check: Callable[[str], str], history: History) -> KeyBindings:
    """The bindings. `check` says of a text whether it is `incomplete`."""
    keys = KeyBindings()
    _bind_enter(keys, check, history)
    _bind_search(keys, check, history)
    _bind_suggestion(keys)
    bind_editor(keys, ".llmsh")
    keys.add("tab", filter=has_focus(DEFAULT_BUFFER) & ~vi_navigation_mode)(press_tab)

    @keys.add("escape", filter=has_completions & emacs_mode, eager=True)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.cancel_completion()

    @keys.add("c-z", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        """There is nothing to stop at a prompt."""

    return keys


def _bind_enter(keys: KeyBindings, check: Callable[[str], str], history: History) -> None:
    @keys.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        _enter(event.current_buffer, check, history)

    @keys.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER) & emacs_mode)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)


def _enter(buffer: Buffer, check: Callable[[str], str], history: History) -> None:
    """Runs a complete program, begins another line of an incomplete one, and shows what `!!` stands for first."""
    if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
        buffer.complete_state = None
        return
    try:
        expanded = expand_history(buffer.text, history.entries)
    except NoSuchEntry as error:
        buffer.validation_error = ValidationError(message=f"{error}: Alt-Enter begins a line, Ctrl-C drops this one")
        return
    if expanded != buffer.text:
        buffer.document = Document(expanded, len(expanded))
    elif check(buffer.text) == "incomplete":
        buffer.newline(copy_margin=False)
    else:
        buffer.validate_and_handle()


def _bind_search(keys: KeyBindings, check: Callable[[str], str], history: History) -> None:
    """In a search Enter runs what was found, and keys that move the cursor take it over for editing."""

    @keys.add("enter", filter=is_searching, eager=True)
    def _(event: KeyPressEvent) -> None:
        accept_search()
        _enter(get_app().current_buffer, check, history)

    @keys.add("left", filter=is_searching)
    @keys.add("right", filter=is_searching)
    @keys.add("home", filter=is_searching)
    @keys.add("end", filter=is_searching)
    @keys.add("c-a", filter=is_searching)
    @keys.add("c-e", filter=is_searching)
    @keys.add("tab", filter=is_searching)
    def _(event: KeyPressEvent) -> None:
        accept_search()


@Condition
def _has_suggestion() -> bool:
    buffer = get_app().current_buffer
    return bool(buffer.suggestion and buffer.suggestion.text) and buffer.document.is_cursor_at_the_end


def _bind_suggestion(keys: KeyBindings) -> None:
    """Besides Right, Ctrl-F and Ctrl-E: End takes the suggestion, Alt-Right and Ctrl-Right its next word."""

    @keys.add("end", filter=_has_suggestion & ~vi_navigation_mode)
    def _(event: KeyPressEvent) -> None:
        suggestion = event.current_buffer.suggestion
        event.current_buffer.insert_text(suggestion.text if suggestion else "")

    @keys.add("escape", "f", filter=_has_suggestion & ~vi_navigation_mode)
    @keys.add("escape", "right", filter=_has_suggestion & ~vi_navigation_mode)
    @keys.add("c-right", filter=_has_suggestion & ~vi_navigation_mode)
    def _(event: KeyPressEvent) -> None:
        suggestion = event.current_buffer.suggestion
        word = _WORD.match(suggestion.text) if suggestion else None
        event.current_buffer.insert_text(word.group() if word else "")
