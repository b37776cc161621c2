"""Starting the daemon on first use, the way tmux starts its server."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError

READY_SECONDS = 30.0


def start_daemon(open_socket: Callable[[], socket.socket | None]) -> socket.socket:
    """Starts a daemon in a session of its own and connects to it once it says it is ready.

    The daemon writes `ready` to the pipe given as `--ready-fd`, or its one-line reason for not starting. Losing a race
    against another starter is no error: the winner's socket is used.
    """
    reader, writer = os.pipe()
    try:
        argv = [sys.executable, "-P", "-m", "llmos_shell.daemon", "--auto", "--ready-fd", str(writer)]
        subprocess.Popen(  # noqa: S603
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writer,),
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(writer)
    try:
        said = _read_all(reader)
    finally:
        os.close(reader)
    sock = open_socket()
    if sock is None:
        reason = said.removeprefix("ready").strip() or f"see {paths.log_path()}"
        raise LlmosError(Code.EIO, f"the daemon did not start: {reason}")
    return sock


def _read_all(reader: int) -> str:
    """What the daemon said until it closed the pipe or was ready."""
    said = b""
    while not said.startswith(b"ready"):
        ready, _, _ = select.select([reader], [], [], READY_SECONDS)
        data = os.read(reader, 4096) if ready else b""
        if not data:
            break
        said += data
    return said.decode(errors="replace")
