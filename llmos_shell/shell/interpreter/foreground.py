"""A job in the foreground: it has the terminal while there is a program in it, is waited for, and may be stopped."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from typing import TYPE_CHECKING

from llmos_shell.shell.interpreter.control import StopRequested
from llmos_shell.shell.interpreter.hostproc import describe_signal, group_exists
from llmos_shell.shell.interpreter.jobs import HostMember, Job

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

STOPPED = 148
"""Exit status of what Ctrl-Z stopped: 128 + SIGTSTP."""


def put_in_foreground(shell: Shell, job: Job) -> None:
    """From now on Ctrl-Z stops the job, and its group, if it has one, has the terminal while there is a program in it.

    A Ctrl-Z that came before is none of its business.
    """
    if shell.terminal is not None:
        shell.terminal.take_missed_stop()
    if job.group is not None:
        job.on_new_group = lambda: _lend(shell, job)
        job.on_idle = lambda: _reclaim(shell, job)


def _reclaim(shell: Shell, job: Job) -> None:
    """Takes the terminal back if no program of the job is left, so that Ctrl-C reaches the shell."""
    if shell.terminal is not None and not group_exists(job.group or 0):
        shell.terminal.take_back(restore_modes=job.was_killed())


def _lend(shell: Shell, job: Job) -> None:
    """Gives a job the terminal; it may have tried to use it already, and stopped."""
    if shell.terminal is not None and job.group:
        shell.terminal.lend(job.group)
        job.wake()


def continue_in_foreground(shell: Shell, job: Job) -> None:
    """Gives a job the terminal, then lets it go on."""
    if shell.job_control:
        put_in_foreground(shell, job)
        if shell.terminal is not None and job.group:
            if job.modes is not None:
                shell.terminal.set_modes(job.modes)
            shell.terminal.lend(job.group)
    job.proceed()


def wait_foreground(shell: Shell, job: Job, *, interrupted: bool = False) -> int:
    """Waits for a job that has the terminal; if it stops, it goes to the table. Its status."""
    terminal = shell.terminal if shell.job_control else None
    while True:
        try:
            with terminal.stoppable() if terminal is not None else nullcontext():
                if terminal is not None and terminal.take_missed_stop():
                    raise StopRequested
                job.wait_hosts()
                if terminal is not None and not job.stopped:
                    job.note_idle()
                    if job.was_interrupted() and not job.done:
                        job.interrupt()
                if not job.stopped:
                    job.wait_threads()
            break
        except KeyboardInterrupt:
            interrupted = True
            job.interrupt()
        except StopRequested:
            job.signal(signal.SIGSTOP)
    with job.group_lock:  # a thread that is just starting a program gives it the terminal before this, or not at all
        job.on_new_group = job.on_idle = None
    if terminal is not None:
        job.modes = terminal.modes() if job.stopped else None
        terminal.take_back(restore_modes=job.stopped or job.was_killed())
    if job.stopped:
        return suspend(shell, job)
    if job.number:
        shell.jobs().remove(job)
    status = job.status(pipefail=shell.options.pipefail)
    if terminal is not None:
        interrupted = job.ended_by == signal.SIGINT
    elif interrupted:
        interrupted = job.status() == 128 + signal.SIGINT
    if job.was_interrupted() or interrupted:
        raise KeyboardInterrupt
    for member in job.members:
        if isinstance(member, HostMember) and member is job.members[-1]:
            tell_signal(shell, member.wait_status)
    return status


def suspend(shell: Shell, job: Job) -> int:
    """Enters a stopped job into the table."""
    job.signal(signal.SIGSTOP)  # what Ctrl-Z did not reach, or has come too early for
    jobs = shell.outermost().jobs()
    jobs.add(job)
    job.shown_state = job.state()
    shell.say(f"\n{jobs.describe(job)}")
    return STOPPED


def tell_signal(shell: Shell, wait_status: int) -> None:
    """Says which signal ended a program, but for those that people expect."""
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        if number not in (signal.SIGINT, signal.SIGPIPE):
            shell.say(describe_signal(number) + (" (core dumped)" if os.WCOREDUMP(wait_status) else ""))
