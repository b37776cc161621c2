"""Ctrl-Z while a shell does something that it stops, and at the moment when that ends."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

CONTEXTS = """
import os, signal, sys
from llmos_shell.shell.interpreter.control import StopRequested
from llmos_shell.shell.interpreter.terminal import Terminal

def press(*_):
    os.kill(os.getpid(), signal.SIGTSTP)

def stopped(action):
    try:
        action()
    except StopRequested:
        return True
    return False

def press_when_left():
    def trace(frame, event, argument):
        if event == "call" and frame.f_code.co_name == "__exit__":
            sys.setprofile(None)
            press()
    with terminal.stoppable():
        sys.setprofile(trace)

def press_inside():
    with terminal.stoppable():
        with terminal.stoppable():
            press()

terminal = Terminal.of_stdin()
assert not stopped(press)
assert stopped(press_inside)
assert not stopped(press), "it was stopped outside, after it was stopped inside"
assert stopped(press_when_left)
assert not stopped(press), "it was stopped outside, after it was stopped at the end"
print("fine")
"""

COMMAND = """
import os, signal
from llmos_shell.shell.command import Command
from llmos_shell.shell import commands
from llmos_shell.shell.interpreter.shell import Shell

def write(context, args):
    context.out.write("written")
    os.kill(os.getpid(), signal.SIGTSTP)  # before it is shown

command = Command("write", "", write)
commands.find = lambda name: command
shell = Shell(interactive=True)
shell.run_llmos(["write"])
shell.say("said after it was stopped")
"""


def run_on_terminal(program: str, home: Path) -> tuple[int, str]:
    """The exit status of a Python program, and what it has written."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ["LLMOS_HOME"] = str(home)
        os.environ.pop("PYTHONUNBUFFERED", None)
        os.execv(sys.executable, [sys.executable, "-c", program])
    said = b""
    try:
        while data := os.read(terminal, 4096):
            said += data
    except OSError:  # the terminal has gone with its last program
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()


def test_ctrl_z_stops_inside_of_contexts_only(tmp_path: Path) -> None:
    assert run_on_terminal(CONTEXTS, tmp_path) == (0, "fine\r\n")


def test_what_a_stopped_command_has_written_is_shown_before(tmp_path: Path) -> None:
    assert run_on_terminal(COMMAND, tmp_path) == (0, "written\r\nsaid after it was stopped\r\n")
