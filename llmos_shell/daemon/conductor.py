"""One loaded model: what its worker runs, and what comes of it.

Decides the run set (with the scheduler and the pager), feeds prompts, and turns the worker's steps into tokens and text
of processes. Survives its worker: after a crash everything is opened again on a new one (`recovery` says who may run).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry, Reason
from llmos_shell.daemon import lifecycle
from llmos_shell.daemon.pager import PoolRoom
from llmos_shell.daemon.process import Phase, Process
from llmos_shell.daemon.prompts import Tokenizer
from llmos_shell.daemon.scheduler import Scheduler
from llmos_shell.daemon.suspects import Suspects
from llmos_shell.daemon.workshop import Workshop

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

REPLAN_SECONDS = 0.05
"""How often a step makes the scheduler look again while somebody waits."""

DECODE_STALL_SECONDS = 0.08
"""How much a prompt may prolong a step in which others decode."""

FIRST_BUDGET = 256
MIN_BUDGET = 32


class Conductor:
    """The processes of one model, and its worker."""

    def __init__(self, core: Core, entry: ModelEntry) -> None:
        self.core = core
        self.entry = entry
        self.members: dict[int, Process] = {}
        self.scheduler = Scheduler(core.policy, lambda text: core.events.warning("sched", text))
        self.suspects = Suspects()
        self.workshop = Workshop(core, entry, self._message, self._lost)
        self.tokenizer = Tokenizer(self)
        self._sent: abi.Run | None = None
        self._scheduled = False
        self._planned_at = 0.0
        self._prefill_rate = 0.0  # tokens per second
        self._handlers = {
            abi.Step: self._step,
            abi.Tokens: self.tokenizer.answered,
            abi.Opened: self._opened,
            abi.Exported: self._exported,
            abi.Failed: self._failed,
            abi.Stats: self.workshop.note_stats,
        }

    # -- for the other parts -------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Loads the model. Raises what the worker failed with."""
        await self.workshop.start(self)
        self._started()

    def send(self, message: Struct) -> None:
        """A message for the worker; one for a worker that is down is dropped, for it will start from nothing."""
        self.workshop.send(message)

    def attach(self, process: Process) -> None:
        """Makes a process one of this model's."""
        if process.pid not in self.members:
            self.members[process.pid] = process
            foreground = process.chat and process.session != 0
            self.scheduler.add(process.pid, process.nice, self.core.now(), foreground)
        self.changed(process)

    def changed(self, process: Process) -> None:
        """A process wants to run, or no longer does, or its limits are others."""
        if process.pid not in self.members:
            return
        now = self.core.now()
        if process.wants_to_run and self.suspects.may_run(process.pid):
            process.cap = self._cap(process)
            self.scheduler.wake(process.pid, now)
            lifecycle.start_waiting(process)
        else:
            self.scheduler.sleep(process.pid, now)
            if process.phase is Phase.IDLE and self.workshop.pager is not None:
                self.workshop.pager.fell_asleep(process)
        process.topup_at = 0
        self.replan()

    def release(self, process: Process, *, cache: bool) -> None:
        """A process has ended."""
        if self.members.pop(process.pid, None) is None:
            return
        self.scheduler.remove(process.pid)
        if self.workshop.pager is not None:
            self.workshop.pager.forget(process, cache=cache)
        if self.suspects.clear(process.pid):
            self._wake_all()
        self.replan()

    def renice(self, process: Process) -> None:
        """Its nice value is another."""
        self.scheduler.renice(process.pid, process.nice)
        self.replan()

    def interrupt(self, process: Process, reason: Reason) -> None:
        """Ends the present turn, as soon as the worker has said all that it did before it heard of it."""
        if self.workshop.pager is None:
            lifecycle.finish_turn(self.core, process, reason)
            return
        process.interrupting = True
        self.changed(process)
        self._plan()
        self.tokenizer.fence(lambda: self._interrupted(process, reason))

    def _interrupted(self, process: Process, reason: Reason) -> None:
        if process.interrupting and process.phase is Phase.READY:
            lifecycle.finish_turn(self.core, process, reason)

    @property
    def busy(self) -> bool:
        """Whether some process wants to run, or is about to."""
        return any(p.answering for p in self.members.values())

    # -- the run set ---------------------------------------------------------------------------------------------------

    def replan(self) -> None:
        """Decides the run set again at the end of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self.core.loop.call_soon(self._plan)

    def _plan(self) -> None:
        self._scheduled = False
        pager = self.workshop.pager
        if pager is None:
            return
        now = self._planned_at = self.core.now()
        running = [p.pid for p in self.members.values() if p.running and p.seq is not None and p.wants_to_run]
        room = PoolRoom(pager, self.members, running)
        try:
            order = list(self.scheduler.choose(running, room, now).run)
        except Exception as error:
            self.core.events.exception("sched", error)
            order = running
        order = self._grow(order)
        chosen = set(order)
        for process in self.members.values():
            if lifecycle.set_running(process, process.pid in chosen) and process.watchers:
                process.notify()
        grants = tuple(abi.Grant(self.members[pid].seq or 0, self.members[pid].limit) for pid in order)
        run = abi.Run(grants, self._budget(order))
        if run != self._sent:
            self._sent = run
            self.send(run)

    def _grow(self, order: list[int]) -> list[int]:
        """Grants pages in order; whoever cannot get even one makes the least deserving leave."""
        pager = self.workshop.pager
        assert pager is not None
        members = self.members
        kept = list(order)
        for pid in order:
            process = members[pid]
            if process.seq is None:
                kept.remove(pid)
                continue
            if pid not in kept:
                continue
            length = len(process.tokens)
            while pager.grant(process) <= length < min(process.cap, pager.context):
                if pager.make_resident(process, kept):
                    continue
                last = kept[-1]
                if last == pid and len(kept) == 1:
                    break
                kept.pop()
                if last == pid:
                    break
                pager.park(members[last])
        for pid in list(kept):
            process = members[pid]
            if len(process.tokens) >= min(process.cap, pager.context):
                kept.remove(pid)
                self._at_limit(process)
        return [pid for pid in kept if pid in members]

    def _at_limit(self, process: Process) -> None:
        """Its context may not grow any more."""
        pager = self.workshop.pager
        assert pager is not None
        limits = process.limits
        if limits.tokens is not None and process.generated_tokens >= limits.tokens:
            text = f"its limit of {limits.tokens} generated tokens is reached"
            lifecycle.end(self.core, process, Reason.LIMIT, text)
        elif limits.kv_tokens is not None and len(process.tokens) >= limits.kv_tokens:
            text = f"its limit of {limits.kv_tokens} tokens of context is reached"
            lifecycle.end(self.core, process, Reason.LIMIT, text)
        elif len(process.tokens) >= pager.context:
            lifecycle.finish_turn(self.core, process, Reason.CONTEXT)

    def _cap(self, process: Process) -> int:
        """The longest context its limits allow."""
        cap = 1 << 62
        if process.limits.tokens is not None:
            cap = len(process.tokens) + max(0, process.limits.tokens - process.generated_tokens)
        if process.limits.kv_tokens is not None:
            cap = min(cap, process.limits.kv_tokens)
        return cap

    def _budget(self, order: list[int]) -> int:
        """Prompt tokens per step: all that fit when nobody decodes, else what does not stall those who do."""
        info = self.workshop.info
        assert info is not None
        if not any(self.members[pid].seq is not None and self._decodes(self.members[pid]) for pid in order):
            return info.max_batch
        rate = self._prefill_rate
        wanted = rate * DECODE_STALL_SECONDS if rate else FIRST_BUDGET
        budget = 1 << max(0, int(wanted)).bit_length() >> 1
        return max(MIN_BUDGET, min(info.max_batch, budget))

    @staticmethod
    def _decodes(process: Process) -> bool:
        return len(process.tokens) > process.turn_start

    # -- what the worker says ------------------------------------------------------------------------------------------

    def _message(self, message: abi.ToDaemon) -> None:
        self._handlers[type(message)](message)  # type: ignore[operator]

    def _step(self, step: abi.Step) -> None:
        """Tokens, text and progress of one step."""
        pager = self.workshop.pager
        if pager is None:
            return
        bound, ledger, core = pager.bound, pager.ledger, self.core
        now = core.now()
        charge: dict[int, int] = {}
        touched: list[Process] = []
        prompt_tokens = 0
        dirty = bool(step.pressure)
        for part in step.prefilled:
            process = bound.get(part.seq)
            prompt_tokens += part.tokens
            if process is None:
                continue
            charge[process.pid] = part.tokens
            process.prefill = (part.done, part.total)
            if part.done > process.computed and not process.leaving:
                ledger.computed(part.seq, process.tokens[process.computed : part.done])
                process.computed = part.done
            touched.append(process)
        for row in step.rows:
            process = bound.get(row.seq)
            if process is None:
                continue
            tokens = process.tokens
            start = len(tokens)
            if start > process.computed and not process.leaving:
                ledger.computed(row.seq, tokens[process.computed :])
                process.computed = start
            tokens.append(row.token)
            text = row.text
            if row.logprob is not None:
                process.output.append_logprob(row.logprob)
            if text:
                process.output.append(text)
            core.append(process, start, (row.token,), text)
            process.generated_tokens += 1
            process.count_tokens(1, now)
            if process.pid not in charge:
                charge[process.pid] = 1
            elif process.prefill is not None:
                process.prefill = None
                dirty = True
            if process.first_token_seconds is None:
                process.first_token_seconds = core.wall() - process.started
            if process.crashes:
                self._progressed(process)
            if start + 1 >= process.topup_at or start + 1 >= process.limit:
                dirty = True
            if process.watchers:
                touched.append(process)
        for done in step.finished:
            process = bound.get(done.seq)
            if process is not None:
                self._finished(process, done)
                dirty = True
        self._account(charge, step.seconds, prompt_tokens)
        core.tokens_total += len(step.rows)
        core.count_tokens(len(step.rows), now)
        for process in touched:
            process.known_computed = max(process.known_computed, process.computed)
            process.notify()
        if dirty or (self.scheduler.runnable and now - self._planned_at > REPLAN_SECONDS):
            self.replan()

    def _finished(self, process: Process, done: abi.Finished) -> None:
        """The worker ended a turn."""
        pager = self.workshop.pager
        assert pager is not None and process.seq is not None
        if process.phase is not Phase.READY:
            return
        reason = Reason(done.reason)
        if reason is Reason.EOS and len(process.tokens) > process.computed and not process.leaving:
            pager.ledger.computed(process.seq, process.tokens[process.computed :])
            process.computed = len(process.tokens)
        process.known_computed = max(process.known_computed, process.computed)
        if done.text:
            process.output.append(done.text)
            self.core.append(process, len(process.tokens), (), done.text)
        if process.limits.tokens is not None and process.generated_tokens >= process.limits.tokens and process.chat:
            self._at_limit(process)
        else:
            lifecycle.finish_turn(self.core, process, reason)

    def _account(self, charge: dict[int, int], seconds: float, prompt_tokens: int) -> None:
        total = sum(charge.values())
        if not total:
            return
        self.scheduler.charge_step(charge, seconds)
        each = seconds / total
        members = self.members
        for pid, tokens in charge.items():
            process = members.get(pid)
            if process is not None:
                process.device_seconds += each * tokens
        if prompt_tokens >= MIN_BUDGET and seconds > 0:
            rate = prompt_tokens / seconds
            self._prefill_rate = rate if not self._prefill_rate else 0.7 * self._prefill_rate + 0.3 * rate

    def _opened(self, message: abi.Opened) -> None:
        pager = self.workshop.pager
        if pager is not None:
            pager.opened(message)

    def _exported(self, message: abi.Exported) -> None:
        pager = self.workshop.pager
        if pager is not None:
            pager.exported(message)
            self.replan()

    def _failed(self, message: abi.Failed) -> None:
        """One sequence cannot go on, or the worker says why it is about to end."""
        pager = self.workshop.pager
        if message.seq is None:
            self.core.events.error("worker", f"{self.entry.name}: {message.message}")
        elif pager is not None and (process := pager.bound.get(message.seq)) is not None:
            lifecycle.end(self.core, process, Reason.ERROR, message.message)

    # -- crashes -------------------------------------------------------------------------------------------------------

    def _started(self) -> None:
        self._sent = None
        self.tokenizer.resend()
        self._wake_all()

    def _lost(self, how: str) -> None:
        """The worker has gone: whoever ran is a suspect, everybody starts anew."""
        ran = [p for p in self.members.values() if p.running]
        for process in ran:
            process.running = False
        guilty = self.suspects.crashed(ran)
        for process in self.members.values():
            process.prefill = None
        self.core.events.error("worker", f"the worker of {self.entry.name} ended: {how}; {len(ran)} processes ran")
        for process in guilty:
            text = f"the worker of {self.entry.name} crashed {process.crashes} times while running it ({how})"
            lifecycle.end(self.core, process, Reason.ERROR, text)
        for process in list(self.members.values()):
            if process.interrupting:
                lifecycle.finish_turn(self.core, process, Reason.INTERRUPT)
        self.core.spawn_task(self._restart())

    async def _restart(self) -> None:
        try:
            await self.workshop.restart(self)
        except LlmosError as error:
            self.give_up(error)
            return
        self._started()

    def give_up(self, error: LlmosError) -> None:
        """The model cannot be loaded: turns in progress end, sleeping chats are kept."""
        self.tokenizer.fail(error)
        for process in list(self.members.values()):
            if process.answering:
                lifecycle.fail(self.core, process, str(error))
        self.core.residency.dropped(self)

    def _progressed(self, process: Process) -> None:
        process.crashes = 0
        self.workshop.crashes = 0
        if self.suspects.clear(process.pid):
            self._wake_all()

    def _wake_all(self) -> None:
        for process in list(self.members.values()):
            self.changed(process)


def refuse_too_long(entry: ModelEntry, tokens: int, context: int, kv_tokens: int | None) -> None:
    """Raises E2BIG when so many tokens leave no room for an answer."""
    if tokens >= context:
        raise LlmosError(
            Code.E2BIG,
            f"the prompt is {tokens} tokens long, but the context of {entry.name} holds {context}",
            hint="shorten it, or use a model with a longer context",
        )
    if kv_tokens is not None and tokens >= kv_tokens:
        raise LlmosError(Code.E2BIG, f"the prompt is {tokens} tokens long, but its limit is {kv_tokens} tokens of context")


