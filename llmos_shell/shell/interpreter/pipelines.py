"""Starts programs, pipelines, background jobs and command substitutions, and waits for them.

Programs of the host are started directly; every other element of a pipeline runs in a thread of its own, with a copy
of the shell, while the main thread waits and owns the terminal and the signals.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import nullcontext, suppress
from io import FileIO
from typing import TYPE_CHECKING

from llmos_shell.lang import ast
from llmos_shell.lang.errors import ExpansionError
from llmos_shell.shell.interpreter import folders
from llmos_shell.shell.interpreter.control import ExitShell
from llmos_shell.shell.interpreter.foreground import put_in_foreground, tell_signal, wait_foreground
from llmos_shell.shell.interpreter.hostproc import StartError, exit_status, group_of
from llmos_shell.shell.interpreter.jobs import HostMember, Job, Member, ThreadMember
from llmos_shell.shell.interpreter.redirect import RedirectError, Redirection

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.redirect import Files
    from llmos_shell.shell.interpreter.shell import Shell

PROCESS_FD = 64
"""The lowest descriptor that process substitutions take, out of the way of those that scripts name."""

STARTS_PROCESSES = frozenset({"run", "ask", "chat", "fork", "nice", "nohup", "time"})
"""Commands that soon announce a model process when started with `&`, so that it is worth waiting for `$!`."""


# -- one program -----------------------------------------------------------------------------------------------------


def run_host(shell: Shell, words: list[str], assignments: dict[str, str] | None) -> int:
    """Runs a program of the host to its end. Raises `StartError`."""
    if shell.job is not None:
        return _run_nested(shell, shell.job, words, assignments)
    if not shell.job_control:
        pid = shell.start_host(words, assignments, shell.files, None)
        return wait_plainly(shell, pid)
    job = shell.new_job(shell.current or ast.Simple([], [], []), own_group=True)
    put_in_foreground(shell, job)
    job.members.append(HostMember(_start_in_group(shell, job, words, assignments, shell.files)))
    return wait_foreground(shell, job)


def wait_plainly(shell: Shell, pid: int) -> int:
    """Waits for a program in the shell's own group. Ctrl-C reaches it too, and ends the shell's work if it dies."""
    interrupted = False
    while True:
        try:
            _, wait_status = os.waitpid(pid, os.WUNTRACED if shell.interactive else 0)
        except KeyboardInterrupt:
            interrupted = True
        except ChildProcessError:
            return 127
        else:
            if not os.WIFSTOPPED(wait_status):
                break
            os.kill(pid, signal.SIGCONT)  # nobody could continue it
    status = exit_status(wait_status)
    if interrupted and status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    tell_signal(shell, wait_status)
    return status


def _run_nested(shell: Shell, job: Job, words: list[str], assignments: dict[str, str] | None) -> int:
    """A program started by the thread of a job."""
    pid = _start_in_group(shell, job, words, assignments, shell.files)
    job.adopt(pid)
    member = HostMember(pid)
    _wait_in_thread(job, member)
    _obey_interrupt(job, member)
    return member.status or 0


def _wait_in_thread(job: Job, member: HostMember) -> None:
    """Waits until a program ends that a thread of the job has started, however often it is stopped and continued."""
    while member.status is None:
        member.poll(os.WUNTRACED)
        if member.stopped and job.on_new_group is not None:  # Ctrl-Z, which reaches neither threads nor the shell
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTSTP)
    job.nested.discard(member.pid)
    job.note_idle()


def _obey_interrupt(job: Job, member: HostMember) -> None:
    """Ends a thread whose program the terminal's Ctrl-C has ended, which reaches no thread."""
    status = member.wait_status
    if job.group is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT:
        job.ended_by = signal.SIGINT
        raise ExitShell(128 + signal.SIGINT)


def _start_in_group(shell: Shell, job: Job, words: list[str], assignments: dict[str, str] | None, files: Files) -> int:
    """Starts a program in the job's process group, which it leads if it is the first or the others have ended."""
    if job.group is None:
        return shell.start_host(words, assignments, files, None)
    with job.group_lock:
        pid = shell.start_host(words, assignments, files, job.group)
        group = group_of(pid)
        if group != job.group:
            job.group = group
            if job.on_new_group is not None:
                job.on_new_group()
    return pid


# -- pipelines -------------------------------------------------------------------------------------------------------


def run_pipeline(shell: Shell, node: ast.Pipeline) -> int:
    """Runs a pipeline to its end, or until Ctrl-Z stops it."""
    processes = len(shell._processes)
    foreground = shell.job is None
    first_here = foreground and shell.job_control and _begins_with_command(shell, node.commands[0])
    job = shell.new_job(node, own_group=foreground and shell.job_control and not first_here)
    if foreground and shell.job_control:
        put_in_foreground(shell, job)
    try:
        return _run_to_end(shell, node, job, foreground, first_here)
    finally:
        shell.pipe_statuses = [member.status or 0 for member in job.members]
        if len(shell._processes) > processes:
            shell.end_processes(processes)


def _run_to_end(shell: Shell, node: ast.Pipeline, job: Job, foreground: bool, first_here: bool) -> int:
    if not foreground:
        _launch(shell, node.commands, job, shell.files)
        return _wait_nested(shell, job)
    interrupted = False
    try:
        with nullcontext() if first_here else shell.uninterrupted():
            _launch(shell, node.commands, job, shell.files, first_here=first_here)
    except KeyboardInterrupt:
        if first_here:
            raise
        interrupted = True
        job.interrupt()
    return wait_foreground(shell, job, interrupted=interrupted)


def _wait_nested(shell: Shell, job: Job) -> int:
    outer = shell.job
    assert outer is not None
    hosts = [member for member in job.members if isinstance(member, HostMember)]
    for member in hosts:
        _wait_in_thread(outer, member)
    job.wait_threads()
    for member in hosts:
        _obey_interrupt(outer, member)
    return job.status(pipefail=shell.options.pipefail)


def _begins_with_command(shell: Shell, node: ast.Command) -> bool:
    """Whether a pipeline begins with a command of ours, which may want to read from the terminal."""
    name = node.words[0].literal() if isinstance(node, ast.Simple) and node.words else None
    return name is not None and name not in shell.functions and shell._is_command(name)


def _launch(
    shell: Shell,
    nodes: list[ast.Command],
    job: Job,
    files: Files,
    *,
    owned: tuple[int, ...] = (),
    background: bool = False,
    first_here: bool = False,
) -> None:
    """Starts all elements. `owned` are descriptors that the first element closes; with `first_here` it is run last, by
    this thread.
    """
    mine, reader = list(owned), -1
    here: _Element | None = None
    for index, node in enumerate(nodes):
        changes: dict[int, int | None] = {}
        if reader >= 0:
            changes[0] = reader
            mine.append(reader)
        if index < len(nodes) - 1:
            reader, writer = os.pipe()
            changes[1] = writer
            mine.append(writer)
        element = _Element(shell, node, job, files.replace(changes) if changes else files, mine, background)
        mine = []
        if first_here and index == 0:
            here = element
        else:
            job.members.append(element.start())
    if here is not None:
        job.members.insert(0, here.run_here())


class _Element:
    """One element of a pipeline about to be started, in a copy of the shell."""

    def __init__(
        self, shell: Shell, node: ast.Command, job: Job, files: Files, owned: list[int], background: bool
    ) -> None:
        self._outer = shell
        self._shell = shell.subshell(background=background)
        self._shell.files = files
        self._shell.background = self._shell.background or background
        self._node = node
        self._job = shell.job or job
        self._pipeline = job
        self._owned = owned
        self._words: list[str] | None = None

    def start(self) -> Member:
        """Starts a program, or a thread."""
        node = self._node
        if type(node) is ast.Simple and node.words:
            self._shell.current = node
            try:
                self._words = self._shell._expand(node.words)
            except ExpansionError as error:
                return self._ended(self._shell._complain_of(error))
            if self._words and not self._shell.is_in_process(self._words[0]):
                return self._start_host(node, self._words)
        member = ThreadMember(self._run, type(node).__name__)
        if self._words and self._words[0] in STARTS_PROCESSES and self._words[0] not in self._shell.functions:
            from llmos_shell.shell.handover import Handover

            member.handover = Handover()
        member.start()
        return member

    def run_here(self) -> Member:
        """Runs it in this thread, to its end."""
        self._shell.pipeline = self._pipeline
        member = Member()
        try:
            member.status = self._shell.run_contained(self._node)
        finally:
            self._close()
        return member

    def _run(self, member: ThreadMember) -> int:
        shell = self._shell
        shell.job = self._job
        shell.member = member
        shell.job_control = False
        shell.interrupted = self._obey
        try:
            if shell.background:
                with suppress(OSError):
                    folders.own_folder()
            if self._words is None:
                return shell.run_contained(self._node)
            node, words = self._node, self._words
            assert type(node) is ast.Simple
            return shell.run_contained(node, lambda: shell.run_expanded(node, words))
        finally:
            shell.end_processes()
            self._close()

    def _obey(self) -> None:
        """Ends the thread's work when its job was sent a signal that ends; holds it while the job is stopped."""
        if not self._job.going.is_set():
            self._job.going.wait()
        if self._job.ended_by:
            raise ExitShell(128 + self._job.ended_by)

    def _start_host(self, node: ast.Simple, words: list[str]) -> Member:
        shell = self._shell
        redirection = Redirection(shell.files)
        try:
            shell._redirect(redirection, node.redirects)
            assignments = {each.name: shell.value_for_command(each) for each in node.assignments}
            if shell.options.xtrace:
                shell._trace(words, list(assignments.items()))
            with _ignoring_interrupts(shell):
                pid = _start_in_group(shell, self._job, words, assignments, redirection.files)
        except ExpansionError as error:
            return self._ended(shell._complain_of(error))
        except RedirectError as error:
            return self._failed(str(error), 1)
        except StartError as error:
            return self._failed(str(error), error.status)
        finally:
            redirection.close()
            self._close()
        if self._outer.job is not None:
            self._outer.job.adopt(pid)
        return HostMember(pid)

    def _failed(self, message: str, status: int) -> Member:
        return self._ended(self._shell.complain(message, status))

    def _ended(self, status: int) -> Member:
        self._close()
        member = Member()
        member.status = status
        return member

    def _close(self) -> None:
        for fd in self._owned:
            os.close(fd)
        self._owned = []
        self._outer._processes += self._shell._processes  # they end with the pipeline
        self._shell._processes = []


class _ignoring_interrupts:
    """Programs in the background of a shell without job control ignore Ctrl-C, as POSIX says."""

    def __init__(self, shell: Shell) -> None:
        main = threading.current_thread() is threading.main_thread()
        self._active = main and shell.background and not shell.interactive

    def __enter__(self) -> None:
        if self._active:
            numbers = (signal.SIGINT, signal.SIGQUIT)
            self._saved = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]

    def __exit__(self, *_: object) -> None:
        if self._active:
            for number, handler in self._saved:
                signal.signal(number, handler)


# -- the background --------------------------------------------------------------------------------------------------


def run_background(shell: Shell, body: ast.Command) -> int:
    """Starts a job in the background; returns as soon as `$!` is known."""
    plain = isinstance(body, ast.Pipeline) and not body.negated
    nodes = body.commands if isinstance(body, ast.Pipeline) and plain else [body]
    job = shell.new_job(body, own_group=shell.job_control)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    processes = len(shell._processes)
    outer, shell.job = shell.job, None
    try:
        _launch(shell, nodes, job, shell.files.replace({0: null}), owned=(null,), background=True)
    finally:
        shell.job = outer
        shell.end_processes(processes, wait=False)
    shell.jobs().discard_ended() if not shell.interactive else None
    shell.jobs().add(job)
    last = job.members[-1]
    if isinstance(last, ThreadMember) and _starts_process(shell, nodes[-1]):
        last.settled.wait()
    shell.last_background = last.pid
    if shell.interactive and not shell.depth:
        shell.say(f"[{job.number}] {last.pid}")
    return 0


def _starts_process(shell: Shell, node: ast.Command) -> bool:
    if isinstance(node, ast.Timed) and node.body is not None:
        return _starts_process(shell, node.body)
    name = node.words[0].literal() if isinstance(node, ast.Simple) and node.words else None
    return name in STARTS_PROCESSES and name not in shell.functions


# -- process substitution --------------------------------------------------------------------------------------------


class Process:
    """The commands of a `<(…)` or `>(…)`, and the descriptor that leads to them."""

    def __init__(self, operator: str, fd: int, job: Job) -> None:
        self._operator = operator
        self.fd = fd
        self._job = job

    def end(self, *, wait: bool) -> None:
        """Closes the descriptor; with `wait`, waits for commands that read from it."""
        os.close(self.fd)
        if wait and self._operator == ">":
            self._job.wait_hosts()
            self._job.wait_threads()
        self._job.poll()
        if not self._job.done:
            _left_over.append(self._job)


_left_over: list[Job] = []  # of `<(…)`, whose programs may end after the command that read from them


def start_process(shell: Shell, part: ast.ProcessSubstitution) -> Process:
    """Starts the commands of a process substitution."""
    import fcntl

    for job in _left_over[:]:
        job.poll()
        if job.done:
            with suppress(ValueError):
                _left_over.remove(job)
    reader, writer = os.pipe()
    ours, theirs, target = (reader, writer, 1) if part.operator == "<" else (writer, reader, 0)
    fd = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, PROCESS_FD)
    os.close(ours)
    body = part.body.items
    node = body[0] if len(body) == 1 else ast.Group(part.body, part.offset)
    job = shell.new_job(node, own_group=False)
    _launch(shell, [node], job, shell.files.replace({target: theirs}), owned=(theirs,))
    return Process(part.operator, fd, job)


# -- command substitution --------------------------------------------------------------------------------------------


def capture(shell: Shell, body: ast.Sequence) -> tuple[str, int]:
    """The output of commands without its trailing newlines, and their status."""
    if not body.items:
        return "", 0
    sub = shell.subshell()
    sub.job_control = False
    reader, descriptor = os.pipe()
    writer = FileIO(descriptor, "w")  # may be closed more than once
    sub.files = shell.files.replace({1: descriptor})
    pieces: list[bytes] = []
    try:
        status = _capture_file(sub, body, pieces)
        if status is None:
            status = _capture_program(sub, body, reader, writer, pieces)
        if status is None:
            thread = threading.Thread(target=_drain, args=(reader, pieces), name="shell: $(…)", daemon=True)
            thread.start()
            try:
                status = sub.run_contained(body)
            finally:
                writer.close()
                thread.join()
    finally:
        writer.close()
        os.close(reader)
        sub.end_processes()
    data = b"".join(pieces)
    if b"\0" in data:
        data = data.replace(b"\0", b"")
    return data.decode("utf-8", "surrogateescape").rstrip("\n"), status


def _drain(reader: int, pieces: list[bytes]) -> None:
    while data := os.read(reader, 65536):
        pieces.append(data)


def _capture_file(sub: Shell, body: ast.Sequence, pieces: list[bytes]) -> int | None:
    """`$(<file)`; None where the body is something else."""
    node = body.items[0]
    if type(node) is not ast.Simple or node.words or node.assignments or len(body.items) > 1 or not node.redirects:
        return None
    if any(each.operator != "<" or each.fd for each in node.redirects):
        return None
    redirection = Redirection(sub.files)
    try:
        sub._redirect(redirection, node.redirects)
        _drain(redirection.files.get(0), pieces)
    except RedirectError as error:
        return sub.complain(str(error), 1)
    except OSError as error:
        return sub.complain((error.strerror or str(error)).lower(), 1)
    finally:
        redirection.close()
    return 0


def _capture_program(sub: Shell, body: ast.Sequence, reader: int, writer: FileIO, pieces: list[bytes]) -> int | None:
    """The quick way where the body is just one program of the host; None where it is something else, or can be stopped.

    Closes the writer when it takes that way.
    """
    if sub.job is not None and sub.job.group is not None:
        return None
    node = body.items[0]
    if len(body.items) != 1 or type(node) is not ast.Simple or node.redirects or node.assignments or not node.words:
        return None
    name = node.words[0].literal()
    if name is None or sub.is_in_process(name) or sub.options.xtrace or sub.aliases:
        return None
    words = sub._expand(node.words)
    group = sub.job
    try:
        pid = sub.start_host(words, None, sub.files, None)
        if group is not None:
            group.adopt(pid)
    except StartError as error:
        writer.close()
        return sub.complain(str(error), error.status)
    writer.close()
    try:
        _drain(reader, pieces)
    except KeyboardInterrupt:
        wait_plainly(sub, pid)
        raise
    status = wait_plainly(sub, pid)
    if group is not None:
        group.nested.discard(pid)
    return status
