"""Which models are loaded: loads once for however many wait, refuses what cannot fit, unloads what nobody uses.

Owns the conductors, pins and keep-alive timers. A process refers to its model by name; while the model is not loaded it
has no conductor. Who has what of the memory is in `claims`, loads in progress are in `loads`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import ModelLoad
from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon.models.claims import Claim, Claims
from llmos_shell.daemon.models.conductor import Conductor
from llmos_shell.daemon.models.loads import Loading, Loads
from llmos_shell.daemon.models.needs import Need, Study, fewer_layers, study
from llmos_shell.daemon.models.pools import Pools
from llmos_shell.daemon.models.supervisor import load_message
from llmos_shell.daemon.processes import lifecycle
from llmos_shell.daemon.processes.process import Phase, Process

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

KEEP_SECONDS = float(os.environ.get("LLMOS_KEEP_SECONDS", "900"))
"""How long a model stays loaded that nobody runs."""

LOOK_SECONDS = 0.05
"""How often a model that waits for memory looks whether it can have it."""

PATIENCE_SECONDS = float(os.environ.get("LLMOS_PATIENCE_SECONDS", "10"))
PATIENCE_LOADS = 10
"""A model waits for busy ones to fall idle. After so long, or so many times its neighbours' loading time, these begin
no further turns until it had its turn: loading costs a tenth of the time at most, and nobody starves."""


class Residency:
    """Loaded models by the key of their entry."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._conductors: dict[str, Conductor] = {}
        self._loads = Loads(core)
        self._leaving: dict[str, asyncio.Task[None]] = {}  # not loaded any more, but their memory is not free yet
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._draining: dict[str, tuple[str, asyncio.Event]] = {}  # begin no turns: who waits for them, and its end
        self._reviving: set[int] = set()
        pins = core.journal.settings().get("pins")
        self.pinned: set[str] = set(msgspec.msgpack.decode(pins, type=list[str])) if pins else set()
        self.claims = Claims(core, self._conductors, self.pinned)
        self.pools = Pools(core, self.claims, self._conductors, self._make_way)

    async def get(self, model: str) -> Conductor:
        """The conductor of a model, loaded first if it is not. Raises ENOENT, ENOEXEC, ENOMEM, EIO.

        One whose entry has changed is loaded anew once nobody runs it; its sleeping chats go on with the new one.
        """
        entry, key = self.resolve(model)
        while (drained := self._draining.get(key)) is not None and key in self._conductors:
            await drained[1].wait()
        if (usable := self._usable(key, entry)) is not None:
            return usable
        if (found := self._conductors.get(key)) is not None:
            self._core.events.info("residency", f"the entry of {entry.name} has changed")
            self._leave(found)
        try:
            return await self._loads.join(key, entry, lambda loading: self._load(key, loading))
        finally:
            if (loaded := self._conductors.get(key)) is not None:  # not before: whoever waited has it now
                self._watch(loaded)

    async def of_turn(self, model: str) -> Conductor:
        """The same, by the key of a model, for a turn that has begun: who waits for the model's memory waits for it."""
        return self.find(model) or await self.get(model)

    def at_hand(self, model: str) -> Conductor | None:
        """The same, of a model that nobody needs to wait for; else None. Raises ENOENT."""
        entry, key = self.resolve(model)
        return self._usable(key, entry) if key not in self._draining else None

    def _usable(self, key: str, entry: ModelEntry) -> Conductor | None:
        """The conductor of a model that is loaded as its entry says, or is in use as another one said."""
        found = self._conductors.get(key)
        return found if found is not None and (found.busy or _loads(found.entry) == _loads(entry)) else None

    def key_of(self, entry: ModelEntry) -> str:
        """What a process calls its model: the name in models.toml, or the path of weights that are not in there."""
        return entry.name if self._core.registry.has(entry) else entry.path

    def resolve(self, model: str) -> tuple[ModelEntry, str]:
        """Entry and key of a model. One that is loaded stays what it is when its entry has gone or is broken.

        Raises ENOENT, EINVAL.
        """
        try:
            entry = self._core.registry.resolve(model)
        except LlmosError:
            if model not in self._conductors:
                raise
            return self._conductors[model].entry, model
        return entry, self.key_of(entry)

    def progress(self, key: str) -> ModelLoad | None:
        """How far a model is that is being loaded; None for one that is not."""
        return self._loads.describe(key)

    def find(self, key: str) -> Conductor | None:
        """The conductor of a model if it is loaded."""
        return self._conductors.get(key)

    def all(self) -> list[Conductor]:
        """Conductors of all loaded models."""
        return list(self._conductors.values())

    def loaded(self, model: str) -> Conductor:
        """The conductor of a model by its name. Raises ENOENT for one that is not loaded."""
        entry, key = self.resolve(model)
        conductor = self._conductors.get(key)
        if conductor is None:
            raise LlmosError(Code.ENOENT, f"{entry.name} is not loaded", hint=f"`load {entry.name}` first")
        return conductor

    def gives_way_to(self, key: str) -> str:
        """The name of the model for which this one begins no further turns at present; "" when it does."""
        drained = self._draining.get(key)
        return drained[0] if drained is not None and key in self._conductors else ""

    @property
    def in_memory(self) -> bool:
        """Whether any model is loaded, or being loaded."""
        return bool(self._conductors or self._loads)

    async def unload(self, model: str) -> None:
        """Unloads a model; its processes are kept. Raises EBUSY while some of them want to run."""
        entry, key = self.resolve(model)
        if key in self._loads:
            raise LlmosError(Code.EBUSY, f"{entry.name} is being loaded")
        conductor = self._conductors.get(key)
        if conductor is None:
            raise LlmosError(Code.ENOENT, f"{entry.name} is not loaded")
        if key in self.pinned:
            raise LlmosError(Code.EBUSY, f"{entry.name} is pinned", hint=f"`unpin {entry.name}` first")
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
        elif process.wants_to_run and process.pid not in self._reviving:
            self._core.run_for(process, self._revive(process))

    def pin(self, model: str, pinned: bool) -> str:
        """Keeps a model from being unloaded once it is loaded, also after a restart; or no longer. Returns its key."""
        _, key = self.resolve(model)
        (self.pinned.add if pinned else self.pinned.discard)(key)
        self._core.journal.put_setting("pins", msgspec.msgpack.encode(sorted(self.pinned)))
        if key in self._conductors:
            self._watch(self._conductors[key])
        return key

    async def plan(self, model: str) -> tuple[Need, tuple[str, ...], tuple[str, ...]]:
        """What a model needs, which models would make way for it, and which busy ones it would wait for."""
        entry, key = self.resolve(model)
        found = await study(self._core, entry)
        if found.on_gpus:
            await self.claims.look()
        need = self.claims.need(found, without=key)
        if key in self.claims and key not in self._leaving:
            return need, (), ()
        verdict = self.claims.verdict(key, need)
        return need, verdict.evict, verdict.blockers

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
        if self._conductors.get(conductor.key) is conductor:  # it is not just being unloaded
            self._forget(conductor)
            self._core.scheduling.dropped(conductor)
            self.claims.disclaim(conductor.key)
        self._core.note_activity()

    async def close(self) -> None:
        """Ends all workers."""
        await self._loads.close()
        await asyncio.gather(*(c.workshop.close() for c in self.all()), return_exceptions=True)

    # -- private -------------------------------------------------------------------------------------------------------

    async def _load(self, key: str, loading: Loading) -> Conductor:
        """Loads a model, once a former worker of it has gone."""
        entry = loading.entry
        if (leaving := self._leaving.get(key)) is not None:
            await asyncio.wait([leaving])
        found, most = await study(self._core, entry), None
        while True:
            claim = await self._make_room(key, loading, found, most)
            where = f": {claim.planned.offload}" if claim.planned.offload is not None else ""
            self._core.events.info("residency", f"loading {entry.name}, about {claim.planned}{where}")
            try:
                conductor = Conductor(self._core, key, entry, claim)
                await conductor.load(loading.progressed)
                break
            except BaseException as error:
                self.claims.disclaim(key)
                most = fewer_layers(entry, claim.planned, most, error)
                if most is None:
                    raise
                text = f"{entry.name} could not be loaded ({error}): trying with {most} layers on GPUs at most"
                self._core.events.warning("residency", text)
        self._loaded(key, conductor)
        return conductor

    async def _make_room(self, key: str, loading: Loading, found: Study, most: int | None) -> Claim:
        """Claims memory, once it is there: unloads idle models, waits for busy ones. Raises ENOMEM if that is vain.

        What goes to GPUs, `most` layers by themselves, is planned anew whenever memory has changed hands.
        """
        entry, begun, mine = loading.entry, self._core.now(), asyncio.Event()
        asked: set[str] = set()
        try:
            while True:
                if found.on_gpus:
                    await self.claims.look()
                try:
                    need = self.claims.need(found, most)
                    verdict = self.claims.verdict(key, need)
                except LlmosError as error:
                    raise LlmosError(
                        error.code, f"{entry.name} cannot be loaded: {error.message}", hint=error.hint
                    ) from None
                await self._make_way(verdict.evict, entry.name)
                if not verdict.wait and not verdict.evict:
                    return self.claims.claim(key, need)
                if verdict.blockers and not loading.waits_for:
                    names = ", ".join(verdict.blockers)
                    self._core.events.info("residency", f"{entry.name} waits for memory that {names} has in use")
                loading.waits_for = verdict.blockers or loading.waits_for
                waited = self._core.now() - begun
                for blocker in verdict.blockers:
                    if blocker not in self._draining and waited > self._patience(blocker):
                        self._draining[blocker] = (entry.name, mine)
                        asked.add(blocker)
                        text = f"{blocker} begins no further turns until {entry.name} has had its memory"
                        self._core.events.info("residency", text)
                if verdict.wait and not await self.pools.squeeze(verdict.blockers, need.host):
                    await asyncio.sleep(LOOK_SECONDS)
        finally:
            loading.waits_for = ()
            for blocker in asked:
                del self._draining[blocker]
            mine.set()

    async def _make_way(self, victims: Sequence[str], whom: str) -> None:
        """Unloads models for somebody, those that nobody runs on."""
        for victim in victims:
            conductor = self._conductors.get(victim)
            if conductor is not None and not conductor.occupied:
                self._core.events.info("residency", f"{conductor.entry.name} makes room for {whom}")
                await self._unload(conductor)

    def _patience(self, blocker: str) -> float:
        conductor = self._conductors.get(blocker)
        seconds = conductor.workshop.load_seconds if conductor is not None else 0.0
        return max(PATIENCE_SECONDS, PATIENCE_LOADS * seconds)

    async def _revive(self, process: Process) -> None:
        """Has a process run again whose model made way while it was stopped."""
        self._reviving.add(process.pid)
        try:
            conductor = await self.get(process.model)
        except LlmosError as error:
            self._core.events.error("residency", str(error), process.pid)
            keep_for_later(self._core, process)
            return
        finally:
            self._reviving.discard(process.pid)
        if process.alive and process.phase is not Phase.NEW:
            conductor.attach(process)

    def _loaded(self, key: str, conductor: Conductor) -> None:
        self._conductors[key], conductor.used = conductor, self._core.now()
        for process in self._core.table.live_models():
            if process.model == key and process.phase is not Phase.NEW:
                conductor.attach(process)

    def _watch(self, conductor: Conductor) -> None:
        """Unloads the model later, unless somebody uses it."""
        key, keep = conductor.key, conductor.entry.keep_seconds
        conductor.used = self._core.now()
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if not conductor.busy and key not in self.pinned:
            seconds = KEEP_SECONDS if keep is None else keep
            self._timers[key] = self._core.loop.call_later(seconds, self._expire, conductor)

    def _expire(self, conductor: Conductor) -> None:
        del self._timers[conductor.key]
        if not conductor.busy and conductor.key not in self.pinned:
            self._leave(conductor)

    async def _unload(self, conductor: Conductor) -> None:
        """Unloads a model to the end, even if whoever asked for it gives up."""
        await asyncio.shield(self._leave(conductor))

    def _leave(self, conductor: Conductor) -> asyncio.Task[None]:
        """From now on the model is not loaded; when the task is done its memory is free."""
        self._forget(conductor)
        pager = conductor.workshop.pager
        if pager is not None:
            for process in list(pager.residents()):
                pager.park(process)
        self._core.scheduling.dropped(conductor)
        task = self._leaving[conductor.key] = self._core.spawn_task(self._close(conductor))
        return task

    def _forget(self, conductor: Conductor) -> None:
        del self._conductors[conductor.key]
        if (timer := self._timers.pop(conductor.key, None)) is not None:
            timer.cancel()

    async def _close(self, conductor: Conductor) -> None:
        name = conductor.entry.name
        try:
            await conductor.close()
        finally:
            self.claims.disclaim(conductor.key)
            del self._leaving[conductor.key]
        conductor.tokenizer.fail(LlmosError(Code.EAGAIN, f"{name} was unloaded", hint="try again"))
        self._core.events.info("residency", f"unloaded {name}")
        self._core.note_activity()


def keep_for_later(core: Core, process: Process) -> None:
    """Stops a process whose model cannot be loaded now: nothing of it is lost, and `cont` tries again."""
    if process.alive and not process.stopped:
        lifecycle.stop(core, process)


def _loads(entry: ModelEntry) -> tuple[object, ...]:
    """What of an entry a loaded worker was made from."""
    return entry.kernel, load_message(entry), entry.gpu_layers, entry.gpus
