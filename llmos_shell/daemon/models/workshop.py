"""The worker of one model: starting, watching, restarting and closing it, and its figures.

Owns the link and, for as long as a worker lives, its pager.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import WorkerInfo
from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon.memory import park
from llmos_shell.daemon.memory.pager import Pager
from llmos_shell.daemon.models.link import WorkerLink
from llmos_shell.daemon.models.supervisor import STALL_SECONDS, start_worker
from llmos_shell.daemon.processes.process import NO_LIMIT

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor

MAX_CRASHES = 8
"""Crashes in a row without a single token, after which the model is given up."""

MAX_LOADS = 3
PAUSE_SECONDS = 0.2
"""Before loading again after a load that failed; doubled each time."""


class Workshop:
    """At most one worker at a time."""

    def __init__(self, core: Core, conductor: Conductor) -> None:
        self._core = core
        self._conductor = conductor
        self._entry = conductor.entry
        self._link: WorkerLink | None = None
        self._loading: WorkerLink | None = None  # to a worker that is on its way
        self._watch: asyncio.TimerHandle | None = None
        self._seen: tuple[int, float] = (0, 0.0)
        self._closing = False
        self._closed: asyncio.Future[None] | None = None
        self._stats: abi.Stats | None = None
        self._rate = (0.0, 0, 0.0)  # instant, tokens then, tokens per second
        self.info: abi.ModelInfo | None = None
        self.pager: Pager | None = None
        self.context = NO_LIMIT  # longest context, once that is known
        self.load_seconds = 0.0
        self.started = 0.0
        self.restarts = 0
        self.crashes = 0  # in a row, without a token in between

    async def start(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Starts a worker and loads the model. Raises what it failed with."""
        begun = time.monotonic()
        try:
            link, ready = await start_worker(
                self._shaped(), self._conductor.message, self._lost, on_progress, self._conductor.claim.planned,
                self._begun,
            )  # fmt: skip
        finally:
            self._loading = None
        self._link, self.info = link, ready.info
        self.pager = Pager(self._conductor, ready.info)
        self.context = self.pager.context
        self.started, self.load_seconds = time.time(), time.monotonic() - begun
        self._core.events.info(
            "worker", f"{self._entry.name} loaded in {self.load_seconds:.2f} s by host process {link.pid}"
        )

        if self.landed:
            self._core.events.warning("worker", self.landed)

    def _begun(self, link: WorkerLink) -> None:
        self._loading = link

    def _shaped(self) -> ModelEntry:
        """The entry with the pool that the model was given since."""
        shape, info = self._conductor.resizer.shape, self.info
        if shape is None or info is None:
            return self._entry
        return structs.replace(
            self._entry, context=info.context, pool_tokens=shape.pool_tokens, slots=shape.slots, layout=shape.layout
        )

    def resized(self, info: abi.ModelInfo) -> None:
        """The worker has another pool, which is empty."""
        assert self.pager is not None
        former, self.info = self.pager, info
        former.lost()
        self.pager = Pager(self._conductor, info, former.next_seq)
        self.context = self.pager.context

    @property
    def landed(self) -> str:
        """What its users must be told if it was to run on a GPU and does not."""
        offload = self._conductor.claim.planned.offload
        layers = self._entry.gpu_layers if offload is None else offload.layers
        if self.info is None or not layers or layers == "auto" or self.info.gpu:
            return ""
        if self._entry.gpu_layers == "auto" and not self.info.knows_gpus:
            return ""
        return f"{self._entry.name} was to run on a GPU (gpu_layers = {self._entry.gpu_layers}) and runs on the CPU"

    async def restart(self) -> None:
        """Starts another worker after a crash. Raises when that fails again and again, or crashes do."""
        self.restarts += 1
        self.crashes += 1
        if self.crashes > MAX_CRASHES:
            raise LlmosError(Code.EIO, f"the worker of {self._entry.name} crashed {MAX_CRASHES} times in a row")
        for attempt in range(MAX_LOADS):
            try:
                await self.start()
                return
            except LlmosError as error:
                self._core.events.error("worker", f"{self._entry.name} could not be loaded again: {error}")
                if attempt == MAX_LOADS - 1:
                    raise
                self._core.residency.pools.forget(self._conductor)
                await self._core.residency.claims.plan_again(self._conductor)
            await asyncio.sleep(PAUSE_SECONDS * 2**attempt)

    def send(self, message: Struct) -> None:
        """A message for the worker, if there is one."""
        if self._link is not None:
            self._link.send(message)
            asked = isinstance(message, abi.Tokenize | abi.Fence) or (
                isinstance(message, abi.Run) and bool(message.order)
            )
            if asked and self._watch is None:
                self._watch = self._core.loop.call_later(STALL_SECONDS, self._check)

    async def close(self) -> None:
        """Ends the worker and waits until it has gone. There will be no other."""
        self._closing = True
        link = self._link
        if link is None:
            return
        self._closed = self._core.loop.create_future()
        link.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._closed), 5.0)
        except TimeoutError:
            link.kill()
            await self._closed

    def kill(self) -> None:
        """Ends the worker at once."""
        if self._link is not None:
            self._link.kill()

    @property
    def host_pid(self) -> int | None:
        """The worker's PID on the host."""
        return self._link.pid if self._link is not None else None

    @property
    def occupant(self) -> int | None:
        """The same, also while it is still loading: whose memory it is."""
        link = self._link or self._loading
        return link.pid if link is not None else None

    def rss(self) -> int:
        """Bytes of memory the worker occupies, also while it is still loading."""
        link = self._link or self._loading
        return link.rss() if link is not None else 0

    def note_stats(self, stats: abi.Stats) -> None:
        """The worker's figures."""
        now, tokens = time.monotonic(), stats.decoded_tokens
        then, before, _ = self._rate
        elapsed = now - then
        self._rate = (now, tokens, (tokens - before) / elapsed if then and elapsed < 5 else 0.0)
        self._stats = stats

    def describe(self) -> WorkerInfo | None:
        """The row of `status`."""
        if self._link is None or self.info is None:
            return None
        stats = self._stats
        fresh = time.monotonic() - self._rate[0] < 2.0
        return WorkerInfo(
            self._link.pid, self._entry.name, self._entry.kernel, self.started, stats.steps if stats else 0,
            stats.rss if stats else 0, stats.threads if stats else self.info.threads, self._rate[2] if fresh else 0.0,
            self.restarts, stats.step_seconds if stats else 0.0, stats.engine_seconds if stats else 0.0,
            stats.guessed_tokens if stats else 0, stats.right_tokens if stats else 0,
        )  # fmt: skip

    def _lost(self, how: str) -> None:
        last = f" ({self._link.last_lines[-1]})" if self._link is not None and self._link.last_lines else ""
        if self._link is not None:
            park.clean_spares(self._link.pid)
        self._link = None
        self._stats, self._rate = None, (0.0, 0, 0.0)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        pager, self.pager = self.pager, None
        if pager is not None:
            pager.lost()
        self._conductor.resizer.lost()
        if self._closed is not None:
            if not self._closed.done():
                self._closed.set_result(None)
        elif not self._closing:
            self._conductor.worker_lost(how + last)

    def _check(self) -> None:
        """Kills a worker that should step, but neither says anything nor computes."""
        self._watch = None
        link = self._link
        if link is None or self.pager is None:
            return
        if not self._conductor.tokenizer.pending and not any(p.running for p in self.pager.bound.values()):
            return
        if self._conductor.planner.paused:  # another model has its turn
            self._watch = self._core.loop.call_later(STALL_SECONDS, self._check)
            return
        seen = (link.messages, link.cpu_seconds())
        if seen == self._seen:
            self._core.events.error("worker", f"{self._entry.name} made no progress for {STALL_SECONDS:g} s: killed")
            link.kill()
            return
        self._seen = seen
        self._watch = self._core.loop.call_later(STALL_SECONDS, self._check)
