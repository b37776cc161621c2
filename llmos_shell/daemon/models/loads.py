"""Loads in progress: each model once for however many wait for it, how far that is, and its end when nobody waits.

Owns the tasks; what loading a model takes is `residency`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from llmos_shell.abi.syscalls import ModelLoad
from llmos_shell.abi.types import ModelEntry

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor


class Loading:
    """A model on its way into memory."""

    def __init__(self, entry: ModelEntry, begun: float) -> None:
        self.entry = entry
        self.begun = begun  # monotonic
        self.read = self.total = 0  # bytes of the weights
        self.waits_for: tuple[str, ...] = ()  # models whose memory it needs
        self.waiters = 0
        self.given_up = False

    def progressed(self, read: int, total: int) -> None:
        """The worker has read so many bytes."""
        self.read, self.total = read, total


class Loads:
    """What is being loaded, by the key of its entry."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._loads: dict[str, Loading] = {}
        self._tasks: dict[str, asyncio.Task[Conductor]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._loads

    def __bool__(self) -> bool:
        return bool(self._loads)

    async def join(
        self, key: str, entry: ModelEntry, work: Callable[[Loading], Coroutine[Any, Any, Conductor]]
    ) -> Conductor:
        """Waits for the load of a model, which begins with the first who does. It ends early with the last."""
        while (loading := self._loads.get(key)) is not None and loading.given_up:
            await asyncio.wait([self._tasks[key]])
        if loading is None:
            loading = self._begin(key, entry, work)
        task = self._tasks[key]
        loading.waiters += 1
        try:
            return await asyncio.shield(task)
        finally:
            loading.waiters -= 1
            if not loading.waiters and not task.done():
                loading.given_up = True
                self._core.events.info("residency", f"nobody waits for {entry.name} any more: not loaded")
                task.cancel()

    def _begin(self, key: str, entry: ModelEntry, work: Callable[[Loading], Coroutine[Any, Any, Conductor]]) -> Loading:
        loading = self._loads[key] = Loading(entry, self._core.now())
        task = self._tasks[key] = self._core.loop.create_task(work(loading))
        task.add_done_callback(lambda _: self._ended(key))
        return loading

    def _ended(self, key: str) -> None:
        del self._loads[key], self._tasks[key]
        self._core.note_activity()

    def describe(self, key: str) -> ModelLoad | None:
        """How far a load is; None for a model that is not being loaded."""
        loading = self._loads.get(key)
        if loading is None:
            return None
        seconds = self._core.now() - loading.begun
        return ModelLoad(loading.entry.name, loading.read, loading.total, seconds, loading.waits_for)

    async def close(self) -> None:
        """Ends all of them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
