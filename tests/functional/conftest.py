"""Running the real `llmos`, as a user would: its own process, its own LLMOS_HOME."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import SYS_STOP, Stop
from llmos_shell.ipc.client import connect

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def llmos(llmos_home: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs `llmos WORD…` in an empty folder; `stdin` is text or bytes, by default empty."""
    folder = tmp_path / "work"
    folder.mkdir()

    def run(*words: str, stdin: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "llmos_shell", *words],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            cwd=folder,
            env={**os.environ, **environment},
            timeout=100,
            check=False,
        )
        return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())

    yield run
    marker = request.node.get_closest_marker("llmos")
    if marker and marker.kwargs.get("shared"):
        return
    with suppress(LlmosError), connect("test", start=False) as client:
        client.call(SYS_STOP, Stop())  # the one that a command started
