"""The interactive shell on a terminal: prompt, history, completion, colours and toolbar, by prompt_toolkit.

Owns the terminal between commands. What a line means is the interpreter's business.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.styles import Style

from llmos_shell import __version__, paths
from llmos_shell.abi.types import ModelStatus, ProcessInfo
from llmos_shell.shell.interactive.completion import complete
from llmos_shell.shell.interactive.highlight import spans
from llmos_shell.shell.interactive.live import Live
from llmos_shell.shell.interactive.proposals import take_proposal
from llmos_shell.shell.interactive.startup import present_folder, prompt_text, run_startup_file
from llmos_shell.shell.interpreter.shell import Shell

_STYLE = Style.from_dict(
    {
        "command": "ansigreen",
        "unknown": "ansired",
        "keyword": "bold ansiblue",
        "operator": "ansimagenta",
        "option": "ansicyan",
        "string": "ansiyellow",
        "variable": "ansimagenta",
        "question": "italic ansicyan",
        "prompt": "bold",
        "prompt.failed": "bold ansired",
        "bottom-toolbar": "noreverse ansibrightblack",
    }
)


def run_repl(options: Mapping[str, bool] | None = None) -> int:
    """The shell until `exit` or Ctrl-D; returns its exit status."""
    shell = Shell(interactive=True, name="llmos", options=options)
    live = Live()
    try:
        live.start()
        print(f"LLMasOS {__version__}. `help` lists the commands; `? how do I …` asks the assistant.", flush=True)
        run_startup_file(shell)
        _loop(shell, live, _make_session(shell, live))
    finally:
        live.close()
    return shell.close()


def _loop(shell: Shell, live: Live, session: PromptSession[str]) -> None:
    while shell.exited is None:
        shell.before_prompt()
        live.resume()
        try:
            text = session.prompt(default=take_proposal())
        except KeyboardInterrupt:
            continue
        except EOFError:
            text = "exit"  # which warns of jobs, once
        finally:
            live.pause()
        if text.strip():
            shell.run_text(text, "")


def list_jobs(shell: Shell) -> list[tuple[str, str]]:
    """Jobs as `%1` and what they run."""
    return [(f"%{job.number}", job.text) for job in shell.jobs()]


def _make_session(shell: Shell, live: Live) -> PromptSession[str]:
    def message() -> StyleAndTextTuples:
        style = "class:prompt.failed" if shell.last_status else "class:prompt"
        return [(style, prompt_text(present_folder(), os.path.expanduser("~")))]

    world = ReplWorld(shell, live)
    session: PromptSession[str] = PromptSession(
        message,
        history=_open_history(),
        completer=ReplCompleter(world),
        complete_in_thread=True,
        complete_while_typing=False,
        lexer=ReplLexer(world.is_known),
        style=_STYLE,
        color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        multiline=True,
        prompt_continuation="> ",
        key_bindings=_keys(shell),
        bottom_toolbar=lambda: f" {live.text}",
        enable_suspend=False,
        enable_open_in_editor=True,
        enable_history_search=False,
    )
    live.on_change = session.app.invalidate
    return session


def _keys(shell: Shell) -> KeyBindings:
    """Enter runs a complete program and begins another line of an incomplete one."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None
        elif shell.complete_input(buffer.text) == "incomplete":
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


class History(FileHistory):
    """The shared history file; leaves out repetitions and lines that begin with a space."""

    _newest = ""

    def store_string(self, string: str) -> None:
        """Appends an entry."""
        if string != self._newest and not string.startswith(" "):
            super().store_string(string)
        self._newest = string


def _open_history() -> History:
    """The history, private to the user; kept in memory only where its folder cannot be written."""
    path = paths.history_path()
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    except OSError as error:
        print(f"llmos: {path}: {(error.strerror or str(error)).lower()}: history is not kept", file=sys.stderr)
        path = os.devnull
    return History(path)


class ReplWorld:
    """What completion and colours ask of this shell and of the live system."""

    def __init__(self, shell: Shell, live: Live) -> None:
        self._shell = shell
        self._live = live
        self._programs: tuple[str, tuple[str, ...]] | None = None

    def command_names(self) -> Sequence[str]:
        """Words that can be run: functions, aliases, built-ins."""
        return self._shell.command_names()

    def programs(self) -> Sequence[str]:
        """The host's programs on the present PATH, sorted."""
        path = self._shell.get("PATH") or os.environ.get("PATH", "")
        if self._programs is None or self._programs[0] != path:
            self._programs = (path, tuple(sorted(_executables(path))))
        return self._programs[1]

    def variable_names(self) -> Sequence[str]:
        """Variables that are set."""
        return self._shell.variable_names()

    def jobs(self) -> Sequence[tuple[str, str]]:
        """Jobs as `%1` and what they run."""
        return list_jobs(self._shell)

    def processes(self) -> Sequence[ProcessInfo]:
        """Live processes."""
        return self._live.processes()

    def models(self) -> Sequence[ModelStatus]:
        """All models."""
        return self._live.models()

    def is_known(self, word: str) -> bool:
        """Whether a word names something that can be run."""
        if "/" in word:
            return os.access(os.path.expanduser(word), os.X_OK)
        return word in self.command_names() or word in self.programs()


def _executables(path: str) -> set[str]:
    found: set[str] = set()
    for folder in path.split(os.pathsep):
        try:
            with os.scandir(folder or ".") as entries:
                found.update(entry.name for entry in entries if os.access(entry.path, os.X_OK))
        except OSError:
            continue
    return found


class ReplCompleter(Completer):
    """`completion.complete` for prompt_toolkit."""

    def __init__(self, world: ReplWorld) -> None:
        self._world = world

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Candidates for the word before the cursor."""
        for candidate in complete(document.text_before_cursor, self._world):
            yield Completion(candidate.text, -candidate.typed, display=candidate.display, display_meta=candidate.about)


class ReplLexer(Lexer):
    """`highlight.spans` for prompt_toolkit."""

    def __init__(self, is_known: Callable[[str], bool]) -> None:
        self._is_known = is_known

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Coloured fragments by line."""
        lines = _fragments(document.text, spans(document.text, self._is_known))
        return lambda number: lines[number] if number < len(lines) else []


def _fragments(text: str, coloured: Sequence[tuple[int, int, str]]) -> list[StyleAndTextTuples]:
    """The text's lines as fragments; where spans overlap the later one wins."""
    styles = [""] * len(text)
    for start, end, kind in coloured:
        styles[start:end] = [f"class:{kind}"] * (min(end, len(text)) - start)
    lines: list[StyleAndTextTuples] = [[]]
    for char, style in zip(text, styles, strict=True):
        if char == "\n":
            lines.append([])
        elif lines[-1] and lines[-1][-1][0] == style:
            lines[-1][-1] = (style, lines[-1][-1][1] + char)
        else:
            lines[-1].append((style, char))
    return lines
