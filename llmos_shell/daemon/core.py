"""The daemon's parts, held together, and what is everybody's: clocks, journal, tasks, the end.

Every part gets the `Core` and finds the others there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.memory import MemoryCounts
from llmos_shell.abi.types import Event, Kind, KvState
from llmos_shell.daemon.events import EventLog
from llmos_shell.daemon.journaling.journal import Journal
from llmos_shell.daemon.machine import host
from llmos_shell.daemon.machine.devices import DeviceReader
from llmos_shell.daemon.machine.energy import Metering
from llmos_shell.daemon.memory import park
from llmos_shell.daemon.memory.costs import Costs
from llmos_shell.daemon.memory.swap import Swap
from llmos_shell.daemon.models.residency import Residency
from llmos_shell.daemon.processes import turns
from llmos_shell.daemon.processes.process import Figures, Process
from llmos_shell.daemon.processes.record import encode_record, revived
from llmos_shell.daemon.processes.table import ProcessTable
from llmos_shell.daemon.sched.scheduling import Scheduling
from llmos_shell.daemon.server import Connection
from llmos_shell.daemon.syscalls import SyscallTable
from llmos_shell.models.registry import Registry

T = TypeVar("T")
IDLE_SECONDS = 60.0
RATE_WINDOW = 1.0
MAX_PID = (1 << 63) - 1
"""What the journal can hold."""

DURABLE_SECONDS = 0.5
"""How long an answer waits for the journal."""


class Core:
    """One running daemon."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, auto: bool) -> None:
        self.loop = loop
        self.auto = auto
        self.started = time.time()
        self.now = time.monotonic
        self.wall = time.time
        self.events = EventLog()
        self.journal = Journal(paths.journal_path(), self._journal_failed)
        self.events.sink = self._keep_event
        self.table = ProcessTable(self.journal.last_pid())
        self.registry = Registry(on_problem=lambda text: self.events.warning("models", text))
        self.counts = MemoryCounts()
        self.costs = Costs()
        folder = paths.swap_dir()
        ram, disk = park.ram_limit(host.memory().total), park.disk_limit(folder)
        self.swap = Swap(self, ram, disk, folder, park.compresses())
        self.connections: set[Connection] = set()
        self.scheduling = Scheduling(self)
        self.devices = DeviceReader()
        self.metering = Metering(self)
        self.residency = Residency(self)
        self.syscalls = SyscallTable(self)
        self.stopping = asyncio.Event()
        self.hibernating = False  # nobody runs any more
        self.closing = False  # nothing that ends now really ends: it comes back
        self.tokens_total = 0
        self._rate = (0.0, 0, 0.0)  # since when, tokens since, tokens per second before
        self._tasks: set[asyncio.Task[Any]] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._idle_seconds = float(os.environ.get("LLMOS_IDLE_SECONDS", IDLE_SECONDS))

    # -- the journal ---------------------------------------------------------------------------------------------------

    def save(self, process: Process) -> None:
        """Has the journal keep the process as it is now."""
        if process.kind is not Kind.SESSION:
            code = process.exit.code if process.exit is not None else None
            self.journal.put_process(
                process.pid, encode_record(process), process.ended, state=process.state.value, exit_code=code
            )

    def append(self, process: Process, start: int, tokens: Sequence[int], text: str) -> None:
        """Has the journal keep generated tokens and their text."""
        self.journal.append(process.pid, start, tokens, text, turn=len(process.turns), role="assistant")

    def append_input(self, process: Process, start: int, tokens: Sequence[int]) -> None:
        """Has the journal keep the tokens of a turn's input."""
        self.journal.append(process.pid, start, tokens, "", turn=len(process.turns) - 1, role="user")

    async def durable(self) -> None:
        """Waits until the journal has what it was given, so that no answer is forgotten; a full disk ends the wait."""
        with contextlib.suppress(TimeoutError, LlmosError):
            await asyncio.wait_for(asyncio.wrap_future(self.journal.flush()), DURABLE_SECONDS)

    async def recall(self, pid: int) -> Process:
        """A process, also one that ended long ago; the latter is not in the table. Raises ESRCH."""
        found = self.table.find(pid)
        if found is not None:
            return found
        saved = await self.read(lambda: self.journal.saved(pid)) if 0 < pid <= MAX_PID else None
        if saved is None:
            raise LlmosError(Code.ESRCH, f"there is no process {pid}", pid=pid)
        return revived(saved)

    async def read(self, query: Any) -> Any:
        """Runs a query of the journal without holding up the loop."""
        return await self.loop.run_in_executor(None, query)

    # -- figures -------------------------------------------------------------------------------------------------------

    def count_tokens(self, count: int, now: float) -> None:
        """Notes that tokens were generated."""
        since, tokens, rate = self._rate
        if now - since >= RATE_WINDOW:
            rate = tokens / (now - since) if now - since < 3 * RATE_WINDOW else 0.0
            since, tokens = now, 0
        self._rate = (since, tokens + count, rate)
        self.tokens_total += count

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second over the last second or two, of all processes."""
        since, tokens, rate = self._rate
        age = self.now() - since
        if age > 2 * RATE_WINDOW:
            return 0.0
        return rate or (tokens / age if age > 0.1 else 0.0)

    def figures(self, process: Process) -> Figures:
        """What the scheduler, the ledger, the tiers and the model say of a process."""
        conductor = self.residency.find(process.model) if process.kind is Kind.MODEL else None
        swapped = self.swap.tiers.size(process.pid) if process.kv is KvState.SWAPPED else 0
        if conductor is None or not process.alive:
            return Figures(len(process.tokens), swapped_bytes=swapped)
        pager = conductor.workshop.pager
        figures = Figures(len(process.tokens), pager.context if pager is not None else 0, swapped_bytes=swapped)
        if process.pid in conductor.scheduler:
            figures.virtual_runtime = conductor.scheduler.entity(process.pid).vruntime
        if pager is not None:
            figures.page_bytes = pager.info.page_bytes
        if pager is not None and process.seq is not None and process.seq in pager.ledger:
            figures.resident_pages, figures.shared_pages = pager.ledger.pages_of(process.seq)
        return figures

    # -- tasks and the end ---------------------------------------------------------------------------------------------

    def spawn_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs something in the background; a fault in it is logged."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def begin_turn(self, process: Process) -> None:
        """Has a NEW process read what it was told, and run; an error ends its turn."""
        turns.begin(self, process).cancel()

    def run_for(self, process: Process, work: Coroutine[Any, Any, None]) -> None:
        """Runs something in the background that is in vain once the process has ended."""
        task = process.task = self.spawn_task(work)

        def done(_: object) -> None:
            if process.task is task:
                process.task = None

        task.add_done_callback(done)

    async def cancel_tasks(self) -> None:
        """Ends what runs in the background."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.events.exception("daemon", error)

    def note_activity(self) -> None:
        """Something began or ended: the daemon that was started on first use ends when nobody needs it.

        As long as a model is loaded, which residency decides, somebody may.
        """
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self.auto and not self._needed():
            self._idle = self.loop.call_later(self._idle_seconds, self._stop_idle)

    def _needed(self) -> bool:
        return bool(self.connections or self.table.live_models() or self.residency.in_memory)

    def _stop_idle(self) -> None:
        self._idle = None
        if not self._needed():
            self.events.info("daemon", f"idle for {self._idle_seconds:g} s: stopping")
            self.stopping.set()

    def _keep_event(self, event: Event) -> None:
        if event.level != "debug":
            self.journal.event(event)

    def _journal_failed(self, text: str) -> None:
        """Called from the journal's thread."""
        self.loop.call_soon_threadsafe(self.events.error, "journal", text)
