"""Where the images of processes' KV are: in RAM or on disk, how much each may hold, and who moves next. Pure.

Owns sizes and places by PID; the files are moved by `memory.swap`. Bytes throughout.

An image is born in RAM. With a disk to go to, RAM may for a while hold a little more than its limit (`transit`), so
that taking memory from a process never waits for the disk. While an image moves, it counts in both places. On the disk
it may be packed: how small it is there is known once it has arrived, until then it counts as large as in RAM.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from msgspec import Struct

HIGH = 0.85
"""Share of RAM's limit above which images move to disk …"""

LOW = 0.65
"""… until so much is held, or on its way out."""

MIN_TRANSIT = 64 << 20


class Place(Enum):
    """A tier."""

    RAM = "ram"
    DISK = "disk"


class _Held(Struct):
    size: int  # in RAM
    packed: int  # on disk
    place: Place = Place.RAM
    target: Place | None = None  # while it moves


class Swapped(Struct, frozen=True):
    """What is on the disk, without what is on its way there."""

    images: int = 0
    bytes: int = 0  # on the disk
    image_bytes: int = 0  # that they will take in RAM


class Tiers:
    """Two budgets, and what is in them. Every operation on one image is O(1)."""

    def __init__(self, ram_limit: int, disk_limit: int) -> None:
        self.ram_limit = ram_limit
        self.disk_limit = disk_limit
        self.ram_used = 0  # promised images and those on their way to or from RAM included
        self.disk_used = 0  # those on their way to or from the disk included
        self._leaving = 0  # of those in RAM, on their way to the disk
        self._held: dict[int, _Held] = {}

    # -- figures

    def size(self, pid: int) -> int:
        """Bytes that a process's image takes where it is; 0 when it has none."""
        held = self._held.get(pid)
        if held is None:
            return 0
        return held.packed if held.place is Place.DISK else held.size

    def swapped(self) -> Swapped:
        """What is on the disk; counts it through."""
        there = [held for held in self._held.values() if held.place is Place.DISK]
        return Swapped(len(there), sum(held.packed for held in there), sum(held.size for held in there))

    def place(self, pid: int) -> Place | None:
        """Where the image is, or still is while it moves."""
        held = self._held.get(pid)
        return held.place if held is not None else None

    def moving(self, pid: int) -> bool:
        """Whether it is on its way to the other place."""
        held = self._held.get(pid)
        return held is not None and held.target is not None

    # -- coming and going

    def reserve(self, pid: int, size: int) -> bool:
        """Promises room in RAM for a new image; False when there is none. Replaces the process's former one."""
        held = self._held.get(pid)
        own = held.size if held is not None and Place.RAM in (held.place, held.target) else 0
        if self.ram_used - own + size > self.ram_limit + self._transit(size):
            return False
        self.hold(pid, size)
        return True

    def hold(self, pid: int, size: int, place: Place = Place.RAM, packed: int | None = None) -> None:
        """The image is there and has this size, on disk that of `packed`, whatever was promised."""
        self.release(pid)
        held = self._held[pid] = _Held(size, size if packed is None or place is Place.RAM else packed, place)
        self._count(held, 1)

    def release(self, pid: int) -> None:
        """The image is gone, also when it was just moving."""
        held = self._held.pop(pid, None)
        if held is not None:
            self._count(held, -1)

    # -- moving

    def spill(self, order: Iterable[int]) -> list[int]:
        """Whose images should move to disk now, of these processes in this order; they count as moving at once."""
        if not self.crowded:
            return []
        moves: list[int] = []
        for pid in order:
            if self.ram_used - self._leaving <= LOW * self.ram_limit:
                break
            if self.leave(pid):
                moves.append(pid)
        return moves

    @property
    def crowded(self) -> bool:
        """Whether images should move to disk."""
        return self.ram_used - self._leaving > HIGH * self.ram_limit

    def leave(self, pid: int) -> bool:
        """Sends one image to disk; False when it is not in RAM or the disk has no room for it."""
        held = self._held.get(pid)
        if held is None or held.place is not Place.RAM or held.target is not None:
            return False
        if self.disk_used + held.size > self.disk_limit:
            return False
        self._turn(held, Place.DISK)
        return True

    def fetch(self, pid: int) -> bool:
        """Has an image come back into RAM; False when it is not on disk or RAM has no room for it."""
        held = self._held.get(pid)
        if held is None or held.place is not Place.DISK or held.target is not None:
            return False
        if self.ram_used + held.size > self.ram_limit + self._transit(0):
            return False
        self._turn(held, Place.RAM)
        return True

    def arrived(self, pid: int, ok: bool, packed: int | None = None) -> None:
        """A move has ended: the image is at its target, on disk with the size of `packed`, or still where it was."""
        held = self._held.get(pid)
        if held is not None and held.target is not None:
            self._count(held, -1)
            if ok:
                held.place = held.target
                held.packed = held.size if packed is None or held.place is Place.RAM else packed
            held.target = None
            self._count(held, 1)

    # -- private

    def _turn(self, held: _Held, target: Place) -> None:
        self._count(held, -1)
        held.target = target
        self._count(held, 1)

    def _count(self, held: _Held, sign: int) -> None:
        if Place.RAM in (held.place, held.target):
            self.ram_used += sign * held.size
        if Place.DISK in (held.place, held.target):
            self.disk_used += sign * held.packed
        if held.target is Place.DISK:
            self._leaving += sign * held.size

    def _transit(self, size: int) -> int:
        """How far RAM may exceed its limit on the way to or from a disk that has room for `size` more."""
        if self.disk_used + size > self.disk_limit:
            return 0
        return max(MIN_TRANSIT, self.ram_limit // 4)
