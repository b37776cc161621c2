"""The forms of `llmos`: scripts as text, as files, on standard input; and what a word means that is several things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_a_script_as_text(llmos: Any) -> None:
    done = llmos("-c", "echo $0 $1 $#; exit 3", "a", "b")
    assert (done.returncode, done.stdout, done.stderr) == (3, "a b 1\n", "")
    assert llmos("-c", "echo $0 $#").stdout == "llmos 0\n"


def test_a_script_as_a_file(llmos: Any, tmp_path: Path) -> None:
    script = tmp_path / "work" / "script"
    script.write_text('#!/usr/bin/env llmos\necho "$1"\nfalse\n')
    done = llmos("script", "a b")
    assert (done.returncode, done.stdout) == (1, "a b\n")
    assert llmos("./script", "x").stdout == "x\n"


def test_a_built_in_command_comes_before_a_file(llmos: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "version").write_text("echo the file\n")
    assert llmos("version").stdout.startswith("llmos ")
    assert llmos("./version").stdout == "the file\n"


def test_a_script_on_standard_input(llmos: Any) -> None:
    assert llmos(stdin="echo one\necho two\n").stdout == "one\ntwo\n"
    assert llmos("-", "a", stdin="echo $1\n").stdout == "a\n"
    assert llmos(stdin=b"echo \xff\n").returncode == 2


@pytest.mark.parametrize("text", ["echo 'open", "if true; then", "echo )", "|"])
def test_a_syntax_error_is_a_line_and_status_2(llmos: Any, text: str) -> None:
    done = llmos("-c", text)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("llmos: ") and "Traceback" not in done.stderr


def test_built_in_commands_in_a_script(daemon: Any, llmos: Any) -> None:
    done = llmos("-c", "run -n 3 Once | cat; ps -q; jobs; kill 99 || echo failed; help ps > page; wait")
    assert done.stdout.startswith("Once") and done.stdout.endswith("failed\n")
    assert done.returncode == 0
    assert llmos("jobs").returncode == 0
