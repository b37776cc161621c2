"""Whatever is thrown at the shell: one message with its position, the right status, and no traceback; where there is
somebody to talk to, the shell goes on.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEEP = 30_000


def one_message(err: str) -> str:
    """The only message, without the excerpt and the caret under it."""
    assert err.endswith("\n")
    lines = err.splitlines()
    assert lines[0].startswith("llmos: ") and all(line.startswith("  ") for line in lines[1:]), err[:2000]
    assert len(lines) in (1, 3) and max(map(len, lines)) < 300
    return lines[0]


@pytest.mark.parametrize(
    "text",
    [
        "(" * DEEP, "$(" * DEEP, '"$(' * DEEP, "{ " * DEEP, "if " * DEEP, "while " * DEEP, "$((" * DEEP, "${x:-" * DEEP,
        "(" * DEEP + "a" + ")" * DEEP, f"echo $(({'(' * DEEP}1{')' * DEEP}))", f"echo $(({'-' * DEEP}1))",
        f"echo $(({'1?' * DEEP}1))", f"echo $(({'1+' * DEEP}1))", "'" * (DEEP + 1), '"' * (DEEP + 1), "`" * (DEEP + 1),
        "case x in a) " * DEEP, "f() { " * DEEP, "! " * DEEP, "a && " * DEEP, "a | " * DEEP,
        "((" * DEEP, "[[ ( " * DEEP,
    ],
    ids=lambda text: f"{text[:6]}{text[-6:]}",
)  # fmt: skip
def test_a_text_nested_without_end(llmos: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "work" / "deep").write_text(text)
    done = llmos("deep")
    assert done.returncode == 2 and done.stdout == ""
    assert re.match(r"llmos: deep:1:\d+: ", one_message(done.stderr))


def test_here_documents_without_number(llmos: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "deep").write_text("ulimit -n 200\ncat " + "<<E " * DEEP + "\necho alive")
    done = llmos("deep")
    assert one_message(done.stderr) == "llmos: deep:2: here-document: too many open files"
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    "text",
    ["'", '"', "`", "$(", "${x", "${x:-", "$((1", "$'", "(", "{ a", "if a; then b", "while a; do b", "for x in a; do",
     "case x in a) b", "f() {", "a &&", "a |", "echo \"$(if a; then '`)\"", "a $(cat <<E\nx"],
)  # fmt: skip
def test_unterminated(llmos: Any, text: str) -> None:
    done = llmos("-c", text)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(r"llmos: -c:\d+:\d+: ", one_message(done.stderr))


@pytest.mark.parametrize(
    "text",
    [
        "f() { f; }; f",
        "f() { g; }; g() { if f; then :; fi; }; f",
        "f() { { f; } >/dev/null; }; f",
        "f() { eval f; }; f",
        'x=\'eval "$x"\'; eval "$x"',
        "echo '. ./self' >self; . ./self",
        "f() { . ./self; }; echo f >self; f",
        "trap f EXIT; f() { f; }; exit",
        "trap 'eval \"$x\"' USR1; x='eval \"$x\"'; kill -USR1 $$; :",
        "a=b b=a; echo $((a))",
    ],
)
def test_recursion_without_end(llmos: Any, text: str) -> None:
    done = llmos("-c", f"\n{text}\necho alive")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(
        r"llmos: (-c:2: )?[a-z./-]+:\d+:\d+: .*(nested more than|refers to itself)", one_message(done.stderr)
    )


@pytest.mark.parametrize("text", ["f() { (f); }", "f() { f | cat; }", "f() { x=$(f); }", "f() { echo `f`; }"])
def test_recursion_of_subshells_without_end(llmos: Any, text: str) -> None:
    done = llmos("-c", f"{text}; f; echo alive")
    assert done.stdout.endswith("alive\n")
    assert "nested more than" in one_message(done.stderr)


def test_aliases_that_stand_for_each_other(llmos: Any) -> None:
    done = llmos("-c", "alias a='b x' b='a y'\na\necho $?")
    assert (done.stdout, done.stderr) == ("127\n", "llmos: -c:2: a: command not found\n")


@pytest.mark.parametrize(
    "text", ["while :; do echo y; done", "yes", "yes | cat", "f() { while :; do printf y; done; }; f"]
)
def test_endless_output_into_a_closed_pipe(llmos: Any, text: str) -> None:
    argv = [sys.executable, "-m", "llmos_shell", "-c", text]
    running = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None and running.stderr is not None
    assert running.stdout.read(1) == b"y"
    running.stdout.close()
    assert running.wait(60) == 141
    assert running.stderr.read() == b""
    running.stderr.close()


def test_the_interactive_shell_lives_on(llmos: Any, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "elf").write_bytes(b"\x7fELF\0\0")
    (work / "self").write_text(". ./self\n")
    (work / "deep").write_text("$(" * DEEP)
    lines = ["f() { f; }; f", ". ./self", ". ./elf", ". ./deep", "echo $((1/0))", "echo ${x?}", "a )", "((" * 200,
             "eval 'echo )'", "set -u; echo $nope", "readonly r=1; r=2",
             "while :; do echo y; done | head -1"]  # fmt: skip
    for number, line in enumerate(lines):
        lines[number] = f"{line}\necho alive {number}"
    done = llmos("-i", stdin="\n".join(lines) + "\n")
    alive = [line.split("$ ")[-1] for line in done.stdout.splitlines() if "alive" in line]
    assert alive == [f"alive {number}" for number in range(len(lines))], done
    assert "internal error" not in done.stderr and "Traceback" not in done.stderr
    assert done.returncode == 0


def test_a_binary_on_the_path_is_not_run_by_sh(llmos: Any, tmp_path: Path) -> None:
    program = tmp_path / "work" / "x"
    program.write_bytes(b"\x7fELF\0\0\0\0")
    program.chmod(0o755)
    done = llmos("-c", "./x")
    assert (done.returncode, done.stderr) == (126, "llmos: ./x: cannot execute binary file\n")
    program.write_text("echo $0 $1\n")
    assert llmos("-c", "./x a").stdout == "./x a\n"
