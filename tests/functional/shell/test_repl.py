"""The interactive shell on a real terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest

from llmos_shell import paths
from llmos_shell.abi.syscalls import PROC_LIST, List
from llmos_shell.abi.types import State
from llmos_shell.testing.retry import retry_until

COLUMNS, LINES = 90, 30
PROMPT = "llmos:~/work$ "


class Terminal:
    """A program on a terminal whose screen can be read."""

    def __init__(self, argv: list[str], **environment: str) -> None:
        env = {**os.environ, "TERM": "xterm-256color", **environment}
        self.child = pexpect.spawn(argv[0], argv[1:], dimensions=(LINES, COLUMNS), env=env, cwd=env["HOME"] + "/work")
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)

    def type(self, text: str) -> None:
        self.child.send(text)

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def text(self) -> str:
        return "\n".join(self.lines())

    def wait(self, what: Callable[[str], object], seconds: float = 30.0) -> str:
        """Feeds the screen until `what` holds of its text."""
        while not what(self.text()):
            try:
                data = self.child.read_nonblocking(65536, timeout=seconds)
            except pexpect.TIMEOUT:
                raise AssertionError(f"not shown within {seconds} s; the screen is\n{self.text()}") from None
            except pexpect.EOF:
                assert what(self.text()), f"the program ended; the screen is\n{self.text()}"
                break
            self.stream.feed(data)
            if b"\x1b[6n" in data:
                self.child.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
        return self.text()

    def wait_prompt(self, typed: str = "") -> str:
        """Until the cursor stands behind a prompt and this text."""
        return self.wait(lambda _: self.line() == (PROMPT + typed).rstrip() and self.screen.cursor.x > 0)

    def line(self) -> str:
        """The line the cursor is on."""
        return self.lines()[self.screen.cursor.y]

    def status(self) -> int | None:
        """The exit status, once it has ended."""
        self.child.expect(pexpect.EOF, timeout=30)
        self.child.close()
        return self.child.exitstatus


@pytest.fixture
def repl(daemon: Any, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts shells in `~/work`."""
    (tmp_path / "work").mkdir()
    terminals: list[Terminal] = []

    def start(*words: str, **environment: str) -> Terminal:
        argv = [sys.executable, "-m", "llmos_shell", *words]
        terminals.append(Terminal(argv, **{"HOME": str(tmp_path), **environment}))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.child.close(force=True)


def test_a_session(repl: Any) -> None:
    terminal = repl()
    assert "`help` lists the commands" in terminal.wait_prompt()
    terminal.wait(lambda text: "default model scripted" in text)
    terminal.type("ps -a\r")
    terminal.wait(lambda text: "STATE" in text)
    terminal.wait_prompt()
    terminal.type("pss\r")
    terminal.wait(lambda text: "pss" in text.split("STATE")[1])
    terminal.wait_prompt()
    terminal.type("exit 3\r")
    assert terminal.status() == 3


def test_ctrl_c_clears_the_line_and_ctrl_d_leaves(repl: Any) -> None:
    terminal = repl()
    terminal.wait_prompt()
    terminal.type("garbage")
    terminal.wait_prompt("garbage")
    terminal.type("\x03")
    terminal.wait_prompt()
    terminal.type("\x04")
    assert terminal.status() == 0


def test_completion(repl: Any) -> None:
    terminal = repl()
    terminal.wait_prompt()
    terminal.wait(lambda text: "default model scripted" in text)
    terminal.type("renic\t")
    terminal.wait_prompt("renice")
    terminal.type("\x03kernels --js\t")
    terminal.wait_prompt("kernels --json")
    terminal.type("\x03load scr\t")
    terminal.wait_prompt("load scripted")


def test_incomplete_input_asks_for_more(repl: Any) -> None:
    terminal = repl()
    terminal.wait_prompt()
    terminal.type("run -n 2 'two\r")
    terminal.wait(lambda _: terminal.line() == ">")
    terminal.type("lines'\r")
    terminal.wait(lambda text: "\ntwo\nlines" in text)
    terminal.wait_prompt()


def test_history_is_shared_and_kept(repl: Any) -> None:
    first = repl()
    first.wait_prompt()
    first.type("version\r")
    first.wait(lambda text: "llmos 0" in text)
    first.wait_prompt()
    first.type(" secret\r")
    first.wait_prompt()
    first.type("\x04")
    first.status()
    second = repl()
    second.wait_prompt()
    second.type("\x1b[A")
    second.wait_prompt("version")
    assert "secret" not in Path(paths.history_path()).read_text()
    assert os.stat(paths.history_path()).st_mode & 0o077 == 0


def test_a_paste_of_several_lines_is_not_run(repl: Any) -> None:
    terminal = repl()
    terminal.wait_prompt()
    terminal.type("\x1b[200~version\nversion -v\x1b[201~")
    terminal.wait(lambda text: "version -v" in text)
    assert "python" not in terminal.text()


@pytest.mark.llmos(models={"scripted": {"end_after": 1_000_000, "step_seconds": 0.002}})
def test_ctrl_c_ends_a_generation_and_not_the_shell(repl: Any) -> None:
    terminal = repl()
    terminal.wait_prompt()
    terminal.type("run Once upon\r")
    terminal.wait(lambda text: len(text.split("Once upon")[-1]) > 200)
    terminal.type("\x03")
    terminal.wait_prompt()
    terminal.type("\x04")
    assert terminal.status() == 130


def test_a_chat_on_a_terminal(repl: Any) -> None:
    terminal = repl("chat", "-n", "8")
    terminal.wait(lambda text: "/help says more" in text and terminal.line() == ">")
    terminal.type("hello\r")
    terminal.wait(lambda text: "cut at the token limit" in text)
    terminal.wait(lambda _: terminal.line() == ">")
    terminal.type("/detach\r")
    terminal.wait(lambda text: "sleeps on" in text)
    assert terminal.status() == 0


@pytest.mark.llmos(models={"scripted": {"end_after": 1_000_000, "step_seconds": 0.002}})
def test_ctrl_c_ends_an_answer_and_keeps_the_conversation(repl: Any) -> None:
    terminal = repl("chat")
    terminal.wait(lambda text: "/help says more" in text and terminal.line() == ">")
    terminal.type("hello\r")
    terminal.wait(lambda text: len(text.split("hello")[-1]) > 200)
    terminal.type("\x03")
    terminal.wait(lambda text: "[interrupted]" in text and terminal.line() == ">")
    terminal.type("/show\r")
    terminal.wait(lambda text: "generated" in text and terminal.line() == ">")
    terminal.type("\x04")
    assert terminal.status() == 0


def test_a_dumb_terminal_gets_plain_lines(repl: Any) -> None:
    terminal = repl(TERM="dumb")
    terminal.wait_prompt()
    terminal.type("version\r")
    terminal.wait(lambda text: "llmos 0" in text)
    assert "\x1b" not in terminal.text()
    terminal.type("\x04")
    assert terminal.status() == 0


def test_top_is_left_with_q(repl: Any) -> None:
    terminal = repl("top")
    terminal.wait(lambda text: "q quit" in text and "policy" in text)
    terminal.type("q")
    assert terminal.status() == 0


@pytest.mark.llmos(models={"scripted": {"end_after": 1_000_000, "step_seconds": 0.002}})
def test_ctrl_z_in_another_shell_stops_the_process_too(client: Any, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    bash = Terminal(["bash", "--norc", "-i"], HOME=str(tmp_path), PS1="bash$ ")
    try:
        bash.wait(lambda _: bash.line() == "bash$")
        bash.type(f"{sys.executable} -m llmos_shell run Once upon\r")
        bash.wait(lambda text: len(text.split("Once upon")[-1]) > 100)
        bash.type("\x1a")
        bash.wait(lambda text: "Stopped" in text)
        (process,) = client.call(PROC_LIST, List(sessions=False))
        assert process.state is State.STOPPED
        bash.type("fg\r")
        retry_until(lambda: client.call(PROC_LIST, List(sessions=False))[0].state is not State.STOPPED)
        bash.type("\x03")
        bash.wait(lambda _: bash.line() == "bash$")
    finally:
        bash.child.close(force=True)
