"""The interactive shell on a terminal: reads lines with the editor and runs them, until `exit`.

Owns the terminal between commands. What a line means is the interpreter's business.
"""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from llmos_shell import __version__
from llmos_shell.shell.interactive.editing import Editor
from llmos_shell.shell.interactive.history import History, open_history
from llmos_shell.shell.interactive.live import Live
from llmos_shell.shell.interactive.proposals import take_proposal
from llmos_shell.shell.interactive.startup import Prompter
from llmos_shell.shell.interactive.world import ReplWorld
from llmos_shell.shell.interpreter.shell import Shell


def run_repl(options: Mapping[str, bool] | None = None) -> int:
    """The shell until `exit` or Ctrl-D; returns its exit status."""
    shell = Shell(interactive=True, name="llmos", options=options)
    live = Live()
    try:
        live.start()
        print(f"LLMasOS {__version__}. `help` lists the commands; `? how do I …` asks the assistant.", flush=True)
        history = open_history(shell.get("HISTSIZE"))
        prompter = Prompter(shell, history, live)
        prompter.run_startup_file()
        _complain_of_history(history)
        _loop(shell, live, history, prompter)
    finally:
        live.close()
    return shell.close()


def _loop(shell: Shell, live: Live, history: History, prompter: Prompter) -> None:
    world = ReplWorld(shell, live)
    editor = Editor(shell, world, history, prompter.toolbar)
    live.on_change = editor.redraw
    while shell.exited is None:
        shell.before_prompt()
        prompter.run_prompt_command()
        if shell.exited is not None:
            return
        world.new_prompt()
        live.resume()
        try:
            with _without_echo():
                text = editor.read(prompter.look(), take_proposal())
        except KeyboardInterrupt:
            shell.last_status = 130
            continue
        except EOFError:
            text = "exit"  # which warns of jobs, once
        finally:
            live.pause()
        if text.strip():
            shell.run_text(text, "")


@contextmanager
def _without_echo() -> Iterator[None]:
    """What is typed before the editor is ready is not shown twice, nor in the wrong place."""
    try:
        modes = termios.tcgetattr(0)
        silent = modes.copy()
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, silent)
    except termios.error:
        yield
        return
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, modes)


def _complain_of_history(history: History) -> None:
    """Says where the history cannot be kept, and so is in memory only."""
    if history.problem:
        print(f"llmos: {history.path}: {history.problem}: history is not kept", file=sys.stderr)
