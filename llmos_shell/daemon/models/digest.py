"""The token path: what a worker says of a step becomes tokens, text, progress and device time of processes.

Everything here is per token; the budget is 20 µs for all of it together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos_shell.abi import worker as abi
from llmos_shell.abi.types import Reason
from llmos_shell.daemon.memory.pager import Pager
from llmos_shell.daemon.processes import lifecycle
from llmos_shell.daemon.processes.process import Phase, Process

if TYPE_CHECKING:
    from llmos_shell.daemon.models.conductor import Conductor


class Digest:
    """Takes in the steps of one worker."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._core = conductor.core

    def step(self, step: abi.Step) -> None:
        """One step."""
        conductor, pager = self._conductor, self._conductor.workshop.pager
        if pager is None:
            return
        now = self._core.now()
        charge: dict[int, int] = {}  # tokens computed, by PID
        touched: list[Process] = []
        dirty = False
        if step.prefilled:
            self._prefilled(pager, step, charge, touched)
        if step.rows:
            dirty = self._rows(pager, step.rows, charge, touched, now) or dirty
            self._core.count_tokens(len(step.rows), now)
        for done in step.finished:
            self._finished(pager, done)
            dirty = True
        self._note(step)
        self._charge(charge, step.seconds)
        for process in touched:
            process.notify()
        if step.pressure:
            conductor.planner.pressed(step.pressure)
        if dirty:
            conductor.planner.replan()
        else:
            conductor.planner.replan_if_due(now)

    def _prefilled(self, pager: Pager, step: abi.Step, charge: dict[int, int], touched: list[Process]) -> None:
        for part in step.prefilled:
            process = pager.bound.get(part.seq)
            if process is None:
                continue
            charge[process.pid] = part.tokens
            process.prefill = (part.done, part.total)
            pager.computed(process, part.done)
            touched.append(process)

    def _note(self, step: abi.Step) -> None:
        """What the step took, for the next ones' budget of prompt tokens."""
        prefilled = sum(part.tokens for part in step.prefilled)
        decoded = len(step.rows)
        if prefilled:
            prompts = {part.seq for part in step.prefilled}
            decoded = sum(row.seq not in prompts for row in step.rows)
        self._conductor.planner.note_step(decoded, prefilled, step.seconds)

    def _rows(
        self, pager: Pager, rows: tuple[abi.Row, ...], charge: dict[int, int], touched: list[Process], now: float
    ) -> bool:
        """Sampled tokens; returns whether the run set should be looked at again."""
        bound, append, computed = pager.bound, self._core.append, pager.computed
        dirty = False
        for row in rows:
            process = bound.get(row.seq)
            if process is None:
                continue
            tokens, text = process.tokens, row.text
            start = len(tokens)
            computed(process, start)
            tokens.append(row.token)
            if row.logprob is not None:
                process.output.append_logprob(row.logprob)
            if text:
                process.output.append(text)
            append(process, start, (row.token,), text)
            process.held = row.held
            process.generated_tokens += 1
            process.count_tokens(1, now)
            if process.pid not in charge:
                charge[process.pid] = 1
            elif process.prefill is not None:
                process.prefill = None
                dirty = True
            if process.first_token_seconds is None:
                process.first_token_seconds = self._core.wall() - process.started
            if process.crashes:
                self._conductor.progressed(process)
            if start + 1 >= process.topup_at or start + 1 >= process.limit:
                dirty = True
            if process.watchers:
                touched.append(process)
        return dirty

    def _finished(self, pager: Pager, done: abi.Finished) -> None:
        """The worker ended a turn."""
        process = pager.bound.get(done.seq)
        if process is None or process.phase is not Phase.READY:
            return
        reason = Reason(done.reason)
        process.held = ""
        if reason is Reason.EOS:
            pager.computed(process, len(process.tokens))
        if done.text:
            process.output.append(done.text)
            self._core.append(process, len(process.tokens), (), done.text)
        limit = process.limits.tokens
        if process.chat and limit is not None and process.generated_tokens >= limit:
            self._conductor.at_limit(process)
        else:
            lifecycle.finish_turn(self._core, process, reason)

    def _charge(self, charge: dict[int, int], seconds: float) -> None:
        """Shares a step's time among those it computed tokens of."""
        if not charge:
            return
        self._conductor.scheduler.charge_step(charge, seconds)
        self._core.scheduling.charged(self._conductor, charge, seconds)
