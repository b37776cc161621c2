"""Where images of KV are kept, and how much may be: the limits, and the cleaning of the folders."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection

from llmos_shell import paths
from llmos_shell.daemon.instance import private_dir
from llmos_shell.engine.arenas import SPARE

RAM_SHARE = 0.25
"""Share of the machine's memory that parked images may occupy."""

DISK_SHARE = 0.1
"""Share of the disk's free space that swapped images may occupy."""

TEMPORARY = ".tmp"
"""What the path of an image ends with while it is written (also in `engine.images`)."""


def ram_limit(ram_total: int) -> int:
    """Bytes of images in RAM; LLMOS_PARK_BYTES overrides it."""
    override = os.environ.get("LLMOS_PARK_BYTES")
    return int(override) if override else int(ram_total * RAM_SHARE)


def disk_limit(folder: str) -> int:
    """Bytes of images on disk; LLMOS_SWAP_BYTES overrides it."""
    override = os.environ.get("LLMOS_SWAP_BYTES")
    return int(override) if override else int(disk_free(folder) * DISK_SHARE)


def compresses() -> bool:
    """Whether images on disk are compressed, as LLMOS_SWAP_COMPRESS says; they are not by themselves."""
    return os.environ.get("LLMOS_SWAP_COMPRESS", "") not in ("", "0")


def disk_free(folder: str) -> int:
    """Free bytes where this folder is, or will be; 0 when nobody knows."""
    while folder and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    try:
        return shutil.disk_usage(folder or "/").free
    except OSError:
        return 0


def clean(keep: Collection[str]) -> None:
    """Makes the folder in RAM, and removes what no living process refers to, on disk as well."""
    private_dir(paths.park_dir())
    clean_spares()
    for folder in (paths.park_dir(), paths.swap_dir()):
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                if path not in keep:
                    remove_file(path)


def clean_spares(worker: int | None = None) -> None:
    """Removes what a worker that has ended kept for further images, by its PID on the host; None: what all kept."""
    folder = _spare_dir()
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if worker is None or name.startswith(f"{worker}."):
                remove_file(os.path.join(folder, name))


def leave() -> None:
    """Removes the folders in RAM if no image is left in them."""
    clean_spares()
    for folder in (_spare_dir(), paths.park_dir()):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _spare_dir() -> str:
    return os.path.join(paths.park_dir(), SPARE)


def file_size(path: str) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def remove_file(path: str) -> None:
    """Deletes a file that may be gone already."""
    with contextlib.suppress(OSError):
        os.unlink(path)
