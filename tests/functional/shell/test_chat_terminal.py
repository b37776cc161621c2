"""A conversation on a real terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyte
import pytest

from llmos_shell.abi.syscalls import PROC_LIST, PROC_TRANSCRIPT, List, Pid


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


# -- messages of several lines ---


def test_a_block_is_typed(repl: Any, client: Any) -> None:
    terminal = repl("chat", "-n", "8")
    begin(terminal)
    terminal.type('"""first\r')
    terminal.wait(lambda _: terminal.line() == "")
    terminal.type('second"""\r')
    terminal.wait(lambda text: "cut at the token limit" in text)
    assert asked(client) == ["first\nsecond"]


def test_keys_that_do_nothing_leave_nothing(repl: Any, client: Any) -> None:
    terminal = repl("chat", "-n", "8")
    begin(terminal)
    terminal.type("hel\x1alo\r")
    terminal.wait(lambda text: "cut at the token limit" in text)
    assert asked(client) == ["hello"]


def test_a_block_on_a_dumb_terminal(repl: Any, client: Any) -> None:
    terminal = repl("chat", "-n", "8", TERM="dumb")
    begin(terminal)
    terminal.type('"""first\r')
    terminal.wait(lambda text: '"""first' in text and terminal.line() == "")
    terminal.type('second"""\r')
    terminal.wait(lambda text: "cut at the token limit" in text)
    assert asked(client) == ["first\nsecond"]


# -- Markdown ---

MARKDOWN = "# Title\n\nSome **bold** text.\n\n- one\n- two\n\n```python\nx = 1\n```\n\nThe end."


@pytest.mark.llmos(models={"scripted": {"reply": MARKDOWN, "step_seconds": 0.002}})
@pytest.mark.parametrize("raw", [False, True])
def test_markdown_is_rendered_unless_raw(repl: Any, raw: bool) -> None:
    terminal = repl("chat", *(["--raw"] if raw else []))
    begin(terminal)
    terminal.type("hello\r")
    text = terminal.wait(lambda text: "The end." in text and terminal.line() == ">")
    assert text.count("bold") == 1 and text.count("The end.") == 1
    assert ("**bold**" in text, "```" in text, "- one" in text) == (raw, raw, raw)
    if not raw:
        assert "Some bold text." in text and " • one" in text
        row = next(number for number, line in enumerate(terminal.lines()) if "Some bold" in line)
        assert terminal.screen.buffer[row][5].bold
        terminal.type("/set raw on\r")
        terminal.wait(lambda _: terminal.line() == ">")
        terminal.type("again\r")
        terminal.wait(lambda text: "**bold**" in text and terminal.line() == ">")


LONG = "\n".join(f"{number}. item {number}" for number in range(1, 61)) + "\n\nThe end."


@pytest.mark.llmos(models={"scripted": {"reply": LONG, "step_seconds": 0.001}})
def test_a_block_longer_than_the_screen_is_written_once(repl: Any, client: Any) -> None:
    terminal = repl("chat", lines=12)
    terminal.screen = pyte.HistoryScreen(90, 12, history=400, ratio=0.5)
    terminal.stream = pyte.ByteStream(terminal.screen)
    begin(terminal)
    terminal.type("hello\r")
    terminal.wait(lambda text: "The end." in text and terminal.line() == ">")
    gone = ["".join(line[column].data for column in range(90)) for line in terminal.screen.history.top]
    every = "\n".join([*gone, *terminal.lines()])
    assert [every.count(f"item {number} ") for number in range(2, 10)] == [1] * 8
    assert "60 item 60" in terminal.text()


# -- two terminals ---


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_two_terminals_see_each_other_s_turns(repl: Any, term: str) -> None:
    first = repl("chat", "-n", "8", TERM=term)
    begin(first)
    pid = first.text().partition("[process ")[2].partition(";")[0]
    second = repl("attach", pid, TERM=term)
    second.wait(lambda text: "Ctrl-D leaves it running" in text and second.line() == ">")
    if term != "dumb":
        second.type("half a thou")
        second.wait(lambda _: second.line() == "> half a thou")
    first.type("hello there\r")
    answer = first.wait(lambda text: "cut at the token limit" in text and first.line() == ">")
    said = answer.partition("hello there\n")[2].split("\n")[0]
    seen = second.wait(lambda text: "token limit" in text and second.line().startswith(">"))
    assert f"you: hello there\n{said}\n" in seen
    assert term == "dumb" or second.line() == "> half a thou"
    second.type("\x15and me\r" if term != "dumb" else "and me\r")
    first.wait(lambda text: "you: and me\n" in text and first.line() == ">")
    first.type("\x04")
    assert first.status() == 0
    second.wait(lambda _: not second.child.isalive())


@pytest.mark.llmos(models={"scripted": {"step_seconds": 0.01}})
def test_either_terminal_can_interrupt_an_answer(repl: Any, client: Any) -> None:
    first = repl("chat")
    begin(first)
    pid = first.text().partition("[process ")[2].partition(";")[0]
    second = repl("attach", pid)
    second.wait(lambda text: "Ctrl-D leaves it running" in text and second.line() == ">")
    first.type("one\r")
    second.wait(lambda text: "you: one" in text)
    second.type("\x03")  # at once, whatever it is doing
    second.wait(lambda text: "[interrupted]" in text and second.line() == ">")
    first.wait(lambda text: "[interrupted]" in text and first.line() == ">")
    assert asked(client) == ["one"]


def asked(client: Any) -> list[str]:
    process = client.call(PROC_LIST, List(all=True, sessions=False))[-1]
    turns = client.call(PROC_TRANSCRIPT, Pid(process.pid)).turns
    return [turn.text for turn in turns if turn.role == "user"]
