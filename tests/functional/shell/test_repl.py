"""The interactive shell on a real terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from llmos_shell import paths
from llmos_shell.abi.syscalls import PROC_LIST, List
from llmos_shell.abi.types import State
from llmos_shell.testing.retry import retry_until


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
    terminal.type("true\r")
    terminal.wait(lambda text: text.count("llmos:~") == 3)
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


@pytest.mark.llmos(models={"scripted": {"end_after": 1_000_000, "step_seconds": 0.002, "pages": 4096}})
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


@pytest.mark.llmos(models={"scripted": {"end_after": 1_000_000, "step_seconds": 0.002, "pages": 4096}})
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


@pytest.mark.llmos(models={"scripted": {"end_after": 1_000_000, "step_seconds": 0.002, "pages": 4096}})
def test_ctrl_z_in_another_shell_stops_the_process_too(client: Any, on_terminal: Any) -> None:
    bash = on_terminal("bash", "--norc", "-i", PS1="bash$ ")
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
