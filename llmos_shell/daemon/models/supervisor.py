"""Starting a worker: from the kernel's manifest to `Ready`, and telling a slow one from a hung one.

Owns no worker: the link it returns is the caller's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import structs

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon.memory.offload import Offload
from llmos_shell.daemon.models import kernels
from llmos_shell.daemon.models.link import WorkerLink

if TYPE_CHECKING:
    from llmos_shell.daemon.models.needs import Need

STALL_SECONDS = float(os.environ.get("LLMOS_WORKER_STALL_SECONDS", "60"))
"""A worker that should compute, but neither says anything nor uses CPU time nor reads for so long, is hung."""

KILL_SECONDS = 5.0
"""How long the end of a worker that was killed is waited for."""


async def start_worker(
    entry: ModelEntry,
    on_message: Callable[[abi.ToDaemon], None],
    on_lost: Callable[[str], None],
    on_progress: Callable[[int, int], None] | None = None,
    need: Need | None = None,
    on_begun: Callable[[WorkerLink], None] | None = None,
) -> tuple[WorkerLink, abi.Ready]:
    """A worker with its model loaded, where `need` says; `on_message` and `on_lost` hear of what comes after.

    `on_begun` gets the link to it before, to measure it by, and no message is to be sent through that; `on_progress` is
    told how many bytes of the weights have been read, and of how many. Raises what the worker failed with (ENOEXEC,
    ENOMEM …), EIO when it died or hung, EPROTO for another version. Whenever it raises, the worker has gone, and its
    memory is free.
    """
    offload = need.offload if need is not None else None
    load = structs.replace(load_message(entry, offload), room=need.room if need is not None else None)
    handshake = _Handshake(load, entry, on_message, on_lost, on_progress)
    manifest = kernels.manifest_named(entry.kernel)
    link = WorkerLink(entry.name, handshake.message, handshake.lost)
    handshake.link = link
    try:
        shown = {"CUDA_VISIBLE_DEVICES": ",".join(offload.uuids)} if offload is not None and offload.uuids else {}
        await link.start(kernels.argv_of(manifest), shown)
        if on_begun is not None:
            on_begun(link)
        ready = await _watched(handshake, link)
        handshake.release()
    except OSError as error:
        raise LlmosError(Code.ENOEXEC, f"kernel {entry.kernel} cannot be started: {error}") from None
    except BaseException:
        handshake.ready.cancel()
        link.kill()
        await asyncio.wait([handshake.gone], timeout=KILL_SECONDS if link.connected else 0)
        raise
    return link, ready


class _Handshake:
    """Listens until `Ready`, then steps aside."""

    def __init__(
        self,
        load: abi.Load,
        entry: ModelEntry,
        on_message: Callable[[abi.ToDaemon], None],
        on_lost: Callable[[str], None],
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._load, self._entry = load, entry
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_progress = on_progress
        self.ready: asyncio.Future[abi.Ready] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.link: WorkerLink | None = None
        self._released = False
        self._lost = ""

    def release(self) -> None:
        """The worker is somebody's from now on. Raises EIO when it has died since it was ready."""
        if self._lost:
            raise LlmosError(Code.EIO, self._lost)
        self._released = True

    def message(self, message: abi.ToDaemon) -> None:
        if self.ready.cancelled():
            return
        if self.ready.done():
            self._on_message(message)
        elif isinstance(message, abi.Hello):
            self._hello(message)
        elif isinstance(message, abi.LoadProgress):
            if self._on_progress is not None:
                self._on_progress(message.read_bytes, message.total_bytes)
        elif isinstance(message, abi.Ready):
            self.ready.set_result(message)
        elif isinstance(message, abi.Failed):
            error = LlmosError(Code(message.code), message.message)
            self.ready.set_exception(kernels.lacks(self._entry.kernel, message.message) or error)

    def lost(self, how: str) -> None:
        if self._released:
            self._on_lost(how)
            return
        lines = self.link.last_lines if self.link is not None else None
        last = lines[-1] if lines else ""
        self._lost = f"the worker of {self._entry.name} died while loading: {how}{f' ({last})' if last else ''}"
        self.gone.set_result(None)
        if not self.ready.done():
            self.ready.set_exception(kernels.lacks(self._entry.kernel, last) or LlmosError(Code.EIO, self._lost))

    def _hello(self, hello: abi.Hello) -> None:
        if hello.protocol != PROTOCOL:
            text = f"kernel {hello.kernel} speaks protocol {hello.protocol}, the daemon {PROTOCOL}"
            self.ready.set_exception(LlmosError(Code.EPROTO, text))
            return
        assert self.link is not None
        self.link.send(self._load)


def load_message(entry: ModelEntry, offload: Offload | None = None) -> abi.Load:
    """What a worker is told of its model."""
    layers = 0 if entry.gpu_layers == "auto" else entry.gpu_layers
    layers, split = (layers, ()) if offload is None else (offload.layers, offload.split)
    return abi.Load(
        PROTOCOL, entry.path, entry.context, entry.kv_type, entry.layout, entry.slots, entry.pool_tokens,
        entry.threads, layers, split, entry.options, entry.draft,
    )  # fmt: skip


async def _watched(handshake: _Handshake, link: WorkerLink) -> abi.Ready:
    """Waits for `Ready` for as long as the worker makes progress."""
    before: tuple[float, int] | None = None
    while True:
        done, _ = await asyncio.wait([handshake.ready], timeout=STALL_SECONDS)
        if done:
            return handshake.ready.result()
        progress = (link.cpu_seconds(), link.read_bytes())
        if progress == before:
            handshake.ready.cancel()
            raise LlmosError(Code.EIO, f"the worker made no progress for {STALL_SECONDS:g} s while loading")
        before = progress
