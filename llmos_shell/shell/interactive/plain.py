"""The interactive shell on a terminal that can do nothing but lines (`TERM=dumb`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from llmos_shell.shell.interactive.proposals import take_proposal
from llmos_shell.shell.interactive.startup import present_folder, prompt_text, run_startup_file
from llmos_shell.shell.interpreter.shell import Shell


def run_plain(options: Mapping[str, bool] | None = None) -> int:
    """Reads lines until the end of input or `exit`; returns the exit status."""
    shell = Shell(interactive=True, name="llmos", options=options)
    run_startup_file(shell)
    text = ""
    while shell.exited is None:
        if not text:
            shell.before_prompt()
            _show_proposal()
        try:
            line = _read("> " if text else prompt_text(present_folder(), os.path.expanduser("~")))
        except KeyboardInterrupt:
            text = ""
            print(flush=True)
            continue
        if not line:
            shell.run_text("exit", "")  # which warns of jobs, once
            text = ""
            continue
        text += line
        if text.strip() and shell.complete_input(text.rstrip("\n")) == "incomplete":
            continue
        shell.run_text(text, "")
        text = ""
    return shell.close()


def _show_proposal() -> None:
    """Without an edit buffer a proposal can only be shown."""
    line = take_proposal()
    if line:
        print(f"  {line}", flush=True)


def _read(prompt: str) -> str:
    sys.stdout.write(prompt)
    sys.stdout.flush()
    return sys.stdin.readline()
