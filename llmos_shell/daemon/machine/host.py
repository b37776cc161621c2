"""What the machine has."""

from __future__ import annotations

import psutil
from msgspec import Struct


class Memory(Struct, frozen=True):
    """Main memory in bytes; `available` is what can be had without swapping."""

    total: int
    available: int


def memory() -> Memory:
    """Main memory at this moment."""
    now = psutil.virtual_memory()
    return Memory(int(now.total), int(now.available))
