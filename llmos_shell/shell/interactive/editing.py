"""The line editor: prompt_toolkit, given our history, completion, suggestions, colours, keys and prompts.

Owns one `PromptSession`; what the session shows is brought up to date by `Editor.read` before every line.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.auto_suggest import AutoSuggest, Suggestion
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.cursor_shapes import CursorShape, ModalCursorShapeConfig
from prompt_toolkit.document import Document
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples, to_formatted_text
from prompt_toolkit.history import History as BaseHistory
from prompt_toolkit.layout.processors import HighlightMatchingBracketProcessor
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.output import Output
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.styles import Style

from llmos_shell.shell.command import debug
from llmos_shell.shell.interactive.highlight import Span, spans
from llmos_shell.shell.interactive.history import History
from llmos_shell.shell.interactive.keys import make_keys
from llmos_shell.shell.interactive.prompt import is_coloured, mark_titles
from llmos_shell.shell.interactive.themes import style_rules
from llmos_shell.shell.interactive.world import ReplWorld

if TYPE_CHECKING:
    from llmos_shell.shell.interactive.startup import Look
    from llmos_shell.shell.interpreter.shell import Shell

ESCAPE_SECONDS = 0.1
"""How long the Escape key waits whether it begins a sequence."""

MENU_LINES = 6


class Editor:
    """Reads lines."""

    def __init__(self, shell: Shell, world: ReplWorld, history: History, toolbar: Callable[[], str]) -> None:
        self._history = history
        self._toolbar = toolbar
        self._look: Look | None = None
        self._session = self._make_session(shell, world)
        self._world = world
        self._session.default_buffer.on_text_changed += self._prepare_completion
        self.redraw = self._session.app.invalidate
        world.paths.on_news = self.redraw

    def _make_session(self, shell: Shell, world: ReplWorld) -> PromptSession[str]:
        session: PromptSession[str] = PromptSession(
            history=SharedHistory(self._history),
            auto_suggest=SuggestFromHistory(self._history),
            completer=ReplCompleter(world),
            complete_while_typing=False,
            validate_while_typing=False,
            lexer=ReplLexer(world),
            input_processors=[HighlightMatchingBracketProcessor("[](){}", max_cursor_distance=2000)],
            multiline=True,
            prompt_continuation=self._continuation,
            key_bindings=make_keys(shell.complete_input, self._history),
            cursor=ModalCursorShapeConfig(),
            enable_suspend=False,
            enable_history_search=True,
            search_ignore_case=True,
            reserve_space_for_menu=MENU_LINES,
        )
        session.app.ttimeoutlen = ESCAPE_SECONDS
        session.app.before_render += self._fit
        return session

    def _fit(self, app: Application[str]) -> None:
        """A low window has no room for a whole menu, and a very low one none for the toolbar."""
        rows = app.output.get_size().rows
        self._session.reserve_space_for_menu = max(0, min(MENU_LINES, rows - 4))
        wanted = self._look is not None and self._look.toolbar and rows > 2
        self._session.bottom_toolbar = self._toolbar_text if wanted else None

    def _prepare_completion(self, buffer: Buffer) -> None:
        """At the first key, so that the first Tab need not wait until all commands are imported."""
        buffer.on_text_changed -= self._prepare_completion
        threading.Thread(target=self._world.builtins, name="import commands", daemon=True).start()

    def read(self, look: Look, text: str = "") -> str:
        """One program, typed by the user; `text` is what the line holds to begin with.

        Raises EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C.
        """
        self._history.refresh()
        session, before = self._session, self._look
        self._look = look
        if before is None or before.theme != look.theme:
            session.style = Style.from_dict(style_rules(look.theme))
        session.editing_mode = EditingMode.VI if look.vi else EditingMode.EMACS
        session.cursor = ModalCursorShapeConfig() if look.vi else CursorShape._NEVER_CHANGE
        session.color_depth = None if look.colours else ColorDepth.DEPTH_1_BIT
        session.rprompt = _fragments_of(look.right, "class:rprompt") if look.right else None
        style = "class:prompt.failed" if look.failed else "class:prompt"
        _begin_line(session.output)
        return session.prompt(_fragments_of(look.prompt, style), default=text)

    def _continuation(self, width: int, line: int, wraps: int) -> StyleAndTextTuples:
        """PS2 before each further line; nothing before the rest of a long one."""
        if wraps or self._look is None:
            return []
        return _fragments_of(self._look.continuation, "class:continuation")

    def _toolbar_text(self) -> StyleAndTextTuples:
        return _fragments_of(self._toolbar(), "")


def _begin_line(output: Output) -> None:
    """Goes to the beginning of a line: the present one if the cursor is there, else the next one, after a mark.

    The mark and as many spaces as fit a line end in the same line only when they began in its first column.
    """
    mark = "⏎" if output.encoding().lower().replace("-", "") == "utf8" else "%"
    output.write(mark + " " * (output.get_size().columns - 1) + "\r")
    output.erase_end_of_line()
    output.flush()


def _fragments_of(text: str, style: str) -> StyleAndTextTuples:
    """A prompt's text; it gets the style unless it brings colours of its own."""
    return to_formatted_text(ANSI(mark_titles(text)), "" if is_coloured(text) else style)


class SharedHistory(BaseHistory):
    """`history.History` for prompt_toolkit: without repetitions, newest first."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history

    async def load(self) -> AsyncGenerator[str, None]:
        """All entries, at the beginning of each line."""
        for entry in self._history.newest_first():
            yield entry

    def get_strings(self) -> list[str]:
        """All entries, oldest first."""
        return list(self._history.newest_first())[::-1]

    def append_string(self, string: str) -> None:
        """Adds what was entered, for other sessions at once."""
        self._history.append(string)

    def load_history_strings(self) -> Iterable[str]:
        """All entries."""
        return self._history.newest_first()

    def store_string(self, string: str) -> None:
        """The same as `append_string`."""
        self._history.append(string)


class SuggestFromHistory(AutoSuggest):
    """The rest of the newest entry that begins with what is typed."""

    def __init__(self, history: History) -> None:
        self._history = history

    def get_suggestion(self, buffer: Buffer, document: Document) -> Suggestion | None:
        """What would complete it, on the present line."""
        text = document.text
        if not text.strip():
            return None
        for entry in self._history.newest_first():
            if entry.startswith(text) and len(entry) > len(text) and "\n" not in entry[len(text) :]:
                return Suggestion(entry[len(text) :])
        return None


class ReplCompleter(Completer):
    """`completion.complete` for prompt_toolkit."""

    def __init__(self, world: ReplWorld) -> None:
        self._world = world

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Candidates for the word before the cursor; a space follows what ends it, unless one is there."""
        from llmos_shell.shell.interactive.completion import complete

        following = document.text_after_cursor[:1]
        for candidate in complete(document.text_before_cursor, self._world):
            space = " " if candidate.final and (not following or following == "\n") else ""
            yield Completion(
                candidate.text + space, -candidate.typed, display=candidate.display, display_meta=candidate.about
            )


class ReplLexer(Lexer):
    """`highlight.spans` for prompt_toolkit."""

    def __init__(self, world: ReplWorld) -> None:
        self._world = world

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Coloured fragments by line."""
        lines = _fragments(document.text, self._spans(document.text))
        return lambda number: lines[number] if number < len(lines) else []

    def _spans(self, text: str) -> list[Span]:
        """What to colour; nothing when that fails, because no colour is worth a line."""
        try:
            return spans(text, self._world)
        except Exception:
            if debug():
                raise
            return []

    def invalidation_hash(self) -> int:
        """Changes when the same text may have other colours."""
        return self._world.paths.generation


def _fragments(text: str, coloured: Sequence[Span]) -> list[StyleAndTextTuples]:
    """The text's lines as fragments; where spans overlap the later one wins."""
    styles = [""] * len(text)
    for start, end, kind in coloured:
        styles[start:end] = [f"class:{kind}"] * (min(end, len(text)) - start)
    lines: list[StyleAndTextTuples] = [[]]
    begin = 0
    for at in range(len(text) + 1):
        if at < len(text) and text[at] != "\n" and (at == begin or styles[at] == styles[begin]):
            continue
        if at > begin:
            lines[-1].append((styles[begin], text[begin:at]))
        begin = at
        if at < len(text) and text[at] == "\n":
            lines.append([])
            begin = at + 1
    return lines
