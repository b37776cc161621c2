"""The scripts of examples/ run to their end with the built-in model, and say what is wrong with wrong arguments."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import PROC_LIST, SYS_STOP, List, Stop
from llmos_shell.ipc.client import connect

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.llmsh"))

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(llmos_home: Path, tmp_path: Path) -> Iterator[Script]:
    """Runs one by its first line, as a user does, in a folder of its own; nothing of it is left behind."""
    (llmos_home / "config" / "models.toml").unlink()
    folder, scratch = tmp_path / "work", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TMPDIR": str(scratch)}

    def run(name: str, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(EXAMPLES / name), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=folder,
            env={**environment, **variables},
            timeout=110,
            check=False,
        )

    yield run
    with suppress(LlmosError), connect("test", start=False) as client:
        left = client.call(PROC_LIST, List(sessions=False))
        client.call(SYS_STOP, Stop())
        assert not left, f"processes are left: {left}"
    assert not list(scratch.iterdir()), "temporary files are left"


def test_the_readme_names_all_of_them() -> None:
    assert sorted(set(re.findall(r"\(([a-z]+\.llmsh)\)", (EXAMPLES / "README.md").read_text()))) == SCRIPTS
    assert len(SCRIPTS) >= 6


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_is_good_shell(name: str, script: Script) -> None:
    path = str(EXAMPLES / name)
    assert os.access(path, os.X_OK)
    for words in (["-n", path], ["fmt", "--check", "--diff", path]):
        done = subprocess.run(
            [sys.executable, "-m", "llmos_shell", *words], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    usage = script(name, "-h")
    assert (usage.returncode, usage.stderr) == (0, "") and usage.stdout.startswith(f"usage: {name} ")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["write.llmsh"], 2, "TOPIC is missing"),
        (["write.llmsh", "-n", "0", "tea"], 2, "-n 0: must be from 1 to 9"),
        (["write.llmsh", "-x"], 2, "-x: unknown option"),
        (["write.llmsh", "-o", "no/such/folder", "tea"], 1, "no/such/folder: there is no such folder"),
        (["translate.llmsh", "German"], 2, "LANGUAGE and FILE are needed"),
        (["translate.llmsh", "-j", "x", "German", "a"], 2, "-j x: must be from 1 to 99"),
        (["translate.llmsh", "German", "no-such-file"], 1, "no-such-file: is no file that can be read"),
        (["answer.llmsh"], 2, "FILE is missing"),
        (["answer.llmsh", "no-such-file", "--", "why?"], 1, "no-such-file: is no file that can be read"),
        (["answer.llmsh", "/etc/passwd"], 2, "there is no question"),
        (["answer.llmsh", "-q", "no-such-file", "/etc/passwd"], 1, "no-such-file: cannot be read"),
        (["code.llmsh"], 2, "TASK is missing"),
        (["code.llmsh", "-o", "no/such/file", "add"], 1, "no/such/file: there is no such folder"),
        (["nightly.llmsh"], 2, "FOLDER is needed"),
        (["nightly.llmsh", "no-such-folder"], 1, "no-such-folder: is no folder"),
        (["best.llmsh"], 2, "QUESTION is missing"),
        (["best.llmsh", "-n", "99", "why?"], 2, "-n 99: must be from 2 to 16"),
    ],
)
def test_a_mistake_is_said_in_one_line(script: Script, words: list[str], status: int, message: str) -> None:
    done = script(*words)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(f"{words[0]}: {message}") and done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["write.llmsh", "best.llmsh"])
def test_a_model_that_is_not_there_ends_it(script: Script, name: str) -> None:
    done = script(name, "tea", LLMOS_MODEL="no-such-model")
    assert done.returncode == 1 and "no-such-model" in done.stderr, done.stderr


def test_an_article_is_written(script: Script, tmp_path: Path) -> None:
    done = script("write.llmsh", "-n", "2", "-o", "tea.md", "tea", "and cake")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    lines = (tmp_path / "work" / "tea.md").read_text().splitlines()
    assert lines[0] == "# tea and cake" and sum(line.startswith("## ") for line in lines) == 2


def test_texts_are_translated_and_code_is_kept(script: Script, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "a b.md").write_text("# One\n\nlist processes\n\n```sh\nps  -a\n\nps\n```\n\nshow models")
    done = script("translate.llmsh", "-j", "2", "German", "a b.md", "missing.md")
    assert done.returncode == 1 and done.stdout == "a b.md.German\n"
    assert done.stderr == "translate.llmsh: missing.md: is no file that can be read\n"
    assert "\n\n```sh\nps  -a\n\nps\n```\n\n" in (work / "a b.md.German").read_text()


def test_questions_about_files_are_answered(script: Script, tmp_path: Path) -> None:
    (tmp_path / "work" / "tea.txt").write_text("Tea is green.\nOr black.\n\nCake is sweet.\n")
    done = script("answer.llmsh", "-q", "-", "tea.txt", "--", "What", "is sweet?", stdin="Which colour has tea?\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^Q: (.*)\nA: ", done.stdout, re.MULTILINE) == ["What is sweet?", "Which colour has tea?"]


def test_a_program_is_written_and_reviewed(script: Script, tmp_path: Path) -> None:
    done = script("code.llmsh", "-t", "2", "-o", "add.py", "add two numbers")
    assert done.returncode in (0, 3) and done.stdout == "add.py add.py.review\n", done.stderr
    assert (tmp_path / "work" / "add.py").exists() and (tmp_path / "work" / "add.py.review").exists()


def test_a_night_goes_on_where_it_ended(script: Script, tmp_path: Path) -> None:
    folder = tmp_path / "work" / "my notes"
    folder.mkdir()
    for name in ("a.txt", "b c.md", "ignored.log", "empty.txt"):
        (folder / name).write_text("" if name == "empty.txt" else "list processes by memory\n")
    first = script("nightly.llmsh", "my notes/")
    assert (first.returncode, first.stderr) == (0, "")
    assert sorted(line.split(" ", 1)[1] for line in first.stdout.splitlines()) == ["my notes/a.txt", "my notes/b c.md"]
    assert sorted(path.name for path in folder.glob("*.summary")) == ["a.txt.summary", "b c.md.summary"]
    assert not (folder / ".nightly").exists()
    again = script("nightly.llmsh", "my notes")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    (folder / ".nightly").mkdir()
    busy = script("nightly.llmsh", "my notes")
    assert busy.returncode == 75 and "another one works there" in busy.stderr


def test_the_best_of_several_copies(script: Script) -> None:
    done = script("best.llmsh", "-v", "-n", "3", "how do I list processes")
    assert (done.returncode, done.stderr) == (0, "")
    points = [int(number) for number in re.findall(r"^ ?(\d+) points, process \d+:$", done.stdout, re.MULTILINE)]
    assert len(points) == 3 and f"--- the best, with {max(points)} points:" in done.stdout
