"""Scripts as a user runs them: where messages say an error is, options of the command line, bad input."""

from __future__ import annotations

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
