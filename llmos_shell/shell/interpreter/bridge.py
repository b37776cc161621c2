"""Runs the commands of `commands/` for the interpreter, and speaks to the daemon about the shell's jobs.

Imported only when such a command is used: scripts without one pay for neither msgspec nor sockets.
"""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, BinaryIO, TextIO

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import PROC_INFO, PROC_KILL, PROC_WAIT, Kill, Pid, Wait
from llmos_shell.abi.types import ProcessInfo, Signal, State
from llmos_shell.shell import commands
from llmos_shell.shell.command import Command, Context
from llmos_shell.shell.interpreter.control import StopRequested
from llmos_shell.shell.interpreter.execution import LOST_READER
from llmos_shell.shell.interpreter.foreground import STOPPED, suspend
from llmos_shell.shell.interpreter.jobs import Job, Member, ModelMember, ThreadMember

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.redirect import Files
    from llmos_shell.shell.interpreter.shell import Shell


class Streams:
    """A command's three files as Python streams; `close` flushes them and leaves the descriptors open."""

    def __init__(self, files: Files) -> None:
        self._own: list[BinaryIO | TextIO] = []
        self.stdin: BinaryIO = self._reader(_real(files, 0))
        self.out = self._writer(_real(files, 1), sys.stdout, 1)
        self.err = self._writer(_real(files, 2), sys.stderr, 2)

    def _reader(self, fd: int) -> BinaryIO:
        if fd == 0:
            return sys.stdin.buffer
        stream = open(fd if fd >= 0 else "/dev/null", "rb", closefd=fd < 0)  # noqa: SIM115
        self._own.append(stream)
        return stream

    def _writer(self, fd: int, standard: TextIO, number: int) -> TextIO:
        if fd == number:
            return standard
        if fd < 0:
            fd = _closed_for_writing()
            stream = open(fd, "w", encoding="utf-8", closefd=True)  # noqa: SIM115
        else:
            stream = open(fd, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        self._own.append(stream)
        return stream

    def close(self) -> None:
        """Writes out what is buffered. Raises `OSError`."""
        error: OSError | None = None
        for stream in (*self._own, self.out, self.err):
            try:
                if stream in self._own:
                    stream.close()
                else:
                    stream.flush()
            except OSError as raised:
                error = error or raised
            except ValueError:
                pass
        if error is not None:
            raise error


def _real(files: Files, fd: int) -> int:
    try:
        return files.get(fd)
    except OSError:
        return -1


def _closed_for_writing() -> int:
    """A descriptor that every write to fails with EBADF, for a command whose output was closed."""
    import os

    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def run_llmos(shell: Shell, words: list[str]) -> int:
    """Runs a command with the shell's files; in the foreground Ctrl-Z makes a stopped job of what it started."""
    command = commands.find(words[0])
    if command is None:
        return shell.complain(f"{words[0]}: command not found", 127)
    tracked = _Tracked(shell)
    streams = Streams(shell.files)
    outer = shell.context
    context = Context(
        shell,
        stdin=streams.stdin,
        out=streams.out,
        err=streams.err,
        background=shell.background,
        nice=outer.nice if outer is not None else 0,
        detached=outer.detached if outer is not None else False,
        on_track=tracked.add,
        on_reach=tracked.reach,
        place=shell.place(),
        handover=shell.member.handover if shell.member is not None else None,
    )
    status = _invoke(shell, command, words, context, tracked)
    try:
        streams.close()
    except BrokenPipeError:
        return shell.lost_reader()
    except OSError as error:
        if error.errno == context.told_errno:
            return status or 1  # the command has said so
        return shell.complain(f"{words[0]}: cannot write: {(error.strerror or str(error)).lower()}", 1)
    finally:
        tracked.forget()
    return shell.lost_reader() if status == LOST_READER else status


class _Tracked:
    """The model processes that a running command has announced."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._outer = shell.context  # of the command that runs this one
        self.pids: list[int] = []
        self.offsets: dict[int, int] = {}

    def add(self, pid: int) -> None:
        self.pids.append(pid)
        for timer in self._shell.timers:
            if pid not in timer:  # a command that runs another one announces its processes again
                timer.append(pid)
        self._shell.session().own(pid)
        if self._outer is not None:
            self._outer.track(pid)
        elif self._shell.member is not None and self._shell.job is not None:
            self._shell.job.adopt_model(pid, self._shell.member)

    def reach(self, pid: int, offset: int) -> None:
        self.offsets[pid] = offset

    def forget(self) -> None:
        jobs = self._shell.outermost().jobs()
        for pid in self.pids:
            if jobs.of_pid(pid) is None:
                self._shell.session().disown(pid)


def _invoke(shell: Shell, command: Command, words: list[str], context: Context, tracked: _Tracked) -> int:
    terminal = shell.terminal if shell.member is None and not shell.background else None
    if threading.current_thread() is not threading.main_thread():
        terminal = None
    shell.outermost().interrupts = 0
    try:
        with terminal.stoppable() if terminal is not None else nullcontext():
            status = commands.invoke(command, words[1:], context)
    except StopRequested:
        with suppress(OSError, ValueError):
            context.out.flush()  # it may have come before what was written last was to be seen
        return _stop(shell, tracked)
    if status == 130 and shell.member is None and shell.outermost().interrupts:
        raise KeyboardInterrupt
    return status


def _stop(shell: Shell, tracked: _Tracked) -> int:
    """Ctrl-Z: stops the processes, and makes a job of them."""
    if not tracked.pids:
        shell.say("")
        return STOPPED
    for pid in tracked.pids:
        signal_model(shell, pid, "STOP")
    members: list[Member] = [ModelMember(pid, tracked.offsets.get(pid)) for pid in tracked.pids]
    if shell.pipeline is not None:
        shell.pipeline.members += members
        return STOPPED
    assert shell.current is not None
    job = shell.new_job(shell.current, own_group=False)
    job.members = members
    return suspend(shell, job)


# -- model processes of jobs -----------------------------------------------------------------------------------------


def signal_model(shell: Shell, pid: int, name: str) -> None:
    """Sends a signal to a model process; one that has ended is no error, nor is a daemon that went away."""
    try:
        shell.client().call(PROC_KILL, Kill(pid, Signal(name)))
    except LlmosError as error:
        if error.code not in (Code.ESRCH, Code.EPIPE, Code.EINVAL):
            shell.complain(str(error), 1)


def model_info(shell: Shell, pid: int) -> ProcessInfo | None:
    """What the daemon knows about a process; None when it has gone."""
    try:
        info: ProcessInfo = shell.client().call(PROC_INFO, Pid(pid))
    except LlmosError:
        return None
    return info


def refresh(shell: Shell, job: Job) -> None:
    """Brings the state of a job's model processes up to date."""
    for member in job.members:
        if member.status is not None or not isinstance(member, ModelMember | ThreadMember):
            continue
        infos = [
            info
            for pid in ([member.pid] if isinstance(member, ModelMember) else member.pids)
            if (info := model_info(shell, pid)) is not None
        ]
        if isinstance(member, ModelMember) and (not infos or infos[0].exit is not None):
            exit = infos[0].exit if infos else None
            member.status = exit.code if exit is not None else 127
        elif infos:
            held = isinstance(member, ThreadMember) and not job.going.is_set()
            member.stopped = held or any(info.state is State.STOPPED for info in infos)


def follow(shell: Shell, member: ModelMember) -> int:
    """Shows the rest of a continued process's output; its exit status. Raises `StopRequested`."""
    from llmos_shell.shell.streaming import describe_exit, follow_output

    def reach(_pid: int, offset: int) -> None:
        member.offset = offset

    streams = Streams(shell.files)
    context = Context(
        shell,
        stdin=streams.stdin,
        out=streams.out,
        err=streams.err,
        background=shell.background,
        on_reach=reach,
    )
    terminal = shell.terminal if threading.current_thread() is threading.main_thread() else None
    try:
        with terminal.stoppable() if terminal is not None else nullcontext():
            followed = follow_output(context, member.pid, offset=0 if member.offset is None else member.offset)
        if context.is_terminal():
            context.out.write("\n")
    except LlmosError as error:
        return context.error("fg", error)
    finally:
        with suppress(OSError):
            streams.close()
    exit = followed.exit
    if exit is None:
        return 0
    with suppress(LlmosError):
        shell.client().call(PROC_WAIT, Wait(exit.pid))
    why = describe_exit(exit)
    if why and not followed.interrupted:
        context.error("fg", f"process {exit.pid}: {why}")
    return exit.code


def wait_model(shell: Shell, pid: int) -> int:
    """Waits until a process exits. Raises `LlmosError`."""
    exit = shell.client().call(PROC_WAIT, Wait(pid))
    return exit.code if exit is not None else 0
