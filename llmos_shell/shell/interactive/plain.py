"""The interactive shell on a terminal that can do nothing but lines (`TERM=dumb`), and where there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from io import TextIOWrapper

from llmos_shell.shell.interactive.history import open_history
from llmos_shell.shell.interactive.prompt import without_sequences
from llmos_shell.shell.interactive.proposals import take_proposal
from llmos_shell.shell.interactive.startup import Look, Prompter
from llmos_shell.shell.interpreter.shell import Shell


def run_plain(options: Mapping[str, bool] | None = None) -> int:
    """Reads lines until the end of input or `exit`; returns the exit status."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    shell = Shell(interactive=True, name="llmos", options=options)
    history = open_history(shell.get("HISTSIZE"))
    prompter = Prompter(shell, history)
    prompter.run_startup_file()
    while shell.exited is None:
        shell.before_prompt()
        prompter.run_prompt_command()
        if shell.exited is not None:
            break
        _show_proposal()
        try:
            text = _read_program(shell, prompter.look())
        except KeyboardInterrupt:
            shell.last_status = 130
            shell.say("")
            continue
        if text and os.isatty(0):
            history.append(text)
        shell.run_text(text or "exit", "")  # which warns of jobs, once
    return shell.close()


def _read_program(shell: Shell, look: Look) -> str:
    """Lines up to the end of a program; an empty text at the end of input."""
    text = ""
    while line := _read(look.continuation if text else look.prompt):
        text += line
        if not text.strip() or shell.complete_input(text.rstrip("\n")) != "incomplete":
            break
    return text


def _show_proposal() -> None:
    """Without an edit buffer a proposal can only be shown."""
    line = take_proposal()
    if line:
        print(f"  {line}", flush=True)


def _read(prompt: str) -> str:
    sys.stderr.write(without_sequences(prompt))
    sys.stderr.flush()
    return sys.stdin.readline()
