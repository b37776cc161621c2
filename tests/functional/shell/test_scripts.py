"""Scripts as a user runs them: where messages say an error is, options of the command line, bad input."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def script(llmos: Any, tmp_path: Path) -> Any:
    """Writes a script, runs it, and gives what it wrote on standard error."""

    def run(text: str, status: int, *args: str) -> str:
        (tmp_path / "work" / "x.llmsh").write_text(text)
        done = llmos(*args, "x.llmsh")
        assert done.returncode == status, done
        return str(done.stderr)

    return run


def test_messages_name_file_and_line(script: Any) -> None:
    assert script("true\n\nfoo\n", 127) == "llmos: x.llmsh:3: foo: command not found\n"
    assert script("f() {\n cd /no\n}\nf\n", 1) == "llmos: x.llmsh:2: cd: /no: no such file or directory\n"
    assert script("true\n{ true\n} </no\n", 1) == "llmos: x.llmsh:2: /no: no such file or directory\n"
    assert script("true\nulimit --nope\n", 2).startswith("llmos: x.llmsh:2: ulimit: unknown option --nope")
    assert script("\neval '\nfoo'\n", 127) == "llmos: x.llmsh:2: foo: command not found\n"


def test_functions_name_their_own_file(script: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "lib.llmsh").write_text("\nf() {\n  foo\n}\n")
    assert script(". ./lib.llmsh\nf\nbar\n", 127) == (
        "llmos: ./lib.llmsh:3: foo: command not found\nllmos: x.llmsh:3: bar: command not found\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "true\nif true; then\n\techo )\nfi",
            "3:7: unexpected `)`, expected `fi` for the `if` of line 2\n  \techo )\n  \t     ^",
        ),
        ("set -u\necho é $x", "2:8: x: variable is not set\n  echo é $x\n         ^"),
        ("echo ${x:?is missing}", "1:6: x: is missing\n  echo ${x:?is missing}\n       ^"),
        ("f() {\n  echo $((1 / 0))\n}\nf", "2:8: division by zero\n    echo $((1 / 0))\n         ^"),
        ("echo $((1 + * 2))", "1:13: arithmetic: unexpected `*` in `1 + * 2`\n  echo $((1 + * 2))\n              ^"),
        ("true | echo ${x?} | cat", "1:13: x: not set\n  true | echo ${x?} | cat\n              ^"),
        ("readonly x=1\nx=2", "2:1: x: is read-only\n  x=2\n  ^"),
        ("cat <<E\nab $((3 +))\nE", "2:10: arithmetic: unexpected end in `3 +`\n  ab $((3 +))\n           ^"),
    ],
)
def test_errors_in_the_text_are_pointed_out(script: Any, text: str, message: str) -> None:
    status = 0 if "|" in text else 2
    assert script(text, status) == f"llmos: x.llmsh:{message}\n"


def test_forms_without_a_file(llmos: Any) -> None:
    assert llmos("-c", "echo )").stderr == "llmos: -c:1:6: unexpected `)`\n  echo )\n       ^\n"
    assert llmos(stdin="echo\necho )").stderr == "llmos: stdin:2:6: unexpected `)`\n  echo )\n       ^\n"
    assert llmos("-c", "foo").stderr == "llmos: foo: command not found\n"
    assert llmos("-c", "\nfoo").stderr == "llmos: -c:2: foo: command not found\n"
    assert llmos("-c", "true\neval '|'").stderr == "llmos: -c:2: eval:1:1: unexpected `|`\n  |\n  ^\n"


# -- the command line ---


@pytest.mark.parametrize(
    ("words", "out", "err"),
    [
        (["-c", 'echo "$0|$1|$#"', "name", "a b"], "name|a b|1\n", ""),
        (["-ec", "false; echo no"], "", ""),
        (["-c", "-e", "false; echo no"], "", ""),
        (["-xc", "echo 'a b'"], "a b\n", "+ echo 'a b'\n"),
        (["-x", "+x", "-c", "echo a"], "a\n", ""),
        (["-o", "pipefail", "-c", "false | true; echo $?"], "1\n", ""),
        (["-eo", "pipefail", "-c", "false | true; echo no"], "", ""),
        (["-u", "-c", "echo $-"], "u\n", ""),
        (["-f", "--", "x.llmsh", "*"], "* 1\n", ""),
        (["-fx", "x.llmsh", "-x"], "-x 1\n", "+ echo -x 1\n"),
        (["-vc", "echo a\necho b"], "a\nb\n", "echo a\necho b\n"),
    ],
)
def test_options_as_sh_has_them(llmos: Any, tmp_path: Path, words: list[str], out: str, err: str) -> None:
    (tmp_path / "work" / "x.llmsh").write_text("echo $1 $#\n")
    done = llmos(*words)
    assert (done.stdout, done.stderr) == (out, err)
    assert done.returncode == (1 if "false" in words[-1] and not out else 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-z"], "unknown option -z"),
        (["-ez", "x"], "unknown option -ez"),
        (["+c", "x"], "unknown option +c"),
        (["-c"], "-c needs a SCRIPT"),
        (["-o"], "-o needs the name of an option (allexport "),
        (["-o", "nope", "-c", "x"], "-o nope: is no option (allexport "),
    ],
)
def test_options_that_are_wrong(llmos: Any, words: list[str], message: str) -> None:
    done = llmos(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"llmos: {message}") and done.stderr.count("\n") == 1


def test_checking_the_syntax_runs_nothing_and_shows_all_errors(script: Any, llmos: Any) -> None:
    assert script("echo ran >out\n", 0, "-n") == ""
    assert script("a )\nb\nc ;;\n", 2, "-n") == (
        "llmos: x.llmsh:1:3: unexpected `)`\n  a )\n    ^\nllmos: x.llmsh:3:3: unexpected `;;`\n  c ;;\n    ^\n"
    )
    assert llmos("-n", "-c", "echo ran").stdout == ""
    assert llmos("-n", "-c", "echo )").returncode == 2
    assert llmos("-n", stdin="echo )").stderr == "llmos: stdin:1:6: unexpected `)`\n  echo )\n       ^\n"
    assert llmos("-c", "ls").stdout == "x.llmsh\n"
    assert llmos("-n", "nosuch").returncode == 127


def test_standard_input_is_shared_with_the_commands(llmos: Any, tmp_path: Path) -> None:
    text = "read x; echo $x\none\nif true; then\n  cat\nfi\ntwo\n"
    assert llmos(stdin=text).stdout == "one\ntwo\n"
    (tmp_path / "work" / "in").write_text(text)
    assert llmos("-c", '"$1" -m llmos_shell <in', "sh", sys.executable).stdout == "one\ntwo\n"
    assert llmos("-s", "a", "b", stdin="echo $2\n").stdout == "b\n"
    assert llmos(stdin="cat <<E | cat\n$((1 + \\\n1))\nE\nfoo\n").stdout == "2\n"
    assert llmos(stdin="\nfalse &&\nfoo\n\nbar").stderr == "llmos: stdin:5: bar: command not found\n"
    here = "cat <<A <<-B; read x; echo $x\nno\nA\n\tyes $(echo b)\n\tB\nnext\n# no\n\necho end\n"
    assert llmos(stdin=here).stdout == "yes b\nnext\nend\n"
    words = "x='a\n\nb' y=(1\n2)\necho \"$x ${y[1]} $(\necho c\n)\"\nread z\nd\necho $z"
    assert llmos(stdin=words).stdout == "a\n\nb 2 c\nd\n"
    compound = "((1 +\n1)) && read x\ny\necho $x\nfor x in 1\ndo\nread y\ndone\nz\necho $y"
    assert llmos(stdin=compound).stdout == "y\nz\n"
    long = "f() {\n" + "  : one\n" * 300 + "}\nf; echo done\nexit 3\n'"
    done = llmos(stdin=long)
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")


@pytest.mark.parametrize("line", ["env llmos", "env -S llmos -e"])
def test_the_first_line_names_the_interpreter(llmos: Any, tmp_path: Path, line: str) -> None:
    path = tmp_path / "work" / "x"
    path.write_text(f"#!/usr/bin/{line}\necho $0 $1 $-\n")
    path.chmod(0o755)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "llmos").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llmos_shell "$@"\n')
    (folder / "llmos").chmod(0o755)
    done = llmos("-c", "./x 'a b'", PATH=f"{folder}:{os.environ['PATH']}")
    assert done.stdout == f"./x a b{' e' if '-e' in line else ''}\n"


@pytest.mark.parametrize(
    ("data", "message", "status"),
    [
        (b"\x7fELF\x02\x01\x01\0\0", "cannot execute binary file", 126),
        (b"\x89PNG\r\n\x1a\n\0\0\0\r", "cannot execute binary file", 126),
        ("echo hi\n".encode("utf-16"), "cannot execute binary file: it is UTF-16: convert it with iconv", 126),
        (b"echo \0 hi\n", "cannot execute binary file", 126),
    ],
)
def test_what_is_no_script(llmos: Any, tmp_path: Path, data: bytes, message: str, status: int) -> None:
    (tmp_path / "work" / "x").write_bytes(data)
    done = llmos("x")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"llmos: x: {message}\n")
    assert llmos("-n", "x").stderr == done.stderr
    assert llmos("-c", ". ./x; echo no").stderr == f"llmos: .: ./x: {message}\n"
    assert llmos("-c", "source ./x; echo $?").stdout == "126\n"


def test_a_nul_further_on_is_an_error_with_its_place_unless_the_script_has_ended(llmos: Any, tmp_path: Path) -> None:
    path = tmp_path / "work" / "x"
    path.write_bytes(b"# " + b"x" * 200 + b"\necho one\necho t\0wo\n")
    done = llmos("x")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "one\n",
        "llmos: x:3:7: NUL character\n  echo t␀wo\n        ^\n",
    )
    path.write_bytes(b"# " + b"x" * 200 + b"\necho one\nexit 0\n\0\0\xff")
    assert llmos("x").stdout == "one\n" and llmos("x").returncode == 0


def test_files_that_cannot_be_read(llmos: Any, tmp_path: Path) -> None:
    assert llmos("./nosuch").returncode == 127
    assert llmos("-e", "nosuch").stderr == "llmos: nosuch: no such file or directory\n"
    assert llmos("-e", ".").returncode == 126


def test_a_byte_order_mark_is_no_part_of_the_script(llmos: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "x").write_bytes(b"\xef\xbb\xbfecho hi\n")
    assert llmos("x").stdout == "hi\n"


# -- fmt ---


_SLOW_TO_STOP = """
import os
actions = [
    (os.POSIX_SPAWN_OPEN, 3, "begun", os.O_WRONLY | os.O_CREAT, 0o600),
    (os.POSIX_SPAWN_OPEN, 0, "gate", os.O_RDONLY, 0),
]
os.waitpid(os.posix_spawn("/bin/true", ["true"], {}, file_actions=actions), 0)
"""
"""While its child waits for somebody to open `gate`, this program is inside vfork, where no stop takes effect."""


def test_bg_continues_what_has_not_stopped_yet(script: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "slow.py").write_text(_SLOW_TO_STOP)
    os.mkfifo(tmp_path / "work" / "gate")
    script(
        f"{sys.executable} slow.py &\nuntil test -e begun; do :; done\nkill -STOP %1\nbg %1\n: > gate\nwait %1\n",
        0,
    )


def test_wait_in_a_script_waits_for_the_end_whatever_is_stopped_meanwhile(script: Any) -> None:
    script(
        "sh -c 'kill -STOP $$; exit 3' & p=$!\n"
        "{ until grep -q '(stopped)' /proc/$p/status; do :; done; command -p kill -CONT $p; } &\n"
        "wait $p\n",
        3,
    )


def test_fmt_prints_lists_shows_and_writes(llmos: Any, tmp_path: Path) -> None:
    ugly, neat = tmp_path / "work" / "ugly", tmp_path / "work" / "neat"
    ugly.write_text("if a;then\nb # c\nfi")
    ugly.chmod(0o750)
    neat.write_text("if a; then\n    b  # c\nfi\n")
    link = tmp_path / "work" / "link"
    link.symlink_to("ugly")
    assert llmos("fmt", "ugly").stdout == neat.read_text()
    assert llmos("fmt", stdin=ugly.read_bytes()).stdout == neat.read_text()
    assert llmos("-c", "fmt <ugly | fmt -d").stdout == ""
    assert llmos("fmt", "-l", "ugly", "neat").stdout == "ugly\n"
    diff = llmos("fmt", "-d", "ugly", "neat")
    assert diff.returncode == 0
    assert "-fi\n\\ No newline at end of file\n+if a; then\n" in diff.stdout
    assert llmos("fmt", "--check", "ugly", "neat").returncode == 1
    assert llmos("fmt", "-w", "link", "neat").stdout == ""
    assert link.is_symlink() and ugly.read_text() == neat.read_text()
    assert ugly.stat().st_mode & 0o777 == 0o750
    assert llmos("fmt", "--check", "ugly").returncode == 0
    assert sorted(path.name for path in ugly.parent.iterdir()) == ["link", "neat", "ugly"]


def test_fmt_leaves_alone_what_is_no_script(llmos: Any, tmp_path: Path) -> None:
    wrong, good = tmp_path / "work" / "wrong", tmp_path / "work" / "good"
    wrong.write_text("a )\n")
    good.write_text("a;b\n")
    done = llmos("fmt", "-w", "wrong", "nosuch", "good")
    assert (done.returncode, wrong.read_text(), good.read_text()) == (2, "a )\n", "a; b\n")
    assert done.stderr == (
        "llmos: wrong:1:3: unexpected `)`\n  a )\n    ^\nllmos: fmt: nosuch: no such file or directory\n"
    )
    assert llmos("fmt", stdin=b"\0").stderr == "llmos: fmt: -: is a binary file, not a script\n"
    assert "is not UTF-8 (byte 2)" in llmos("fmt", stdin=b"a \xff").stderr
    assert llmos("fmt", "-w").returncode == 2
    assert llmos("fmt", ".").stderr == "llmos: fmt: .: is a directory\n"


# -- the history in scripts ---


@pytest.fixture
def typed(llmos_home: Path) -> None:
    """Three lines were typed."""
    from llmos_shell.shell.interactive.history import open_history

    history = open_history()
    for line in ("echo one", "echo two\necho 2", "true three"):
        history.append(line)


@pytest.mark.usefixtures("typed")
@pytest.mark.parametrize(
    ("command", "out", "err"),
    [
        ("fc -l", "1\techo one\n2\techo two\n\techo 2\n3\ttrue three\n", ""),
        ("fc -lr", "3\ttrue three\n2\techo two\n\techo 2\n1\techo one\n", ""),
        ("fc -ln -2", "\techo two\n\techo 2\n\ttrue three\n", ""),
        ("fc -l 1 2", "1\techo one\n2\techo two\n\techo 2\n", ""),
        ("fc -l 2 1", "2\techo two\n\techo 2\n1\techo one\n", ""),
        ("fc -l true", "3\ttrue three\n", ""),
        ("fc -s", "", "true three\n"),
        ("fc -s one=1 1", "1\n", "echo 1\n"),
        ("fc -e - echo", "two\n2\n", "echo two\necho 2\n"),
        ("fc -e 'sed -i s/one/changed/' 1", "changed\n", "echo changed\n"),
        ("FCEDIT=true; fc 1", "one\n", "echo one\n"),
    ],
)
def test_fc(llmos: Any, command: str, out: str, err: str) -> None:
    done = llmos("-c", command)
    assert (done.returncode, done.stdout, done.stderr) == (0, out, err)


@pytest.mark.usefixtures("typed")
@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("fc -s nope", 1, "fc: nope: no such entry: `fc -l` shows them"),
        ("fc -l 9", 1, "fc: 9: no such entry: `fc -l` shows them"),
        ("fc -z", 2, "fc: usage: fc [-r] [-e EDITOR]"),
        ("fc -e", 2, "fc: -e needs an EDITOR"),
        ("fc -e false 1", 1, "fc: false: exit status 1: nothing is run"),
        ("history -c; fc -s", 1, "fc: the last one: no such entry"),
    ],
)
def test_fc_misused(llmos: Any, command: str, status: int, message: str) -> None:
    done = llmos("-c", command)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"llmos: {message}") and done.stderr.count("\n") == 1
