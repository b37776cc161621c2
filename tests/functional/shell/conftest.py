"""Programs on a real terminal whose screen can be read: a pseudo-terminal by pexpect, the screen by pyte."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest

COLUMNS, LINES = 90, 30
PROMPT = "llmos:~/work$ "


class Program(pexpect.spawn):
    """A program on a terminal."""

    def close(self, force: bool = True) -> None:
        """Takes the terminal away and waits for its end: one that was killed may take a while."""
        try:
            super().close(force)
        except pexpect.ExceptionPexpect:
            self.wait()


class Terminal:
    """A program on a terminal whose screen can be read. It starts in `~/work`."""

    def __init__(self, argv: list[str], columns: int = COLUMNS, lines: int = LINES, **environment: str) -> None:
        env = {**os.environ, "TERM": "xterm-256color", **environment}
        self.child = Program(argv[0], argv[1:], dimensions=(lines, columns), env=env, cwd=env["HOME"] + "/work")
        self.screen = pyte.Screen(columns or 80, lines or 24)
        self.stream = pyte.ByteStream(self.screen)
        self.received = b""  # all that the program has written

    def type(self, text: str | bytes) -> None:
        self.child.send(text)

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self.child.setwinsize(lines, columns)

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
            self.received += data
            if b"\x1b[6n" in data:
                self.child.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
        return self.text()

    def wait_prompt(self, typed: str = "", prompt: str = PROMPT) -> str:
        """Until the cursor stands behind a prompt and this text, or in it."""
        return self.wait(lambda _: self.line() == (prompt + typed).rstrip() and self.screen.cursor.x > 0)

    def line(self) -> str:
        """The line the cursor is on."""
        return self.lines()[self.screen.cursor.y]

    def colour(self, text: str) -> str:
        """The foreground colour of the last place where this text is shown."""
        row = max(number for number, line in enumerate(self.lines()) if text in line)
        return str(self.screen.buffer[row][self.lines()[row].rindex(text)].fg)

    def status(self) -> int | None:
        """The exit status, once it has ended."""
        self.child.expect(pexpect.EOF, timeout=30)
        self.child.close()
        return self.child.exitstatus


@pytest.fixture
def on_terminal(llmos_home: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts programs on terminals, at home in an empty folder."""
    (tmp_path / "work").mkdir()
    terminals: list[Terminal] = []

    def start(*argv: str, **options: Any) -> Terminal:
        terminals.append(Terminal(list(argv), **{"HOME": str(tmp_path), **options}))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.child.close(force=True)


@pytest.fixture
def repl(daemon: Any, on_terminal: Callable[..., Terminal]) -> Callable[..., Terminal]:
    """Starts `llmos WORD…` on terminals, beside a running daemon."""
    return lambda *words, **options: on_terminal(sys.executable, "-m", "llmos_shell", *words, **options)


class LineShell(Program):
    """A shell on a terminal that can do nothing; what a command prints is read up to the next prompt."""

    PROGRESS = re.compile("\r?\x1b\\[K(?:[\u2800-\u28ff] [^\r\x1b]*)?")
    """What a load shows that takes a moment, and its removal."""

    def expect_prompt(self) -> None:
        self.expect(r"llmos:\S+\$ ")

    @property
    def seen(self) -> str:
        """What came before that which was expected, without the progress of loads."""
        return self.PROGRESS.sub("", self.before)

    def run(self, line: str) -> str:
        """What a line prints until the next prompt."""
        self.sendline(line)
        self.expect_prompt()
        lines = self.seen.replace("\r", "").split("\n")
        return "\n".join(each for each in lines if each != line).strip("\n")

    def press(self, key: str) -> None:
        """Presses Ctrl and this key until there is a prompt: what had the terminal may have ended just before."""
        for _ in range(100):
            self.sendcontrol(key)
            if self.expect([r"llmos:\S+\$ ", pexpect.TIMEOUT], timeout=0.5) == 0:
                return
        raise AssertionError(f"no prompt, however often Ctrl-{key} was pressed")


@pytest.fixture
def open_shell(tmp_path: Path) -> Iterator[Callable[..., LineShell]]:
    """Starts a shell with this environment, at home in the test's folder."""
    shells: list[LineShell] = []

    def start(environment: dict[str, str], timeout: float = 30) -> LineShell:
        env = {**environment, "HOME": str(tmp_path), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        argv = ["-P", "-m", "llmos_shell"]
        shell = LineShell(sys.executable, argv, env=env, cwd=str(tmp_path), timeout=timeout, encoding="utf-8")
        shells.append(shell)
        shell.setecho(False)
        shell.expect_prompt()
        return shell

    yield start
    for shell in shells:
        shell.close(force=True)
