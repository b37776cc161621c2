"""The run set of one worker: who runs, how far, and with what prefill budget.

Asks the scheduler who deserves to run, the pager whether there is room, and sends `Run` only when the answer changed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from llmos_shell.abi import worker as abi
from llmos_shell.daemon.memory.pager import AHEAD_PAGES, Pager
from llmos_shell.daemon.processes import lifecycle
from llmos_shell.daemon.processes.process import Process
from llmos_shell.daemon.sched.pace import HOLD_SECONDS, UNREAD_HOLD_SECONDS, Pace, Prefill
from llmos_shell.daemon.sched.room import PoolRoom
from llmos_shell.daemon.sched.runset import Decision

if TYPE_CHECKING:
    from llmos_shell.daemon.models.conductor import Conductor

REPLAN_SECONDS = 0.05
"""How often a step makes the scheduler look again while somebody waits."""


class Planner:
    """Decisions for one worker."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._core = conductor.core
        self._running: dict[int, Process] = {}
        self._sent: abi.Run | None = None
        self._scheduled = False
        self._planned_at = 0.0
        self._pace = Pace()
        self.paused = False  # another model has the device

    def replan(self) -> None:
        """Decides again at the end of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self._core.loop.call_soon(self.plan)

    def replan_if_due(self, now: float) -> None:
        """Decides again if somebody waits and the last decision is a while ago."""
        if now - self._planned_at > REPLAN_SECONDS and self._conductor.scheduler.runnable:
            self.replan()

    def forget(self, process: Process) -> None:
        """A process has ended."""
        self._running.pop(process.pid, None)

    def halt(self) -> None:
        """Nobody runs until `plan` may decide again, which is when the pager is not frozen."""
        self._note({})
        self._sent = abi.Run((), 0)
        self._conductor.send(self._sent)

    def resend(self) -> None:
        """The worker forgets a grant: the run set is told anew, even if it is to be the same."""
        self._sent = None
        self.replan()

    def worker_lost(self) -> list[Process]:
        """Empties the run set; returns who was in it."""
        ran, self._running, self._sent = list(self._running.values()), {}, None
        for process in ran:
            process.running = False
        return ran

    def pressed(self, seqs: tuple[int, ...]) -> None:
        """These sequences stand still: at their limit, or because the worker's pool is fuller than the ledger says.

        The news may be older than the last grant; so only one that stands still again at the same place is starved.
        """
        pager = self._conductor.workshop.pager
        assert pager is not None
        for seq in seqs:
            process = pager.bound.get(seq)
            if process is None or process.leaving or len(process.tokens) >= process.limit:
                continue
            place = (len(process.tokens), process.limit)
            if process.pressed == place:
                pager.starved(process, set(self._running))
            process.pressed = place
            self._sent = None
        self.replan()

    def note_step(self, decoded: int, prefilled: int, seconds: float) -> None:
        """A step decoded so many rows and computed so many prompt tokens."""
        self._pace.note(decoded, prefilled, seconds)
        self._conductor.sizer.note_step(decoded, prefilled, seconds)
        if prefilled and self._sent is not None and self._prefill() != _prefill_of(self._sent):
            self.replan()

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second, as measured lately; 0 when that is not known yet."""
        return self._pace.prefill_rate

    def plan(self) -> None:
        """Decides now."""
        self._scheduled = False
        conductor, pager = self._conductor, self._conductor.workshop.pager
        if pager is None or pager.frozen or self._core.hibernating:
            return
        now = self._planned_at = self._core.now()
        scheduler, scheduling = conductor.scheduler, self._core.scheduling
        running = [pid for pid, p in self._running.items() if p.resident and p.wants_to_run and scheduler.wants(pid)]
        room = PoolRoom(pager, conductor.members, running, scheduling.groups)
        running = room.within_limits(running)
        try:
            decision = scheduler.choose(running, room, now)
            order = list(decision.run)
            self._trace(decision)
        except Exception as error:
            self._core.events.exception("sched", error)
            order = running
        chosen = self._grow(pager, order)
        stopped = [process for pid, process in self._running.items() if pid not in chosen and process.stopped]
        self._interrupt_for(chosen)
        self._note(chosen)
        scheduling.note_wants(conductor)
        self.paused = not scheduling.may_compute(conductor)
        grants = tuple(abi.Grant(process.seq or 0, process.limit) for process in chosen.values())
        prefill = self._prefill()
        run = abi.Run(() if self.paused else grants, prefill.budget, self._hold(), prefill.spacing)
        if run != self._sent:
            self._sent = run
            conductor.send(run)
        for process in stopped:  # the worker may still be computing with what was granted
            conductor.tokenizer.fence(partial(self._trim, pager, process))

    def _interrupt_for(self, chosen: dict[int, Process]) -> None:
        """Ends a long step of prompts that nobody waits for when somebody comes who is waited for."""
        info = self._conductor.workshop.info
        waited = any(process.foreground and pid not in self._running for pid, process in chosen.items())
        if waited and info is not None and info.can_interrupt:
            prompts = [process for process in self._running.values() if process.prefilling]
            if prompts and not any(process.foreground for process in prompts):
                self._conductor.send(abi.Interrupt())

    def _trim(self, pager: Pager, process: Process) -> None:
        if pager is self._conductor.workshop.pager and process.stopped and not process.running and process.resident:
            pager.fell_asleep(process)

    def _trace(self, decision: Decision) -> None:
        tracer = self._core.scheduling.tracer
        if tracer.on and (decision.start or decision.preempt):
            for pid in decision.preempt:
                tracer.note("preempt", pid, by=decision.start)
            tracer.note(
                "decision", 0, self._conductor.entry.name, policy=self._conductor.scheduler.policy, run=decision.run,
                start=decision.start, preempt=decision.preempt, waiting=self._conductor.scheduler.runnable,
            )  # fmt: skip

    def _note(self, chosen: dict[int, Process]) -> None:
        """Tells the processes who runs now."""
        before, self._running = self._running, chosen
        for pid, process in before.items():
            if pid not in chosen and lifecycle.set_running(process, False):
                self._told(process)
        for process in chosen.values():
            if lifecycle.set_running(process, True):
                self._told(process)

    def _told(self, process: Process) -> None:
        tracer = self._core.scheduling.tracer
        if tracer.on:
            tracer.process(process)
        process.notify()

    def _grow(self, pager: Pager, order: list[int]) -> dict[int, Process]:
        """Grants pages in order; whoever cannot get even one makes the least deserving leave. Ends who may not grow."""
        members = self._conductor.members
        kept = [pid for pid in order if members[pid].resident]
        plenty = pager.ledger.free_pages >= AHEAD_PAGES * len(kept)
        for pid in list(kept):
            process = members[pid]
            length, most = len(process.tokens), pager.most(process)
            while pid in kept and pager.grant(process, AHEAD_PAGES if plenty else 1) <= length < most:
                if pager.make_resident(process, kept):
                    continue
                if len(kept) == 1:
                    break
                last = kept.pop()
                if last != pid:
                    pager.park(members[last])
        for process in [members[pid] for pid in kept]:
            if len(process.tokens) >= pager.most(process):
                self._conductor.at_limit(process)
        return {pid: members[pid] for pid in kept if pid in members and members[pid].wants_to_run}

    def _prefill(self) -> Prefill:
        """What prompts may have. One a person waits for begins at once, whatever is read."""
        info = self._conductor.workshop.info
        assert info is not None
        running = self._running.values()
        decoding = [process for process in running if not process.prefilling]
        if not any(process.readers for process in decoding):  # else who is not read decodes with the others
            decoding = []
        prefill = self._pace.prefill(len(decoding), info.max_batch, info.mixes, info.can_interrupt)
        if self._sent is not None and not prefill.differs(_prefill_of(self._sent)):
            prefill = _prefill_of(self._sent)
        if any(p.foreground and p.prefill is None and p.prefilling for p in running):
            return prefill._replace(spacing=1)
        return prefill

    def _hold(self) -> float:
        """How long news may wait in the worker."""
        read = any(process.readers for process in self._running.values())
        return HOLD_SECONDS if read else UNREAD_HOLD_SECONDS


def _prefill_of(run: abi.Run) -> Prefill:
    return Prefill(run.prefill_budget, run.prefill_spacing)
