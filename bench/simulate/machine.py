"""A device in simulated time, driven by the daemon's own scheduler and policies.

Time advances in stretches in which nothing changes: until a request ends, ends its prompt, arrives in the foreground,
or for `REPLAN` at most while somebody waits, as the daemon's planner does it. A step takes
`step + decode * rows + prefill * prompt tokens`, prompts within a budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from workload import Request

from llmos_shell.daemon.sched.scheduler import Scheduler

REPLAN = 1.0


class Speed(NamedTuple):
    """Seconds; those of a small model on two cores by default."""

    step: float = 0.010
    decode: float = 0.001  # per row
    prefill: float = 0.0004  # per prompt token
    budget: int = 64  # prompt tokens per step while others decode
    slots: int = 32
    restore: float = 0.003  # when a preempted one runs again


class Job:
    """One request under way."""

    __slots__ = ("decode", "ended", "first", "prefill", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.prefill, self.decode = request.prompt, request.output
        self.first = self.ended = math.nan


class Outcome(NamedTuple):
    """How one request fared, seconds from its arrival."""

    request: Request
    first: float
    total: float


def simulate(
    requests: Iterable[Request], policy: str, speed: Speed, note: Callable[[Outcome], None]
) -> tuple[float, int]:
    """Tells `note` each outcome as a request ends; returns the seconds it all took, and preemptions."""
    machine = Machine(policy, speed, note)
    for request in requests:
        machine.advance(request.arrival)
        machine.admit(request)
    machine.advance(math.inf)
    return machine.now, machine.preemptions


class Machine:
    """The device and its run set."""

    def __init__(self, policy: str, speed: Speed, note: Callable[[Outcome], None]) -> None:
        self.now, self.preemptions = 0.0, 0
        self._note = note
        self._scheduler, self._speed = Scheduler(policy), speed
        self._jobs: dict[int, Job] = {}
        self._run: tuple[int, ...] = ()
        self._pid = 1
        self._stale = True  # the run set should be decided anew
        self._decided = 0.0

    def admit(self, request: Request) -> None:
        """A request arrives."""
        self._pid += 1
        self._jobs[self._pid] = Job(request)
        deadline = self.now + request.deadline
        self._scheduler.add(self._pid, request.nice, request.foreground, request.group, deadline)
        self._scheduler.wake(self._pid, self.now)
        self._stale = self._stale or request.foreground or len(self._run) < self._speed.slots

    def advance(self, until: float) -> None:
        """Computes up to an instant, or until nothing is left to do."""
        while self.now < until:
            if self._stale or (self._scheduler.runnable and self.now - self._decided > REPLAN):
                self._decide()
            if not self._run:
                if until < math.inf:
                    self.now = until
                return
            self._compute(until)

    def _decide(self) -> None:
        decision = self._scheduler.choose(self._run, self._speed.slots, self.now)
        self.preemptions += len(decision.preempt)
        self.now += self._speed.restore * len(decision.preempt)
        self._run, self._stale, self._decided = decision.run, False, self.now

    def _compute(self, until: float) -> None:
        """One stretch of equal steps."""
        speed, jobs = self._speed, [(pid, self._jobs[pid]) for pid in self._run]
        decoding = [(pid, job) for pid, job in jobs if not job.prefill]
        prompt = next(((pid, job) for pid, job in jobs if job.prefill), None)
        seconds = speed.step + speed.decode * len(decoding)
        chunk = 0
        steps = min((job.decode for _, job in decoding), default=1 << 30)
        if prompt is not None:
            chunk = min(prompt[1].prefill, speed.budget if decoding else 512)
            seconds += speed.prefill * chunk
            steps = min(steps, max(1, prompt[1].prefill // chunk))
        horizon = min(until, self._decided + REPLAN if self._scheduler.runnable else math.inf)
        if horizon < math.inf:
            steps = max(1, min(steps, math.ceil((horizon - self.now) / seconds)))
        self.now += steps * seconds
        rows = {pid: steps for pid, _ in decoding}
        if prompt is not None:
            rows[prompt[0]] = chunk * steps
            prompt[1].prefill -= chunk * steps
        self._scheduler.charge_step(rows, steps * seconds)
        for pid, job in decoding:
            if math.isnan(job.first):
                job.first = self.now - (steps - 1) * seconds
            job.decode -= steps
            if job.decode <= 0:
                self._end(pid, job)

    def _end(self, pid: int, job: Job) -> None:
        self._scheduler.remove(pid)
        del self._jobs[pid]
        self._run = tuple(one for one in self._run if one != pid)
        self._stale = True
        arrival = job.request.arrival
        self._note(Outcome(job.request, job.first - arrival, self.now - arrival))


def alone(request: Request, speed: Speed) -> float:
    """Seconds it would take on an idle device."""
    return request.prompt * speed.prefill + (request.output + request.prompt / 512) * (speed.step + speed.decode)


def busy(requests: Iterable[Request], speed: Speed) -> float:
    """Seconds they keep the device busy, with all slots in use, or with a chunk of a prompt in every step."""
    prompt = output = 0
    for one in requests:
        prompt += one.prompt
        output += one.output
    steps = max(prompt / speed.budget, output / speed.slots)
    return prompt * speed.prefill + output * speed.decode + steps * speed.step
