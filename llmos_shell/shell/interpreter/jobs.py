"""Jobs: what was started with `&` or stopped with Ctrl-Z. A job has members: programs of the host, threads that run
built-in commands and groups, and model processes whose command was stopped in the foreground.

Owns the table, the states and the signals; starting is `pipelines.py`, commands about jobs are `commands/jobs.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from llmos_shell.lang.ast import Command
from llmos_shell.shell.interpreter.hostproc import describe_signal, exit_status, group_of

if TYPE_CHECKING:
    from llmos_shell.shell.handover import Handover

ModelSignaller = Callable[[int, str], None]
"""Sends a signal, by name without SIG, to a model process."""

_MODEL_SIGNALS = {
    signal.SIGHUP: "HUP",
    signal.SIGINT: "INT",
    signal.SIGKILL: "KILL",
    signal.SIGTERM: "TERM",
    signal.SIGSTOP: "STOP",
    signal.SIGTSTP: "STOP",
    signal.SIGCONT: "CONT",
}

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL, signal.SIGPIPE)
"""Signals that threads obey by ending."""

_REMEMBERED = 4096
"""How many statuses of ended jobs are kept."""


class JobError(Exception):
    """There is no such job, or it cannot do that."""


class Member:
    """One element of a pipeline. As such: one that has ended, or never began."""

    status: int | None = None  # exit status once it ended
    stopped = False

    @property
    def pid(self) -> int:
        """What `$!` shows."""
        return 0


class HostMember(Member):
    """A program of the host."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.wait_status = 0

    @property
    def pid(self) -> int:
        """Its PID on the host."""
        return self._pid

    def update(self, wait_status: int) -> None:
        """Takes note of what waitpid said."""
        if os.WIFSTOPPED(wait_status):
            self.stopped = True
        elif os.WIFCONTINUED(wait_status):
            self.stopped = False
        else:
            self.stopped = False
            self.status = exit_status(wait_status)
            self.wait_status = wait_status

    def poll(self, flags: int = os.WNOHANG | os.WUNTRACED | os.WCONTINUED) -> None:
        """Asks the host how it is; with `os.WUNTRACED` alone, waits until it ended or stopped."""
        if self.status is not None:
            return
        try:
            pid, wait_status = os.waitpid(self._pid, flags)
        except ChildProcessError:
            self.status = 127
            return
        if pid:
            self.update(wait_status)


class ThreadMember(Member):
    """A built-in command, a group or a function, run by a thread of this process."""

    def __init__(self, run: Callable[[ThreadMember], int], name: str) -> None:
        self._run = run
        self._lock = threading.Lock()
        self.pids: list[int] = []  # model processes it announced
        self.settled = threading.Event()  # announced a process, or ended
        self.handover: Handover | None = None  # where it is one command, whose output others can go on writing
        self._thread = threading.Thread(target=self._main, name=f"shell: {name}", daemon=True)
        self._native = 0

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()
        self._native = self._thread.native_id or 0

    @property
    def pid(self) -> int:
        """The last model process it announced, else the thread's ID, which is no other process's PID."""
        return self.pids[-1] if self.pids else self._native

    def track(self, pid: int) -> None:
        """The command has started that model process."""
        self.pids.append(pid)
        self.settled.set()

    def join(self) -> None:
        """Waits until it ended. Signal handlers may raise meanwhile."""
        self._thread.join()

    def _main(self) -> None:
        try:
            self.status = self._run(self)
        finally:
            if self.status is None:
                self.status = 1
            self.settled.set()


class ModelMember(Member):
    """A model process whose command was stopped in the foreground; `offset` is how much the terminal has seen."""

    def __init__(self, pid: int, offset: int | None) -> None:
        self._pid = pid
        self.offset = offset
        self.stopped = True

    @property
    def pid(self) -> int:
        """The process's PID."""
        return self._pid


class Job:
    """One job. `group` is the process group of its programs: None if it has none of its own, 0 before the first."""

    def __init__(self, node: Command, *, group: int | None, signal_model: ModelSignaller) -> None:
        self.number = 0  # in the table; 0: not in it
        self._node = node
        self.group = group
        self.members: list[Member] = []
        self.nested: set[int] = set()  # host PIDs started by its threads,
        self._nested_models: list[int] = []  # and model processes by pipelines inside of them
        self.ended_by = 0  # the signal that its threads obey at their next command
        self.negated = False
        self.shown_state = "Running"
        self.going = threading.Event()  # cleared while it is stopped: its threads wait at their next command
        self.going.set()
        self.group_lock = threading.Lock()  # held while a program is started in the group
        self.on_new_group: Callable[[], None] | None = None  # in the foreground: gives the group the terminal,
        self.on_idle: Callable[[], None] | None = None  # and takes it back while there is no program in it
        self.modes: list[Any] | None = None  # of the terminal, as its programs had set them when they were stopped
        self._signal_model = signal_model
        self._signalling = threading.Lock()  # held while it is signalled, or what its threads started joins it

    # -- state -------------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The command, on one line."""
        from llmos_shell.lang.printer import one_line

        return one_line(self._node)

    @property
    def pids(self) -> list[int]:
        """Its model processes."""
        found: list[int] = []
        for member in self.members:
            if isinstance(member, ThreadMember):
                found += member.pids
            elif isinstance(member, ModelMember):
                found.append(member.pid)
        return found + [pid for pid in self._nested_models if pid not in found]

    @property
    def host_pids(self) -> list[int]:
        """Its programs of the host that have not ended, as far as known."""
        own = [member.pid for member in self.members if isinstance(member, HostMember) and member.status is None]
        return own + sorted(self.nested)

    @property
    def pid(self) -> int:
        """The last member's PID."""
        return self.members[-1].pid if self.members else 0

    @property
    def done(self) -> bool:
        """Whether all members ended."""
        return all(member.status is not None for member in self.members)

    @property
    def stopped(self) -> bool:
        """Whether it waits to be continued."""
        return any(member.stopped and member.status is None for member in self.members)

    def status(self, *, pipefail: bool = False) -> int:
        """The exit status, as far as known: the last member's, with `pipefail` the last one that failed."""
        statuses = [member.status or 0 for member in self.members]
        status = statuses[-1] if statuses else 0
        if pipefail:
            status = next((each for each in reversed(statuses) if each), 0)
        return int(not status) if self.negated else status

    def state(self) -> str:
        """As `jobs` shows it."""
        if not self.done:
            return "Stopped" if self.stopped else "Running"
        status = self.members[-1].status or 0
        if 128 < status < 160:
            return describe_signal(status - 128)
        return f"Exit {status}" if status else "Done"

    def poll(self) -> None:
        """Brings the state of its programs up to date, without waiting."""
        for member in self.members:
            if isinstance(member, HostMember):
                member.poll()

    # -- signals -----------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Sends a signal to all members; what cannot get it (a thread and SIGUSR1, say) is left out."""
        with self._signalling:
            if number in _ENDING:
                self.ended_by = number
            if number in (signal.SIGSTOP, signal.SIGTSTP):
                self._hold_threads(True)
            elif number in (signal.SIGCONT, signal.SIGKILL):
                self._hold_threads(False)
            self.signal_hosts(number)
            self._signal_models(self.pids, number)

    def _signal_models(self, pids: Iterable[int], number: int) -> None:
        name = _MODEL_SIGNALS.get(signal.Signals(number)) if number in signal.valid_signals() else None
        if name is not None:
            for pid in pids:
                self._signal_model(pid, name)

    def _hold_threads(self, hold: bool) -> None:
        """Makes threads wait at their next command, or go on."""
        (self.going.clear if hold else self.going.set)()
        for member in self.members:
            if member.status is None and not isinstance(member, HostMember):
                member.stopped = hold

    def signal_hosts(self, number: int) -> None:
        """Sends a signal to its programs of the host."""
        pids = self.host_pids
        if self.group and pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, number)
            pids = [pid for pid in pids if group_of(pid) != self.group]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def adopt(self, pid: int) -> None:
        """One of its threads has started a program, which gets the signal that came too early for it."""
        with self._signalling:
            self.nested.add(pid)
            if number := self._present_signal():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def adopt_model(self, pid: int, member: ThreadMember) -> None:
        """A thread, of the job or of a pipeline inside of it, has started a model process; likewise."""
        with self._signalling:
            member.track(pid)
            if member not in self.members:
                self._nested_models.append(pid)
            if number := self._present_signal():
                self._signal_models([pid], number)

    def _present_signal(self) -> int:
        return self.ended_by or (0 if self.going.is_set() else signal.SIGSTOP)

    def interrupt(self) -> None:
        """Ctrl-C, for those members that the terminal does not reach."""
        with self._signalling:
            self.ended_by = signal.SIGINT
            self._signal_models(self.pids, signal.SIGINT)
            if self.group is not None:
                self.signal_hosts(signal.SIGINT)

    def proceed(self) -> None:
        """Continues it after a stop."""
        for member in self.members:
            member.stopped = False
        self.signal(signal.SIGCONT)
        self.shown_state = "Running"

    def note_idle(self) -> None:
        """A program of its group has ended, perhaps the last one."""
        with self.group_lock:
            if self.on_idle is not None:
                self.on_idle()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait_hosts(self) -> None:
        """Waits until every program ended or stopped. When one has stopped, those that Ctrl-Z came too early for do."""
        hosts = [member for member in self.members if isinstance(member, HostMember)]
        for member in hosts:
            while member.status is None and not member.stopped:
                if any(other.stopped for other in hosts):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(member.pid, signal.SIGSTOP)
                member.poll(os.WUNTRACED)

    def wait_threads(self) -> None:
        """Waits until every thread ended; not while they are held."""
        for member in self.members:
            if isinstance(member, ThreadMember) and (self.going.is_set() or member.status is not None):
                member.join()

    def wait_to_end(self, *, heed_stops: bool) -> None:
        """Waits in the background, until all that can go on by itself has ended; or, if heeded, one member stopped."""
        for member in self.members:
            while isinstance(member, HostMember) and member.status is None and not (heed_stops and self.stopped):
                member.poll(os.WUNTRACED if heed_stops else 0)
        if not (heed_stops and self.stopped):
            self.wait_threads()

    def was_interrupted(self) -> bool:
        """Whether Ctrl-C ended a program of it."""
        return any(
            isinstance(member, HostMember)
            and os.WIFSIGNALED(member.wait_status)
            and os.WTERMSIG(member.wait_status) == signal.SIGINT
            for member in self.members
        )

    def was_killed(self) -> bool:
        """Whether a signal ended a program of it, which may have left the terminal in a strange mode."""
        return any(isinstance(member, HostMember) and os.WIFSIGNALED(member.wait_status) for member in self.members)

    def wake(self) -> None:
        """Continues programs that stopped because they used the terminal a moment too early."""
        if self.group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGCONT)


class Jobs:
    """The table of a shell's jobs, in the order of their numbers."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._recent: list[int] = []  # numbers; the last is `%+`, the one before `%-`
        self._ended: dict[int, int] = {}  # statuses of `$!` whose jobs have left the table,
        self._untold: list[int] = []  # and those of them that nobody has waited for

    def __iter__(self) -> Iterator[Job]:
        return iter(sorted(self._jobs.values(), key=lambda job: job.number))

    def __len__(self) -> int:
        return len(self._jobs)

    def copy(self) -> Jobs:
        """A table of the same jobs, for a subshell."""
        other = Jobs()
        other._jobs = self._jobs.copy()
        other._recent = self._recent.copy()
        other._ended = self._ended.copy()
        other._untold = self._untold.copy()
        return other

    def add(self, job: Job) -> None:
        """Enters a job, with the next number; it becomes the current one."""
        if not job.number:
            job.number = max(self._jobs, default=0) + 1
            self._jobs[job.number] = job
        self.touch(job)

    def touch(self, job: Job) -> None:
        """Makes a job the current one."""
        if job.number in self._recent:
            self._recent.remove(job.number)
        self._recent.append(job.number)

    def remove(self, job: Job) -> None:
        """Forgets a job; its last status can still be asked for by PID."""
        if self._jobs.pop(job.number, None) is not None:
            self._recent.remove(job.number)
            if job.done:
                self._ended[job.pid] = job.status()
                while len(self._ended) > _REMEMBERED:
                    del self._ended[next(iter(self._ended))]
        job.number = 0

    def poll(self) -> None:
        """Brings all states up to date."""
        for job in self:
            job.poll()

    def mark(self, job: Job) -> str:
        """`+` for the current job, `-` for the one before, else a space."""
        stopped = [number for number in self._recent if self._jobs[number].stopped]
        order = [number for number in self._recent if number not in stopped] + stopped
        return "+" if order[-1:] == [job.number] else "-" if order[-2:-1] == [job.number] else " "

    def find(self, spec: str) -> Job | None:
        """A job by `%N`, `%%`, `%+`, `%-`, `%beginning` or `%?part`; None when there is none."""
        what = spec.removeprefix("%")
        if what.isascii() and what.isdigit():
            return self._jobs.get(int(what))
        if what in ("", "%", "+", "-"):
            wanted = "-" if what == "-" else "+"
            found = [job for job in self if self.mark(job) == wanted]
            return found[0] if found else None
        if what.startswith("?"):
            matching = [job for job in self if what[1:] in job.text]
        else:
            matching = [job for job in self if job.text.startswith(what)]
        return matching[-1] if len(matching) == 1 else None

    def resolve(self, spec: str) -> Job:
        """Like `find`, but raises `JobError`."""
        job = self.find(spec)
        if job is None:
            raise JobError(f"{spec}: no such job: `jobs` lists them")
        return job

    def of_pid(self, pid: int) -> Job | None:
        """The job that has that PID among its members, of the host or of a model."""
        for job in self:
            if pid in job.pids or any(member.pid == pid for member in job.members) or pid in job.nested:
                return job
        return None

    def ended_status(self, pid: int) -> int | None:
        """The status of a job that ended and left the table, by its `$!`."""
        if pid in self._untold:
            self._untold.remove(pid)
        return self._ended.get(pid)

    def next_untold(self) -> int | None:
        """The status of a job that left the table before anybody waited for it."""
        return self.ended_status(self._untold[0]) if self._untold else None

    def forget_untold(self) -> None:
        """All have been waited for."""
        self._untold.clear()

    def describe(self, job: Job, *, long: bool = False) -> str:
        """One line of `jobs`."""
        pid = f" {job.pid}" if long else ""
        running = " &" if job.state() == "Running" else ""
        return f"[{job.number}]{self.mark(job)}{pid}  {job.state():<23} {job.text}{running}"

    def news(self) -> list[str]:
        """Lines for jobs whose state changed since they were last shown; ended ones leave the table."""
        lines: list[str] = []
        self.poll()
        for job in self:
            state = job.state()
            if job.done:
                lines.append(self.describe(job))
                self.remove(job)
            elif state != job.shown_state:
                lines.append(self.describe(job))
            job.shown_state = state
        return lines

    def discard_ended(self) -> None:
        """Forgets jobs that ended, without a word (non-interactive shells)."""
        self.poll()
        for job in self:
            if job.done:
                self._untold = [*self._untold[-_REMEMBERED:], job.pid]
                self.remove(job)

    def hang_up_hosts(self) -> None:
        """The terminal has gone: programs get SIGHUP; the daemon does the same to the model processes."""
        for job in self:
            job.signal_hosts(signal.SIGHUP)
            job.signal_hosts(signal.SIGCONT)

    def hang_up(self) -> None:
        """The shell ends: its jobs get SIGHUP, and SIGCONT, without which stopped ones could not end."""
        for job in self:
            if not job.done:
                job.signal(signal.SIGHUP)
                job.signal(signal.SIGCONT)
