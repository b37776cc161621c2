"""The working folder and umask, which belong to the whole process, where a subshell runs in it: changes are undone at
the subshell's end, and a thread first gets a folder of its own.
"""

from __future__ import annotations

import os
import sys
import threading

CLONE_FS = 0x200  # linux/sched.h

STATUS = "/proc/thread-self/status"

_local = threading.local()


class Restore:
    """What a subshell has to put back. In the outermost shell nothing is."""

    def __init__(self, *, active: bool = False) -> None:
        self._active = active
        self._folder: int | None = None
        self._umask: int | None = None

    def change_folder(self, path: str) -> None:
        """Like chdir, for this shell only. Raises `OSError`."""
        self._prepare()
        if self._active and self._folder is None:
            self._folder = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
        os.chdir(path)

    def change_umask(self, mask: int) -> None:
        """Like umask, for this shell only."""
        self._prepare()
        before = os.umask(mask)
        if self._active and self._umask is None:
            self._umask = before

    def undo(self) -> None:
        """Puts folder and umask back."""
        if self._folder is not None:
            try:
                os.fchdir(self._folder)
            finally:
                os.close(self._folder)
                self._folder = None
        if self._umask is not None:
            os.umask(self._umask)
            self._umask = None

    def _prepare(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            own_folder()


def present_umask() -> int:
    """The umask of this thread, as the kernel tells it.

    Setting another to learn the present one would let other threads make files with that.
    """
    try:
        with open(STATUS, encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, ValueError, IndexError, StopIteration):  # Linux before 4.7, another system
        present = os.umask(0o077)
        os.umask(present)
        return present


def own_folder() -> None:
    """Gives this thread a working folder and umask of its own. Raises `OSError` where the system cannot do that."""
    if getattr(_local, "own", False):
        return
    if sys.platform != "linux":
        raise OSError(0, "a thread has no working folder of its own on this system")
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_FS) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _local.own = True
