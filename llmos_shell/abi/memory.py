"""The syscalls about memory: pools, pages, images in RAM and on disk, checkpoints. Sizes are bytes, lengths tokens."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from llmos_shell.abi.syscall import Nothing, Pid, Syscall
from llmos_shell.abi.types import KvState


class PoolInfo(Struct, frozen=True):
    """The KV pool of one worker, in pages of `page_tokens`."""

    model: str
    pages: int
    used_pages: int
    shared_pages: int
    cached_pages: int  # held only for prefix reuse
    page_tokens: int
    page_bytes: int
    slots: int
    used_slots: int
    parked_bytes: int
    layout: str
    swapped_bytes: int = 0
    waste_tokens: int = 0  # room in used pages that holds no KV


class MemoryInfo(Struct, frozen=True):
    """What `free` shows; bytes."""

    ram_total: int
    ram_available: int
    park_used: int
    park_limit: int
    pools: tuple[PoolInfo, ...]
    swap_used: int = 0  # of the disk
    swap_limit: int = 0  # 0: off
    swap_folder: str = ""
    swap_problem: str = ""  # why the disk took no more
    swap_packed: int = 0  # of the disk, those of images that are there already …
    swap_unpacked: int = 0  # … and what these are in RAM: more, where they are compressed


class MemoryCounts(Struct):
    """What happened to KV since the daemon started."""

    parked: int = 0
    parked_bytes: int = 0
    restored: int = 0
    restored_bytes: int = 0
    swapped_out: int = 0
    swapped_out_bytes: int = 0
    swapped_in: int = 0
    swapped_in_bytes: int = 0
    dropped: int = 0
    dropped_tokens: int = 0
    recomputed_tokens: int = 0
    reused_tokens: int = 0  # of prefixes, forks and images, that need not be computed


class MemoryStat(MemoryCounts, kw_only=True):
    """The same, what there is now, and how fast KV moves in bytes per second (0: unknown)."""

    running: int = 0
    waiting: int = 0
    free_pages: int = 0
    used_pages: int = 0
    cached_pages: int = 0
    park_used: int = 0
    swap_used: int = 0  # of the disk
    swap_packed: int = 0  # see `MemoryInfo`
    swap_unpacked: int = 0
    export_rate: float = 0.0
    restore_rate: float = 0.0
    write_rate: float = 0.0
    read_rate: float = 0.0


class Extent(Struct, frozen=True):
    """A run of a process's context that is kept in one way."""

    start: int  # token
    tokens: int
    kind: str  # `shared`, `own`, `parked`, `swapped` or `absent` (to be computed)
    pages: int = 0
    users: int = 0  # processes that reference these pages, this one included
    path: str = ""  # of the image


class Map(Struct, frozen=True):
    """Where the KV of one process is (`pmap`)."""

    pid: int
    kv: KvState
    page_tokens: int  # 0 while its model is not loaded
    bytes_per_token: int
    extents: tuple[Extent, ...]
    waste_tokens: int = 0  # room in its pages that holds no KV


class SwapOn(Struct, frozen=True, omit_defaults=True):
    """Swaps to a folder on disk, up to so many bytes; None keeps what is in force, or the default."""

    folder: str | None = None  # absolute
    limit: int | None = None
    compress: bool | None = None


class SwapInfo(Struct, frozen=True):
    """The swap space."""

    folder: str
    used: int
    limit: int
    free: int  # on that disk
    images: int
    problem: str = ""
    dropped: int = 0  # images that `swapoff` gave up
    dropped_tokens: int = 0
    compress: bool = False  # what goes there from now on
    packed: int = 0  # of the disk, those of images that are there already …
    unpacked: int = 0  # … and what these are in RAM: more, where they are compressed


MEM_INFO: Final = Syscall("mem.info", "show memory and KV pools", Nothing, MemoryInfo, "sys.read")
MEM_STAT: Final = Syscall("mem.stat", "count what happened to KV", Nothing, MemoryStat, "sys.read")
MEM_MAP: Final = Syscall("mem.map", "show where a process's KV is", Pid, Map, "proc.read")
MEM_SWAP: Final = Syscall("mem.swap", "show the swap space", Nothing, SwapInfo, "sys.read")
MEM_SWAPON: Final = Syscall("mem.swapon", "swap KV to a folder on disk", SwapOn, SwapInfo, "sys.admin")
MEM_SWAPOFF: Final = Syscall("mem.swapoff", "give up the swap space", Nothing, SwapInfo, "sys.admin")


class Checkpoint(Struct, frozen=True, omit_defaults=True):
    """Writes a process to a file, which goes on meanwhile; with `tree` its descendants as well."""

    pid: int
    path: str  # absolute
    tree: bool = False


class Checkpointed(Struct, frozen=True):
    """What a checkpoint came to."""

    path: str
    pids: tuple[int, ...]
    tokens: int
    kv_tokens: int  # of these, the KV is in the file
    bytes: int  # of the file
    written: int  # that were new


class Restore(Struct, frozen=True, omit_defaults=True):
    """Makes processes of a checkpoint file. They get new PIDs and go on where they were.

    With `reread`, a model of other weights reads the conversations again from their text.
    """

    path: str  # absolute
    model: str = ""  # "": of the name in the file
    reread: bool = False
    detached: bool = False


class Restored(Struct, frozen=True):
    """One process that came out of a checkpoint."""

    pid: int
    former_pid: int
    name: str
    state: str
    tokens: int
    reused_tokens: int  # whose KV came from the file
    recomputed_tokens: int  # that are computed again when it runs
    note: str = ""


class RestoredAll(Struct, frozen=True):
    """All of them."""

    created: float  # when the checkpoint was made
    processes: tuple[Restored, ...]
    note: str = ""


class Hibernated(Struct, frozen=True):
    """What `sys.hibernate` put on the disk; the daemon ends then."""

    processes: int
    images: int
    tokens: int
    bytes: int
    recomputed_tokens: int  # of processes whose KV could not be kept
    problems: tuple[str, ...] = ()


PROC_CHECKPOINT: Final = Syscall("proc.checkpoint", "write a process to a file", Checkpoint, Checkpointed, "proc.read")
PROC_RESTORE: Final = Syscall("proc.restore", "make processes of a file", Restore, RestoredAll, "proc.spawn")
SYS_HIBERNATE: Final = Syscall("sys.hibernate", "put everything on the disk and stop", Nothing, Hibernated, "sys.admin")
