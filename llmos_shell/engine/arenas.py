"""Files in RAM that hold one image after another: their pages stay allocated, and mapped into the worker. Thread-safe.

A fresh page of tmpfs costs three times as much as copying into one that is there (27 MiB: 9 ms to allocate, 2 to copy),
and mapping them again another copy. So a worker keeps a name of its own for the files of images, in the folder
`SPARE` among them, which it makes where it writes: in RAM. Files on a disk are not kept. An image is published by a
second name; once whoever it was for has removed that, the file may hold the next image. Nothing has to be told for
this: the count of its names says it.

Whoever reads an image by a descriptor while its name may go holds a shared lock (`flock`) on it: such a file is not
used again. The daemon removes the names of workers that have ended. What is kept beyond images in use is bounded.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
from itertools import count
from typing import Final

SPARE: Final = "spare"
"""In this folder are the workers' own names, which are `PID.NUMBER`."""

LEAST_BYTES: Final = 256 << 10
MOST_BYTES: Final = 128 << 20
MOST_FILES: Final = 32
_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)


class Arena:
    """One file, mapped. It has `capacity` bytes, all of them allocated."""

    def __init__(self, name: str, path: str, descriptor: int) -> None:
        self.name = name  # the worker's own
        self.path = path  # the image's
        self.capacity = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def view(self) -> memoryview:
        """All of its bytes."""
        if self._map is None or len(self._map) < self.capacity:
            self._map = mmap.mmap(self._descriptor, self.capacity, flags=_FLAGS)
        return memoryview(self._map)[: self.capacity]

    def resize(self, size: int) -> memoryview:
        """Gives it so many bytes, keeping what is there. Raises ENOSPC: nothing that is mapped may lack a page."""
        if size > self.capacity:
            os.posix_fallocate(self._descriptor, self.capacity, size - self.capacity)
            if self._map is not None and len(self._map) < size:
                self._map = self._longer(self._map, size)
        elif size < self.capacity:
            os.ftruncate(self._descriptor, size)
        self.capacity = size
        return self.view()

    def _longer(self, mapped: mmap.mmap, size: int) -> mmap.mmap | None:
        """The same mapping of more bytes; None where somebody still has a view of it."""
        try:
            mapped.resize(size)
        except (BufferError, SystemError):
            return None
        return mapped

    def seize(self) -> bool:
        """Locks it if nobody has use for what it holds."""
        if os.fstat(self._descriptor).st_nlink != 1:
            return False
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def publish(self, path: str) -> None:
        """Gives it the image's name."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.link(self.name, path)
        self.path = path
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def holds(self, path: str) -> bool:
        """Whether this is the file of that name."""
        if path != self.path:
            return False
        try:
            there, own = os.stat(path), os.fstat(self._descriptor)
        except FileNotFoundError:
            return False
        return (there.st_ino, there.st_dev, there.st_size) == (own.st_ino, own.st_dev, self.capacity)

    def close(self) -> None:
        """Gives up the worker's name. The mapping goes with the last view of it."""
        with contextlib.suppress(OSError):
            os.unlink(self.name)
        os.close(self._descriptor)
        self._map = None


class Arenas:
    """The files of one worker, least recently used first."""

    def __init__(self, least_bytes: int = LEAST_BYTES, most_bytes: int = MOST_BYTES) -> None:
        """Images of fewer than `least_bytes` are not worth it; files beyond `most_bytes` in all are not kept."""
        self.least_bytes = least_bytes
        self._most_bytes = most_bytes
        self._kept: list[Arena] = []
        self._numbers = count(1)
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the files kept."""
        with self._lock:
            return sum(arena.capacity for arena in self._kept)

    def take(self, size: int) -> Arena | None:
        """A file of `size` bytes, locked, with any content; None where there is none to be used again."""
        arena = self._seize(size) if size >= self.least_bytes else None
        if arena is None:
            return None
        try:
            arena.resize(size)
        except OSError:
            arena.close()
            return None
        return arena

    def publish(self, arena: Arena, path: str) -> None:
        """The image in it is complete. Raises OSError; the arena is the caller's then."""
        arena.publish(path)
        self._keep(arena)

    def adopt(self, path: str, *, own: bool = False) -> memoryview | None:
        """The file of an image, mapped and kept; None where it is small, or not to be kept. Raises OSError.

        One of its `own` says where files are kept.
        """
        with self._lock:
            known = next((arena for arena in self._kept if arena.holds(path)), None)
        if known is not None:
            return known.view()
        if os.stat(path).st_size < self.least_bytes:
            return None
        folder = os.path.join(os.path.dirname(path), SPARE)
        try:
            if own:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, mode=0o700)
            name = os.path.join(folder, f"{os.getpid()}.{next(self._numbers)}")
            os.link(path, name)
        except OSError:
            return None
        arena = Arena(name, path, os.open(name, os.O_RDWR | os.O_CLOEXEC))
        view = arena.view()
        self._keep(arena)
        return view

    def close(self) -> None:
        """Gives all of them up."""
        with self._lock:
            while self._kept:
                self._kept.pop().close()

    def _seize(self, size: int) -> Arena | None:
        """The best of those that are free: as large as needed and not much larger, else one that is little smaller."""
        with self._lock:
            fit = [arena for arena in self._kept if 0.75 * size <= arena.capacity <= 2 * size]
            fit.sort(key=lambda arena: (arena.capacity < size, abs(arena.capacity - size)))
            best = next((arena for arena in fit if arena.seize()), None)
            if best is not None:
                self._kept.remove(best)
            return best

    def _keep(self, arena: Arena) -> None:
        with self._lock:
            self._kept.append(arena)
            while len(self._kept) > MOST_FILES or sum(one.capacity for one in self._kept) > self._most_bytes:
                self._kept.pop(0).close()
