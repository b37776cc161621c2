"""A conversation on a real terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def editor(tmp_path: Path) -> Path:
    """An editor that appends a line, or fails when there is a file `broken`."""
    script = tmp_path / "editor"
    script.write_text(f'#!/bin/sh\ntest -e {tmp_path}/broken && exit 3\nprintf "second line\\n" >>"$1"\n')
    script.chmod(0o755)
    return script


def begin(terminal: Any) -> None:
    terminal.wait(lambda text: "/help says more" in text and terminal.line() == ">")


def test_a_message_written_in_an_editor(repl: Any, editor: Path) -> None:
    terminal = repl("chat", "-n", "8", EDITOR=str(editor))
    begin(terminal)
    terminal.type("first")
    terminal.wait(lambda _: terminal.line() == "> first")
    terminal.type("\x18\x05")
    terminal.wait(lambda text: "> first\n" in text and terminal.line().strip() == "second line")
    terminal.type("\r")
    terminal.wait(lambda text: "cut at the token limit" in text)


def test_an_editor_that_fails_leaves_the_text(repl: Any, editor: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    terminal = repl("chat", "-n", "8", EDITOR=str(editor))
    begin(terminal)
    terminal.type("first")
    terminal.wait(lambda _: terminal.line() == "> first")
    terminal.type("\x18\x05")
    terminal.wait(lambda text: "status 3" in text and terminal.line() == "> first")


def test_no_editor(repl: Any) -> None:
    terminal = repl("chat", EDITOR="not-there", VISUAL="")
    begin(terminal)
    terminal.type("\x18\x05")
    terminal.wait(lambda text: "not-there: no such file" in text and terminal.line() == ">")
