"""Manuals on a real terminal: the pager, and its place among the shell's jobs."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

needs_less = pytest.mark.skipif(shutil.which("less") is None, reason="needs less")


@needs_less
def test_a_manual_is_paged_stopped_and_taken_up_again(repl: Any) -> None:
    terminal = repl()
    terminal.wait_prompt()
    terminal.type("man ps\r")
    terminal.wait(lambda text: "SYNOPSIS" in text and text.rstrip().endswith(":"))
    terminal.type("\x1a")
    terminal.wait(lambda text: "Stopped" in text)
    terminal.wait_prompt()
    terminal.type("fg\r")
    terminal.wait(lambda text: "SYNOPSIS" in text and text.rstrip().endswith(":"))
    terminal.type("G")
    terminal.wait(lambda text: "SEE ALSO" in text)
    terminal.type("q")
    terminal.wait_prompt()
    terminal.type("echo status $?\r")
    terminal.wait(lambda text: "status 0" in text)


def test_the_pager_is_the_users_choice(repl: Any) -> None:
    terminal = repl()
    terminal.wait_prompt()
    terminal.type("PAGER='tr a-z A-Z'; man whatis\r")
    terminal.wait(lambda text: "SAY IN A LINE" in text)
    terminal.wait_prompt()
    terminal.type("clear; PAGER=no-such-pager man whatis\r")
    terminal.wait(lambda text: "no-such-pager" in text and "say in a line" in text)
    terminal.wait_prompt()
    terminal.type("TERM=dumb man pwd\r")
    terminal.wait(lambda text: "pwd - print the working folder" in text)
    terminal.wait_prompt()


def test_completion_knows_topics(repl: Any) -> None:
    terminal = repl()
    terminal.wait_prompt()
    terminal.type("man redir\t")
    terminal.wait_prompt("man redirection")
