"""Moves the images of processes' KV between RAM and disk, in threads of its own: neither the loop nor a worker waits.

Owns the swap folder and what `tiers` says of places. An image that is lost on the way costs a recomputation, nothing
else: it is verified before an engine sees it, so nothing here needs to be durable but `hibernate`. On disk an image may
be packed (`engine.packed`); each file says so itself, so those of both forms may be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from msgspec import Struct

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import KvState
from llmos_shell.daemon.instance import private_dir
from llmos_shell.daemon.memory.costs import Path
from llmos_shell.daemon.memory.park import TEMPORARY, remove_file
from llmos_shell.daemon.memory.tiers import Place, Tiers
from llmos_shell.daemon.processes.process import Phase, Process
from llmos_shell.engine import packed

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

MOVERS = 2
"""Files moved at the same time: one must not wait for a disk that is slow to write before it may read."""


class Moved(Struct, frozen=True):
    """A file that was copied."""

    source_bytes: int
    target_bytes: int
    seconds: float  # without those that it waited for a thread


NOT_MOVED: Final = Moved(0, 0, 0.0)


class Swap:
    """Images of all processes, wherever they are."""

    def __init__(self, core: Core, ram_limit: int, disk_limit: int, folder: str, compress: bool = False) -> None:
        self._core = core
        self.folder = folder
        self.compress = compress  # what goes to the disk from now on
        self.tiers = Tiers(ram_limit, disk_limit)
        self.problem = ""  # why the disk took no more
        self._movers = ThreadPoolExecutor(MOVERS, "swap")
        self._moves: set[asyncio.Task[Any]] = set()
        self._files = 0

    # -- what the pager asks -------------------------------------------------------------------------------------------

    def new_path(self, process: Process) -> str:
        """Where its next image in RAM goes. Names are not used twice, so that a move cannot take one for another."""
        self._files += 1
        return os.path.join(paths.park_dir(), f"{process.pid}.{self._files}.kv")

    def state(self, process: Process) -> KvState:
        """Where the KV of a process is that is not resident."""
        if process.image:
            return KvState.SWAPPED if self.tiers.place(process.pid) is Place.DISK else KvState.PARKED
        return KvState.DROPPED if process.tokens else KvState.NONE

    def took(self, process: Process, path: str, size: int, tokens: int) -> None:
        """Its image was written into RAM."""
        process.image, process.image_bytes, process.computed = path, size, tokens
        self.tiers.hold(process.pid, size)
        process.kv = KvState.PARKED
        self.spill()

    def discard(self, process: Process) -> None:
        """Deletes its image, if there is one."""
        if process.image:
            remove_file(process.image)
            process.image, process.image_bytes = "", 0
        self.tiers.release(process.pid)

    def coming(self, process: Process) -> bool:
        """Whether its image is on its way from the disk into RAM; starts that if need be and if RAM has room.

        Without room in RAM the worker reads it from the disk.
        """
        tiers, pid = self.tiers, process.pid
        if tiers.place(pid) is not Place.DISK:
            return False
        if not tiers.moving(pid):
            if not tiers.fetch(pid):
                return False
            self._start(self._fetch(process))
        return True

    # -- the disk ------------------------------------------------------------------------------------------------------

    def spill(self) -> None:
        """Moves images to the disk if RAM is fuller than it should be: of sleepers first, then of who runs last."""
        if not self.tiers.crowded or not self.tiers.disk_limit:
            return
        for pid in self.tiers.spill(process.pid for process in self._candidates() if self._pays(process)):
            process = self._core.table.find(pid)
            assert process is not None
            self._start(self._move(process, self._disk_path(process)))

    def set_up(self, folder: str, limit: int, compress: bool) -> None:
        """Swaps to this folder, up to so many bytes. Raises EACCES or the like when nothing can be written there.

        Images that are on disk already stay there as they are.
        """
        check_folder(folder)
        if (folder, compress) != (self.folder, self.compress):
            self._core.costs.forget(Path.WRITE, Path.READ)
        self.folder, self.compress, self.problem = folder, compress, ""
        self.tiers.disk_limit = limit
        self.spill()

    def turn_off(self) -> tuple[int, int]:
        """No images on disk any more: those there are dropped. Returns how many, and of how many tokens."""
        self.tiers.disk_limit = 0
        count = tokens = 0
        for process in self._core.table.live_models():
            if process.image and process.seq is None and self.tiers.place(process.pid) is Place.DISK:
                count, tokens = count + 1, tokens + process.computed
                self.drop(process)
        return count, tokens

    def drop(self, process: Process) -> None:
        """Deletes an image that stood for the KV: it is computed again."""
        self._core.counts.dropped += 1
        self._core.counts.dropped_tokens += process.computed
        self.discard(process)
        process.computed = 0
        process.kv = self.state(process)
        self._core.save(process)

    async def save_all(self) -> tuple[int, list[str]]:
        """Puts every image in RAM on the disk for good, whatever the limit. Returns how many, and what went wrong."""
        await asyncio.gather(*self._moves, return_exceptions=True)
        count, problems = 0, []
        for process in self._core.table.live_models():
            if process.image and self.tiers.place(process.pid) is Place.RAM and not self.tiers.moving(process.pid):
                self.tiers.hold(process.pid, process.image_bytes)
                limit, self.tiers.disk_limit = self.tiers.disk_limit, 1 << 62
                self.tiers.leave(process.pid)
                self.tiers.disk_limit = limit
                problem = await self._move(process, self._disk_path(process), durable=True)
                count += not problem
                if problem:
                    problems.append(problem)
        return count, problems

    def close(self) -> None:
        """No more moves."""
        self._movers.shutdown(wait=False, cancel_futures=True)

    # -- private -------------------------------------------------------------------------------------------------------

    def _start(self, move: Coroutine[Any, Any, Any]) -> None:
        task = self._core.spawn_task(move)
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)

    async def _fetch(self, process: Process) -> None:
        await self._move(process, self.new_path(process))
        if process.alive:
            self._core.residency.replan(process)

    async def _move(self, process: Process, target: str, *, durable: bool = False) -> str:
        """Moves one image; returns what went wrong. Whatever happened to the process meanwhile takes precedence."""
        core, tiers, pid, source = self._core, self.tiers, process.pid, process.image
        out = tiers.place(pid) is Place.RAM
        problem, moved = "", NOT_MOVED
        try:
            moved = await core.loop.run_in_executor(
                self._movers, copy_file, source, target, out and self.compress, durable
            )
        except (OSError, RuntimeError, LlmosError) as error:
            problem = getattr(error, "strerror", None) or str(error)
        same = process.image == source and process.alive and tiers.moving(pid)
        wanted = same and process.seq is None
        if same:
            tiers.arrived(pid, wanted and not problem, moved.target_bytes)
        if problem:
            if wanted:
                self._failed(process, out, problem)
            return problem
        if not wanted:
            remove_file(target)
            return ""
        remove_file(source)
        process.image = target
        process.kv = self.state(process)
        self._count(out, moved)
        core.save(process)
        process.notify()
        if out and moved.target_bytes < moved.source_bytes:  # there is more room than when it set out
            self.spill()
        return ""

    def _failed(self, process: Process, out: bool, problem: str) -> None:
        if not out:
            self._core.events.warning("swap", f"its KV cannot be read back ({problem}): recomputed", process.pid)
            self.drop(process)
        elif not self.problem:
            self.problem = f"{self.folder}: {problem}"
            self.tiers.disk_limit = min(self.tiers.disk_limit, self.tiers.disk_used)
            held = f"{self.tiers.disk_used / 2**20:,.1f} MiB"
            self._core.events.warning("swap", f"cannot write {self.problem}; it holds {held}; `swapon` tries again")

    def _count(self, out: bool, moved: Moved) -> None:
        """Counts bytes of the disk; what moving costs is told of those of the image."""
        counts, costs = self._core.counts, self._core.costs
        if out:
            counts.swapped_out += 1
            counts.swapped_out_bytes += moved.target_bytes
            costs.note(Path.WRITE, moved.source_bytes, moved.seconds)
        else:
            counts.swapped_in += 1
            counts.swapped_in_bytes += moved.source_bytes
            costs.note(Path.READ, moved.target_bytes, moved.seconds)

    def _candidates(self) -> Iterator[Process]:
        """Processes with an image in RAM: sleeping ones, longest asleep first, then those that will run last."""
        parked = [p for p in self._core.table.live_models() if p.image and self.tiers.place(p.pid) is Place.RAM]
        parked = [p for p in parked if p.seq is None]
        asleep = [p for p in parked if p.phase is not Phase.READY or p.stopped]
        yield from sorted(asleep, key=lambda p: p.rate_since)
        waiting = {p.pid: p for p in parked if p.phase is Phase.READY and not p.stopped}
        for conductor in self._core.residency.all():
            known = [pid for pid in waiting if pid in conductor.scheduler]
            for pid in conductor.scheduler.victims(known, self._core.now()):
                yield waiting.pop(pid)
        yield from waiting.values()

    def _pays(self, process: Process) -> bool:
        """Whether the disk is worth it; drops the image when computing again is quicker than reading it."""
        conductor = self._core.residency.find(process.model)
        rate = conductor.planner.prefill_rate if conductor is not None else 0.0
        pays = self._core.costs.keeps(process.image_bytes, process.computed, rate, disk=True)
        if not pays:
            self.drop(process)
        return pays

    def _disk_path(self, process: Process) -> str:
        self._files += 1
        return os.path.join(self.folder, f"{process.pid}.{self._files}.kv")


def copy_file(source: str, target: str, compress: bool, durable: bool) -> Moved:
    """Copies an image under a temporary name first, into a folder that is made if need be; unpacks one that is packed.

    Raises OSError, and EIO for a packed image that is damaged; nothing is left behind then.
    """
    temporary, begun = target + TEMPORARY, time.perf_counter()
    try:
        with open(source, "rb") as file:
            private_dir(os.path.dirname(target))
            with open(temporary, "wb") as copy:
                _transfer(file, copy, compress)
                copy.flush()
                sizes = os.fstat(file.fileno()).st_size, copy.tell()
                if durable:
                    os.fsync(copy.fileno())
        os.replace(temporary, target)
    except BaseException:
        remove_file(temporary)
        raise
    if durable:
        sync_folder(os.path.dirname(target))
    return Moved(*sizes, time.perf_counter() - begun)


def _transfer(source: BinaryIO, target: BinaryIO, compress: bool) -> None:
    """Packs where that gains something, unpacks what is packed, else copies."""
    if packed.is_packed(source):
        packed.unpack(source, target, str(source.name))
        return
    if compress:
        size = os.fstat(source.fileno()).st_size
        if packed.pack(source, target, size) < size:
            return
        source.seek(0)
        target.seek(0)
        target.truncate()
    shutil.copyfileobj(source, target, packed.BLOCK_BYTES)


def sync_folder(folder: str) -> None:
    """Has the names of new files survive a power cut, where the file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_folder(folder: str) -> None:
    """Makes the folder if need be. Raises EACCES when nothing can be written there."""
    try:
        private_dir(folder)
        probe = os.path.join(folder, f"probe{TEMPORARY}")
        with open(probe, "wb"):
            pass
        remove_file(probe)
    except OSError as error:
        text = f"cannot swap to {folder}: {(error.strerror or str(error)).lower()}"
        raise LlmosError(Code.EACCES, text, hint="choose a folder of yours on a disk") from error
