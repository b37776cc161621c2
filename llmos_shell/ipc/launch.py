"""Starting the daemon on first use, the way tmux starts its server."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError

READY_SECONDS = 30.0
"""How long a daemon may take to come up, a replay of its journal included, before the user is told."""

_LOCK_SECONDS = 0.2
_RETRY_SECONDS = 0.02


def start_daemon(open_socket: Callable[[], socket.socket | None]) -> socket.socket:
    """Starts a daemon in a session of its own and connects to it once it says it is ready.

    The daemon writes `ready` to the pipe given as `--ready-fd`, or its one-line reason for not starting, with `busy`
    before it if another one has the lock. That may be the winner of a race, whose socket is used as soon as it listens,
    or one that is about to end, after which another one is started.
    """
    begun, said = time.monotonic(), "busy"
    while said.startswith("busy") and time.monotonic() - begun < READY_SECONDS:
        said = _launch()
        sock = _await_listener(open_socket)
        if sock is not None:
            return sock
    reason = said.removeprefix("ready").removeprefix("busy").strip() or "it said nothing"
    hint = f"its log is {paths.log_path()}" if os.path.exists(paths.log_path()) else ""
    raise LlmosError(Code.EIO, f"the daemon did not start: {reason}", hint=hint)


def _await_listener(open_socket: Callable[[], socket.socket | None]) -> socket.socket | None:
    """A connection, once somebody listens; None when nobody is about to."""
    begun = time.monotonic()
    sock = open_socket()
    while sock is None and _is_coming(time.monotonic() - begun):
        time.sleep(_RETRY_SECONDS)
        sock = open_socket()
    return sock


def _launch() -> str:
    """Runs the daemon and returns what it said."""
    reader, writer = os.pipe()
    try:
        try:
            _spawn(writer)
        finally:
            os.close(writer)
        return _read_all(reader)
    finally:
        os.close(reader)


def _spawn(writer: int) -> None:
    argv = [sys.executable, "-P", "-m", "llmos_shell.daemon", "--auto", "--ready-fd", str(writer)]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writer,),
        start_new_session=True,
        cwd="/",
    )
    process.returncode = 0  # it outlives this process on purpose: nobody waits for it, and Popen need not complain


def daemon_lives() -> bool:
    """Whether a daemon holds the lock: one that runs, starts or is about to end."""
    try:
        with open(paths.lock_path()) as lock:
            os.kill(int(lock.read()), 0)
    except (OSError, ValueError):
        return False
    return True


def _is_coming(waited: float) -> bool:
    """Whether another daemon may listen soon: one that holds the lock, or is just taking it."""
    return waited < (READY_SECONDS if daemon_lives() else _LOCK_SECONDS)


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
