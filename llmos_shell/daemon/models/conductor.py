"""One loaded model: its processes, its worker, and what becomes of them when the worker crashes.

Joins the parts that do the work: `Workshop` (the worker), `Pager` (KV), `Scheduler` and `Planner` (who runs),
`Tokenizer` (prompts) and `Digest` (what the worker says).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry, Overflow, Reason
from llmos_shell.daemon.models.digest import Digest
from llmos_shell.daemon.models.resizing import Resizer
from llmos_shell.daemon.models.sizer import Sizer
from llmos_shell.daemon.models.suspects import Suspects
from llmos_shell.daemon.models.workshop import Workshop
from llmos_shell.daemon.processes import lifecycle, overflow
from llmos_shell.daemon.processes.process import NO_LIMIT, Phase, Process
from llmos_shell.daemon.processes.prompts import Tokenizer
from llmos_shell.daemon.processes.summary import reserve
from llmos_shell.daemon.sched.planner import Planner

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.claims import Claim


class Conductor:
    """The processes of one model, and its worker."""

    def __init__(self, core: Core, key: str, entry: ModelEntry, claim: Claim) -> None:
        self.core = core
        self.key = key  # what processes call the model
        self.entry = entry
        self.claim = claim  # the memory it was promised
        self.members: dict[int, Process] = {}
        self.used = 0.0  # when a process of it last changed, monotonic
        self.device = "cpu"  # that its worker computes on
        self.scheduler = core.scheduling.make_scheduler()
        self.suspects = Suspects()
        self.workshop = claim.workshop = Workshop(core, self)
        self.tokenizer = Tokenizer(self)
        self.planner = Planner(self)
        self.resizer = Resizer(self)
        self.sizer = Sizer(self)
        self._alarms: dict[int, asyncio.TimerHandle] = {}  # at processes' deadlines
        self._restarting: asyncio.Task[None] | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            abi.Step: Digest(self).step,
            abi.Tokens: self.tokenizer.answered,
            abi.Fenced: self.tokenizer.passed,
            abi.Opened: self._opened,
            abi.Exported: self._exported,
            abi.Resized: self.resizer.answered,
            abi.Failed: self._failed,
            abi.Stats: self.workshop.note_stats,
        }

    async def load(self, on_progress: Callable[[int, int], None]) -> None:
        """Loads the model, telling of bytes read and in all. Raises what the worker failed with."""
        await self.workshop.start(on_progress)
        self._started()

    async def close(self) -> None:
        """Ends the worker; processes that are left belong to nobody's conductor."""
        for alarm in self._alarms.values():
            alarm.cancel()
        self._alarms.clear()
        while self._restarting is not None and not self._restarting.done():
            self._restarting.cancel()
            await asyncio.wait([self._restarting])
        await self.workshop.close()

    @property
    def busy(self) -> bool:
        """Whether some process wants to run, or is about to."""
        return self.tokenizer.pending or any(process.answering for process in self.members.values())

    @property
    def occupied(self) -> bool:
        """Whether somebody runs on it, or its pool is being changed.

        Unlike for `busy`, stopped ones and those that wait for it do not count.
        """
        members = self.members.values()
        running = any(one.phase is Phase.READY and not one.stopped for one in members)
        return running or self.tokenizer.pending or self.resizer.busy

    @property
    def weights(self) -> str:
        """What its processes' tokens are made for."""
        return f"{self.entry.kernel}:{self.entry.path}"

    def send(self, message: Struct) -> None:
        """A message for the worker; one for a worker that is down is dropped, for the next starts from nothing."""
        self.workshop.send(message)

    # -- processes -----------------------------------------------------------------------------------------------------

    def attach(self, process: Process) -> None:
        """Makes a process one of this model's. One that has tokens for other weights reads its conversation again."""
        if process.tokens and process.weights not in ("", self.weights):
            if process.phase is Phase.READY:
                text = f"{self.entry.name} has other weights than those this turn began with"
                lifecycle.fail(self.core, process, text)
            if not process.alive:
                return
            lifecycle.forget_context(self.core, process)
        if process.pid not in self.members:
            self.members[process.pid] = process
            self._schedule(process)
        self.changed(process)

    def _schedule(self, process: Process) -> None:
        now, deadline = self.core.now(), math.inf
        if process.deadline is not None and not process.missed_deadline:
            left = process.deadline - self.core.wall()
            deadline = now + left
            self._alarms[process.pid] = self.core.loop.call_later(max(0.0, left) + 0.001, self.planner.replan)
        self.scheduler.add(process.pid, process.nice, process.foreground, process.group, deadline)

    def changed(self, process: Process) -> None:
        """A process wants to run, or no longer does, or its limits are others."""
        if process.pid not in self.members:
            return
        now = self.core.now()
        if process.wants_to_run and self.suspects.may_run(process.pid) and self.core.scheduling.may_run(process):
            process.cap = _cap(process, self.core.scheduling.kv_limit(process), self.workshop.context)
            self.scheduler.wake(process.pid, now)
            lifecycle.start_waiting(process)
            if len(process.tokens) >= min(process.cap, self.workshop.context):
                self.core.loop.call_soon(self.at_limit, process)
        else:
            self.scheduler.sleep(process.pid, now)
            if not process.wants_to_run and self.suspects.clear(process.pid):
                self.wake_all()
            if process.phase is Phase.IDLE and self.workshop.pager is not None:
                self.workshop.pager.fell_asleep(process)
        process.topup_at = 0
        self._trace(process)
        self.planner.replan()

    def _trace(self, process: Process) -> None:
        tracer = self.core.scheduling.tracer
        if tracer.on:
            tracer.process(process)

    def release(self, process: Process, *, cache: bool) -> None:
        """A process has ended."""
        if self.members.pop(process.pid, None) is None:
            return
        self.scheduler.remove(process.pid)
        if (alarm := self._alarms.pop(process.pid, None)) is not None:
            alarm.cancel()
        self.planner.forget(process)
        if self.workshop.pager is not None:
            self.workshop.pager.forget(process, cache=cache)
        if self.suspects.clear(process.pid):
            self.wake_all()
        self.planner.replan()

    def regroup(self, process: Process) -> None:
        """It belongs to another session, or somebody else waits for it."""
        self.scheduler.regroup(process.pid, process.group)
        self.scheduler.set_foreground(process.pid, process.foreground)
        self.changed(process)

    def renice(self, process: Process) -> None:
        """Its nice value is another."""
        self.scheduler.renice(process.pid, process.nice)
        self.planner.replan()

    def interrupt(self, process: Process, reason: Reason) -> None:
        """Ends the present turn, as soon as the worker has said all that it did before it heard of it."""
        if self.workshop.pager is None:
            lifecycle.finish_turn(self.core, process, reason)
            return
        process.interrupting = True
        self.changed(process)
        self.planner.plan()
        self.tokenizer.fence(lambda: self._interrupted(process, reason))

    def _interrupted(self, process: Process, reason: Reason) -> None:
        if process.interrupting and process.phase is Phase.READY:
            lifecycle.finish_turn(self.core, process, reason)

    def at_limit(self, process: Process) -> None:
        """Ends the turn or the process if its context may not grow any more."""
        limits = process.limits
        kv_tokens = self.core.scheduling.kv_limit(process)
        if process.phase is not Phase.READY:
            return
        if limits.tokens is not None and process.generated_tokens >= limits.tokens:
            text = f"its limit of {limits.tokens} generated tokens is reached"
            lifecycle.end(self.core, process, Reason.LIMIT, text)
        elif kv_tokens is not None and len(process.tokens) >= kv_tokens:
            whose = "its" if kv_tokens == limits.kv_tokens else f"the group {process.group}'s"
            text = f"{whose} limit of {kv_tokens} tokens of context is reached"
            lifecycle.end(self.core, process, Reason.LIMIT, text)
        elif len(process.tokens) >= min(process.cap, self.workshop.context):
            overflow.full(self, process)

    # -- what the worker says ------------------------------------------------------------------------------------------

    def message(self, message: abi.ToDaemon) -> None:
        """Handles one message of the worker."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise LlmosError(Code.EPROTO, f"{type(message).__name__} comes before a model is loaded, or never")
        handler(message)

    def _opened(self, message: abi.Opened) -> None:
        if self.workshop.pager is not None:
            self.workshop.pager.opened(message)

    def _exported(self, message: abi.Exported) -> None:
        pager = self.workshop.pager
        if pager is None:
            return
        process = pager.bound.get(message.seq)
        pager.exported(message)
        self.planner.replan()
        if process is not None:  # by now it may belong to a conductor that loaded the model anew
            self.core.residency.changed(process)

    def _failed(self, message: abi.Failed) -> None:
        """One sequence cannot go on, or the worker says why it is about to end."""
        pager = self.workshop.pager
        if message.seq is None:
            self.core.events.error("worker", f"{self.entry.name}: {message.message}")
        elif pager is not None and (process := pager.failed(message.seq)) is not None:
            if process.answering:
                lifecycle.fail(self.core, process, message.message)
            else:
                self.core.events.warning("worker", message.message, process.pid)

    # -- crashes -------------------------------------------------------------------------------------------------------

    def worker_lost(self, how: str) -> None:
        """The worker has gone: whoever ran is a suspect, and everybody starts anew."""
        ran = self.planner.worker_lost()
        guilty = self.suspects.crashed(ran)
        self.core.events.error("worker", f"the worker of {self.entry.name} ended: {how}; {len(ran)} processes ran")
        for process in list(self.members.values()):
            process.prefill = None
            if process in guilty:
                text = f"the worker of {self.entry.name} crashed {process.crashes} times while running it ({how})"
                lifecycle.end(self.core, process, Reason.ERROR, text)
            elif process.interrupting:
                lifecycle.finish_turn(self.core, process, Reason.INTERRUPT)
        self._restarting = self.core.spawn_task(self._restart())

    def progressed(self, process: Process) -> None:
        """A process that ran in a crash made a token."""
        process.crashes = 0
        self.workshop.crashes = 0
        if self.suspects.clear(process.pid):
            self.wake_all()

    async def _restart(self) -> None:
        try:
            await self.workshop.restart()
        except LlmosError as error:
            self._give_up(error)
        else:
            self._started()

    def _started(self) -> None:
        if self.workshop.info is not None:
            self.device = "gpu" if self.workshop.info.gpu else "cpu"
        self.core.residency.claims.landed(self)
        self.tokenizer.resend()
        self.wake_all()

    def _give_up(self, error: LlmosError) -> None:
        """The model cannot be loaded: turns in progress end, sleeping chats are kept."""
        self.core.residency.dropped(self)
        self.tokenizer.fail(error)
        for process in list(self.members.values()):
            if process.phase is Phase.READY:
                lifecycle.fail(self.core, process, str(error))

    def wake_all(self) -> None:
        """Everybody is looked at again."""
        for process in list(self.members.values()):
            self.changed(process)


def _cap(process: Process, kv_tokens: int | None, context: int) -> int:
    """The longest context its limits allow; one whose worker must not end the turn stands still just before that."""
    cap = NO_LIMIT if process.overflow is Overflow.STOP else context - 1
    if process.overflow is Overflow.SUMMARISE:
        cap -= reserve(context)
    if process.limits.tokens is not None:
        cap = min(cap, len(process.tokens) + max(0, process.limits.tokens - process.generated_tokens))
    if kv_tokens is not None:
        cap = min(cap, kv_tokens)
    return cap
