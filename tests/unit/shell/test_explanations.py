"""What `?` says about the last failure."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.errors import Code
from llmos_shell.lang.errors import ShellSyntaxError
from llmos_shell.lang.parser import parse
from llmos_shell.shell.exit_statuses import CODES
from llmos_shell.shell.explanations import Explanation, explain
from llmos_shell.shell.failures import Failure, Failures, Trouble


class World:
    """A world with little in it."""

    KINDS: ClassVar = {
        "script": "file",
        "tool": "program",
        "docs": "folder",
        "/data": "folder",
        ".": "folder",
        "docs/": "folder",
    }

    def commands(self) -> Collection[str]:
        return ["run", "ps", "kill", "history", "deploy"]

    def programs(self) -> Collection[str]:
        return ["grep", "python3", "git"]

    def models(self) -> Collection[str]:
        return ["tiny", "qwen"]

    def kind(self, path: str) -> str:
        return self.KINDS.get(path, "missing")

    def names(self, folder: str) -> Collection[str]:
        return {".": ["notes.txt", "docs"], "docs/": ["intro.md"]}.get(folder, [])


def said(text: str, status: int, *troubles: Trouble) -> Explanation:
    return explain(Failure(text, status, troubles), World())


def syntax(text: str) -> Explanation:
    with pytest.raises(ShellSyntaxError) as error:
        parse(text)
    return said(text, 2, Trouble("syntax", error.value.message, offset=error.value.position.offset))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("runn hello", "run hello"),
        ("x=1; histroy | grep x", "x=1; history | grep x"),
        ("gerp x file", "grep x file"),
        ("PS -a", "ps -a"),
        ("tiny", "chat tiny"),
        ("tool -x", "./tool -x"),
        ("script a", "sh script a"),
        ("docs", "cd docs"),
        ("how do i stop a process", "? how do i stop a process"),
        ("qqqqqq", ""),
    ],
)
def test_a_command_that_was_not_found(text: str, line: str) -> None:
    word = next(word for word in text.replace(";", " ").split() if word != "x=1")
    found = said(text, 127, Trouble("shell", f"{word}: command not found"))
    assert found.line == line
    assert f"`{word}`" in found.text and "127" in found.text


@pytest.mark.parametrize(
    ("text", "status", "message", "line"),
    [
        ("cat < note.txt", 1, "note.txt: no such file or directory", "cat < notes.txt"),
        ("cd dcos", 1, "cd: dcos: no such file or directory", "cd docs"),
        ("cd docs/intor.md", 1, "cd: docs/intor.md: no such file or directory", "cd docs/intro.md"),
        ("cd zzz", 1, "cd: zzz: no such file or directory", "ls"),
        ("ps > new/a", 1, "new/a: no such file or directory", "mkdir -p new && ps > new/a"),
        ("cd new/deep", 1, "cd: new/deep: no such file or directory", "mkdir -p new/deep && cd new/deep"),
        ("[ 1 = 1]", 2, "[: `]` is missing", "[ 1 = 1 ]"),
        ("if [a = b]; then ps; fi", 2, "[: `]` is missing", "if [ a = b ]; then ps; fi"),
        ("docs", 126, "docs: is a directory", "cd docs"),
        ("./script", 126, "./script: permission denied", "chmod +x ./script && ./script"),
        ("ps > /etc/x", 1, "/etc/x: permission denied", "ls -ld /etc/x"),
        ("exit", 1, "there are stopped jobs: `exit` again ends them, `disown` keeps them", "jobs"),
    ],
)
def test_files(text: str, status: int, message: str, line: str) -> None:
    assert said(text, status, Trouble("shell", message)).line == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ps )", "ps"),
        ("run what is this (really)", "run 'what is this (really)'"),
        ("if true; do ps; fi", "if true; then ps; fi"),
        ("ps; fi", "ps;"),
        ("echo 'a", "echo 'a'"),
        ('echo "a', 'echo "a"'),
        ("echo it's", "echo it\\'s"),
        ("echo $(ps", "echo $(ps)"),
        ("ps | | grep x", "ps | grep x"),
        ("for x in 1 2; do echo $x", "for x in 1 2; do echo $x; done"),
        ("ps; ; ps", "ps; ps"),
    ],
)
def test_a_line_that_is_no_program(text: str, line: str) -> None:
    found = syntax(text)
    assert "no program" in found.text
    assert found.line == line
    parse(line)


@given(st.text(alphabet="ab ;|&()'\"$`{}\nif", max_size=20))
def test_what_is_proposed_for_a_syntax_error_parses(text: str) -> None:
    try:
        parse(text)
    except ShellSyntaxError as error:
        found = said(text, 2, Trouble("syntax", error.message, offset=error.position.offset))
        parse(found.line)


def test_built_in_commands() -> None:
    unknown = Trouble("command", "unknown option --srot: did you mean --sort?", "ps")
    assert said("ps --srot x", 2, unknown).line == "ps --sort x"
    assert said("ps -Q", 2, Trouble("command", "unknown option -Q: try `ps --help`", "ps")).line == "ps --help"
    no_model = Trouble(
        "command", "no model 'qwem': known: tiny, qwen; or give the path of a .gguf file", "run", "ENOENT"
    )
    assert said("run -m qwem x", 1, no_model).line == "run -m qwen x"
    gone = Trouble("command", "there is no process 999", "kill", "ESRCH")
    assert said("kill 999", 1, gone) == ("`kill` says: there is no process 999.\n" + CODES["ESRCH"][0], "ps")
    choice = Trouble("command", "--sort KEY: `mem` is not one of memory, time, nice: try `ps --help`", "ps")
    assert said("ps --sort mem", 2, choice).line == "ps --help"
    choice = Trouble("command", "--sort KEY: `memry` is not one of memory, time, nice: try `ps --help`", "ps")
    assert said("ps --sort memry", 2, choice).line == "ps --sort memory"


def test_every_code_of_the_daemon_is_known() -> None:
    assert set(CODES) == set(Code)


@pytest.mark.parametrize(
    ("text", "status", "part"),
    [
        ("grep x file", 1, "an answer, not an error"),
        ("cat a | grep x", 1, "`grep`"),
        ("sleep 100", 130, "Ctrl-C"),
        ("sleep 100", 137, "SIGKILL"),
        ("sleep 100", 143, "SIGTERM"),
        ("yes | head", 141, "nobody read"),
        ("sleep 9", 148, "`fg`"),
        ("sh -c x", 127, "not found"),
        ("./crash", 139, "SIGSEGV"),
        ("run x", 124, "limit"),
        ("tool -x", 7, "its own message"),
        ("if false; then :; fi; (exit 3)", 3, "The command ended with status 3"),
    ],
)
def test_a_status_alone(text: str, status: int, part: str) -> None:
    found = said(text, status)
    assert part.lower() in found.text.lower()
    assert found.line == ""


def test_a_file_that_a_program_did_not_find() -> None:
    assert said("cat -n note.txt | wc", 1).line == ""
    assert said("wc < x; cat -n note.txt", 1).line == "wc < x; cat -n notes.txt"
    assert said("ls docs/intor.md", 2).line == "ls docs/intro.md"
    assert said("ls zzzz", 2).line == ""


def test_a_program_that_another_did_not_find() -> None:
    assert said("nice -n 5 gerp x", 127).line == "nice -n 5 grep x"
    assert said("sudo -n rnu x", 127).line == "sudo -n run x"
    assert said("nice -n 5 zzzzz", 127).line == ""


def test_the_last_complaint_of_a_program_is_explained() -> None:
    failures = Failures()
    failures.begin()
    failures.note(Trouble("shell", "a: is read-only"))
    failures.note(Trouble("shell", "pss: command not found"))
    failures.end("a=1; pss\n", 127)
    failures.begin()
    failures.end("? why", 1)
    failures.begin()
    failures.end("true", 0)
    assert failures.last is not None
    assert explain(failures.last, World()).line == "a=1; ps"
