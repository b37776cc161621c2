"""Which models are loaded: loads once for however many wait, refuses what cannot fit, unloads what nobody uses.

Owns the conductors. A process refers to its model by name; while the model is not loaded it has no conductor.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry, ModelStatus
from llmos_shell.abi.worker import Load
from llmos_shell.daemon import host, kernels
from llmos_shell.daemon.conductor import Conductor
from llmos_shell.daemon.process import Phase, Process
from llmos_shell.daemon.supervisor import load_message
from llmos_shell.models.gguf import GgufInfo, read_gguf
from llmos_shell.models.registry import weights_size

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

KEEP_SECONDS = float(os.environ.get("LLMOS_KEEP_SECONDS", "900"))
"""How long a model stays loaded that nobody runs."""

OVERHEAD = 1.1
"""Compute buffers and the like, as a factor on weights and KV."""


class Residency:
    """Loaded models by the key of their entry."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._conductors: dict[str, Conductor] = {}
        self._loading: dict[str, asyncio.Task[Conductor]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def get(self, model: str) -> Conductor:
        """The conductor of a model, loaded first if it is not. Raises ENOENT, ENOEXEC, ENOMEM, EIO.

        One whose entry has changed is loaded anew once nobody runs it; its sleeping chats go on with the new one.
        """
        entry, key = self._resolve(model)
        found = self._conductors.get(key)
        if found is not None:
            if found.busy or _loads(found.entry) == _loads(entry):
                return found
            del self._conductors[key]
        task = self._loading.get(key)
        if task is None:
            task = self._core.loop.create_task(self._load(entry, found))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(task)

    def key_of(self, entry: ModelEntry) -> str:
        """What a process calls its model: the name in models.toml, or the path of weights that are not in there."""
        return entry.name if self._core.registry.has(entry) else entry.path

    def _resolve(self, model: str) -> tuple[ModelEntry, str]:
        """Entry and key of a model. One that is loaded stays what it is when its entry has gone or is broken."""
        try:
            entry = self._core.registry.resolve(model)
        except LlmosError:
            if model not in self._conductors:
                raise
            return self._conductors[model].entry, model
        return entry, self.key_of(entry)

    def find(self, key: str) -> Conductor | None:
        """The conductor of a model if it is loaded."""
        return self._conductors.get(key)

    def all(self) -> list[Conductor]:
        """Conductors of all loaded models."""
        return list(self._conductors.values())

    def loaded(self) -> dict[str, Conductor]:
        """The same, by key."""
        return dict(self._conductors)

    async def unload(self, model: str) -> None:
        """Unloads a model; its processes are kept. Raises EBUSY while some of them want to run."""
        entry, key = self._resolve(model)
        if key in self._loading:
            raise LlmosError(Code.EBUSY, f"{entry.name} is being loaded")
        conductor = self._conductors.get(key)
        if conductor is None:
            raise LlmosError(Code.ENOENT, f"{entry.name} is not loaded")
        busy = sorted(p.pid for p in conductor.members.values() if p.answering)
        if busy:
            pids = ", ".join(map(str, busy))
            text = f"{entry.name} is in use by {pids}"
            raise LlmosError(Code.EBUSY, text, hint="end these processes first, or wait for them")
        await self._unload(conductor)

    def changed(self, process: Process) -> None:
        """A process of some model changed: whether it wants to run, its limits."""
        conductor = self.find(process.model)
        if conductor is not None:
            conductor.changed(process)
            self._watch(conductor)

    def replan(self, process: Process) -> None:
        """Something changed about where a process's KV is."""
        conductor = self.find(process.model)
        if conductor is not None:
            conductor.planner.replan()

    def regrouped(self, process: Process) -> None:
        """A process belongs to another session or group, or somebody else waits for it."""
        conductor = self.find(process.model)
        if conductor is not None and process.pid in conductor.members:
            conductor.regroup(process)

    def release(self, process: Process, *, cache: bool) -> None:
        """A process has ended."""
        conductor = self.find(process.model)
        if conductor is not None:
            conductor.release(process, cache=cache)
            self._watch(conductor)

    def dropped(self, conductor: Conductor) -> None:
        """A model could not be loaded again after its worker crashed."""
        self._conductors.pop(self._key(conductor), None)
        self._core.scheduling.dropped(conductor)

    async def close(self) -> None:
        """Ends all workers."""
        loading = list(self._loading.values())
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        await asyncio.gather(*(c.workshop.close() for c in self.all()), return_exceptions=True)

    # -- figures -------------------------------------------------------------------------------------------------------

    def status(self, key: str, entry: ModelEntry, default: bool, size: int, problem: str) -> ModelStatus:
        """The row of `models`."""
        using = sum(p.model == key for p in self._core.table.live_models())
        conductor = self._conductors.get(key)
        shop = conductor.workshop if conductor is not None else None
        if shop is None or shop.info is None:
            return ModelStatus(entry, default, size, problem, processes=using)
        info, ledger = shop.info, shop.pager.ledger if shop.pager is not None else None
        return ModelStatus(
            entry, default, size, problem, shop.host_pid, using, info.layout, info.context, info.page_tokens,
            info.pages,
            ledger.used_pages if ledger is not None else 0, info.slots, info.kv_bytes_per_token, shop.load_seconds,
        )  # fmt: skip

    # -- private -------------------------------------------------------------------------------------------------------

    async def _load(self, entry: ModelEntry, former: Conductor | None = None) -> Conductor:
        """Loads a model, in the place of its `former` self where its entry has changed."""
        if former is not None:
            self._core.events.info("residency", f"the entry of {entry.name} has changed")
            await self._unload(former)
        size, problem = weights_size(entry)
        if problem:
            raise LlmosError(Code.ENOENT, problem)
        if entry.path.endswith(".gguf"):
            await self._make_memory(entry, size)
        self._core.events.info("residency", f"loading {entry.name}")
        conductor = Conductor(self._core, entry)
        await conductor.load()
        return conductor

    async def _make_memory(self, entry: ModelEntry, size: int) -> None:
        """Unloads idle models, least recently used first, until there is memory.

        Raises ENOMEM when that would not be enough, and then unloads nothing.
        """
        info = await self._core.read(lambda: read_gguf(entry.path))  # a large vocabulary takes its time
        idle = sorted((one for one in self._conductors.values() if not one.busy), key=lambda one: one.used)
        check_memory(entry, size, info, sum(one.workshop.rss() for one in idle))
        for victim in idle:
            try:
                check_memory(entry, size, info)
                return
            except LlmosError:
                if not victim.busy and self._key(victim):  # it may have changed while another one was unloaded
                    self._core.events.info("residency", f"{victim.entry.name} makes room for {entry.name}")
                    await self._unload(victim)
        check_memory(entry, size, info)

    def _loaded(self, key: str, task: asyncio.Task[Conductor]) -> None:
        self._loading.pop(key, None)
        if task.cancelled() or task.exception() is not None:
            return
        conductor = self._conductors[key] = task.result()
        for process in self._core.table.live_models():
            if process.model == key and process.phase is not Phase.NEW:
                conductor.attach(process)
        self._watch(conductor)

    def _key(self, conductor: Conductor) -> str:
        return next((key for key, one in self._conductors.items() if one is conductor), "")

    def _watch(self, conductor: Conductor) -> None:
        """Unloads the model later, unless somebody uses it."""
        key = self._key(conductor)
        conductor.used = self._core.now()
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key and not conductor.busy:
            self._timers[key] = self._core.loop.call_later(KEEP_SECONDS, self._expire, conductor)

    def _expire(self, conductor: Conductor) -> None:
        key = self._key(conductor)
        self._timers.pop(key, None)
        if key and not conductor.busy:
            self._core.spawn_task(self._unload_idle(conductor))

    async def _unload_idle(self, conductor: Conductor) -> None:
        if not conductor.busy:
            await self._unload(conductor)

    async def _unload(self, conductor: Conductor) -> None:
        entry = conductor.entry
        self._conductors.pop(self._key(conductor), None)
        pager = conductor.workshop.pager
        if pager is not None:
            for process in list(pager.residents()):
                pager.park(process)
        self._core.scheduling.dropped(conductor)
        await conductor.workshop.close()
        conductor.tokenizer.fail(LlmosError(Code.EAGAIN, f"{entry.name} was unloaded", hint="try again"))
        self._core.events.info("residency", f"unloaded {entry.name}")


def check_memory(entry: ModelEntry, size: int, info: GgufInfo, reclaimable: int = 0) -> None:
    """Raises ENOMEM when weights of `size` bytes and the KV pool cannot fit into the memory there is.

    `reclaimable` bytes could be made available besides. The pool is what the kernel plans in the memory that the
    weights leave.
    """
    available = host.memory().available
    left = max(0, available + reclaimable - size)
    per_token = info.kv_bytes_per_token(entry.kv_type)
    pool = kernels.pool_bytes(entry.kernel, load_message(entry), info.context, per_token, left) if left else 0
    estimate = int((size + pool) * OVERHEAD)
    if estimate > available + reclaimable:
        sizes = f"{estimate / 2**20:,.0f} MiB, {available / 2**20:,.0f} MiB of memory are available"
        text = f"{entry.name} needs about {sizes}"
        raise LlmosError(Code.ENOMEM, text, hint="unload another model, or choose a smaller one or a shorter context")


def _loads(entry: ModelEntry) -> tuple[str, Load]:
    """What of an entry a loaded worker was made from."""
    return entry.kernel, load_message(entry)
