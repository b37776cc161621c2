"""One daemon per user: the folders, the lock and the listening socket.

Owns `runtime_dir()`. A stale socket is removed only while the lock is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError

BACKLOG = 128


def private_dir(path: str) -> None:
    """Makes a folder that only this user can enter. Raises EACCES when somebody else owns it."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode):
        raise LlmosError(Code.EACCES, f"{path} is not a folder", hint="move it away")
    if info.st_uid != os.getuid():
        text = f"{path} belongs to user {info.st_uid}"
        raise LlmosError(Code.EACCES, text, hint="set LLMOS_HOME to a folder of your own")
    if stat.S_IMODE(info.st_mode) != 0o700:
        os.chmod(path, 0o700)


class Instance:
    """The lock, held until `close`; the kernel releases it however the daemon ends."""

    def __init__(self) -> None:
        private_dir(paths.runtime_dir())
        self._fd = os.open(paths.lock_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._fd, 32).decode(errors="replace").strip()
            os.close(self._fd)
            raise LlmosError(Code.EBUSY, f"a daemon is running already (PID {holder or 'unknown'})") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def listen(self) -> socket.socket:
        """The listening socket, with a socket left behind by a killed daemon out of the way."""
        path = paths.socket_path()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        """Takes the socket away and lets the lock go, in this order."""
        with contextlib.suppress(OSError):
            os.unlink(paths.socket_path())
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
