"""The budget of parked images, and the folder they are in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

from llmos_shell import paths
from llmos_shell.daemon.instance import private_dir

SHARE = 0.25
"""Share of the machine's memory that parked images may occupy."""


class ParkBudget:
    """Bytes of images by process."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[int, int] = {}

    @property
    def used(self) -> int:
        """Bytes held or promised."""
        return sum(self._held.values())

    def reserve(self, pid: int, size: int) -> bool:
        """Promises room for an image; False when it would exceed the limit."""
        if self.used - self._held.get(pid, 0) + size > self.limit:
            return False
        self._held[pid] = size
        return True

    def hold(self, pid: int, size: int) -> None:
        """The image is there and has this size."""
        self._held[pid] = size

    def release(self, pid: int) -> None:
        """The image is gone."""
        self._held.pop(pid, None)


def default_limit(ram_total: int) -> int:
    """The limit in bytes; LLMOS_PARK_BYTES overrides it."""
    override = os.environ.get("LLMOS_PARK_BYTES")
    return int(override) if override else int(ram_total * SHARE)


def clean(keep: Collection[str]) -> None:
    """Makes the folder, and removes what no living process refers to."""
    folder = paths.park_dir()
    private_dir(folder)
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if path not in keep:
            remove_file(path)


def leave() -> None:
    """Removes the folder if no image is left in it."""
    with contextlib.suppress(OSError):
        os.rmdir(paths.park_dir())


def remove_file(path: str) -> None:
    """Deletes a file that may be gone already."""
    with contextlib.suppress(OSError):
        os.unlink(path)
