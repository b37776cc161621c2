"""The examples of all manuals and topics are run as printed, in a fresh LLMOS_HOME with the built-in model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llmos_shell import paths
from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import SYS_STOP, Stop
from llmos_shell.ipc.client import connect
from llmos_shell.shell import topics
from llmos_shell.shell.command import Example
from llmos_shell.shell.document import Code
from llmos_shell.shell.manuals import all_manuals

FILES = {
    "notes.txt": "list processes by memory\nkill process 12\n",
    "report.md": "# Report\n\nAll is well.\n",
    "notes.md": "# Notes\n",
    "main.py": "print('hello')\n",
    "questions.txt": "how do I pause a process\nhow do I list models\n",
    "answer.schema.json": '{"type": "object", "properties": {"answer": {"type": "string", "maxLength": 8}}}\n',
}
"""What is in the folder where an example is run."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An LLMOS_HOME of this module's examples, whose daemon they start themselves."""
    home = tmp_path_factory.mktemp("home")
    before = os.environ.get("LLMOS_HOME")
    os.environ["LLMOS_HOME"] = str(home)
    yield home
    with suppress(LlmosError), connect("test", start=False) as client:
        client.call(SYS_STOP, Stop())
    shutil.rmtree(paths.park_dir(), ignore_errors=True)
    if before is None:
        del os.environ["LLMOS_HOME"]
    else:
        os.environ["LLMOS_HOME"] = before


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a text as `llmos -c` does."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    argv = [sys.executable, "-m", "llmos_shell", "-c", script]
    return subprocess.run(
        argv,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _examples() -> list[object]:
    return [
        pytest.param(example, id=f"{manual.name}-{number}")
        for manual in all_manuals()
        for number, example in enumerate(manual.examples, 1)
        if not example.untested
    ]


@pytest.mark.parametrize("example", _examples())
def test_an_example_works(example: Example, home: Path, tmp_path: Path) -> None:
    line = re.sub(r"\b12\b", '"$pid"', example.line) if "pid=" in example.before else example.line
    result = run(f"{example.before}\n{line}", tmp_path)
    assert result.returncode == example.status, result.stderr
    if example.output:
        assert result.stdout.rstrip("\n") == example.output


def _blocks() -> list[object]:
    return [
        pytest.param(block.text, id=f"{name}-{number}")
        for name in topics.NAMES
        for number, block in enumerate(topics.topic_blocks(topics.load(name)), 1)
        if isinstance(block, Code) and block.language == "sh"
    ]


@pytest.mark.parametrize("script", _blocks())
def test_an_example_of_a_topic_works(script: str, home: Path, tmp_path: Path) -> None:
    result = run(script, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
