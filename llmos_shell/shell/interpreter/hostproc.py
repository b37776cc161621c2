"""Programs of the host: finding them on PATH, starting them, and how they ended."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence

from llmos_shell.shell.interpreter.redirect import Files

_HIGH = 64
"""Descriptors that would be overwritten while others are put in place are first moved to here or above."""

_found: dict[str, str] = {}
_found_on = ""


class StartError(Exception):
    """A program cannot be started; `status` is 127 (not found) or 126 (not executable)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def find_program(name: str, path: str) -> str:
    """Where a program is. Raises `StartError`."""
    global _found_on
    if "/" in name:
        return name
    if path != _found_on:
        _found.clear()
        _found_on = path
    known = _found.get(name)
    if known is not None:
        return known
    unusable = ""
    for folder in path.split(os.pathsep):
        candidate = f"{folder or '.'}/{name}"
        try:
            mode = os.stat(candidate).st_mode
        except (OSError, ValueError):
            continue
        if not stat.S_ISREG(mode):
            continue
        if os.access(candidate, os.X_OK):
            if folder.startswith("/"):
                _found[name] = candidate
            return candidate
        unusable = unusable or candidate
    if unusable:
        raise StartError(f"{unusable}: permission denied", 126)
    raise StartError(f"{name}: command not found", 127)


def forget_programs() -> None:
    """Makes `find_program` look anew (`hash -r`)."""
    _found.clear()


def known_programs() -> list[str]:
    """Where programs were found so far."""
    return sorted(_found.values())


def start(
    path: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    files: Files,
    default_signals: Sequence[int] = (),
) -> int:
    """Starts a program, without a copy of this process, and returns its PID once it is executed.

    `default_signals` are those this process ignores and the program should not. Raises `StartError`.
    """
    try:
        return _spawn(path, words, environment, files, default_signals)
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            if _is_binary(path):
                raise StartError(f"{words[0]}: cannot execute binary file", 126) from None
            return _spawn("/bin/sh", ["sh", path, *words[1:]], environment, files, default_signals)
        _found.pop(words[0], None)
        raise _start_error(path, words[0], error) from None
    except ValueError:
        raise _nul_error(words[0]) from None


def start_stoppable(
    path: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    files: Files,
    signals: Mapping[int, signal.Handlers],
    group: int | None,
    fail: Callable[[StartError], int],
) -> int:
    """Starts a program where Ctrl-Z may stop the new process at any moment, before the program is executed too, which
    `start` would wait for, and with it all threads. `fail` says in the new process why it cannot be; its exit status.

    `group` 0 makes it the leader of a process group; else it joins one, or leads one of its own where the last member
    of that has just ended.
    """
    if not os.path.exists(path):
        _found.pop(words[0], None)
    held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become(path, words, environment, files, signals, group, fail, held)
    except OSError as error:
        raise _start_error(path, words[0], error) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    if group is not None:
        _join(pid, group)  # both processes do: neither knows which of them comes first
    return pid


def _become(
    path: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    files: Files,
    signals: Mapping[int, signal.Handlers],
    group: int | None,
    fail: Callable[[StartError], int],
    mask: Iterable[int],
) -> None:
    """Makes a program of the new process; never returns."""
    status = 126
    try:
        if group is not None:
            _join(0, group)
        for number in signal.valid_signals():
            if number in signals or callable(signal.getsignal(number)):
                signal.signal(number, signals.get(number, signal.SIG_DFL))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        replace_process(path, words, environment, files, ())
    except StartError as error:
        status = fail(error)
    except OSError as error:
        status = fail(_start_error(path, words[0], error))
    finally:
        os._exit(status)


def _join(pid: int, group: int) -> None:
    try:
        os.setpgid(pid, group)
    except PermissionError:  # its last member has ended; or the program is executed, and the process has done this
        with contextlib.suppress(PermissionError):
            os.setpgid(pid, 0)


def group_exists(group: int) -> bool:
    """Whether a process group (0: none) still has members."""
    if not group:
        return False
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def group_of(pid: int) -> int:
    """The process group of a process; 0 when it has gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _is_binary(path: str) -> bool:
    from llmos_shell.shell.interpreter.texts import NoText, decode_script

    try:
        with open(path, "rb") as file:
            decode_script(file.read(256))
    except (OSError, NoText):
        return True
    return False


def _start_error(path: str, name: str, error: OSError) -> StartError:
    if error.errno == errno.E2BIG:
        return StartError(f"{name}: argument list too long", 126)
    if os.path.isdir(path):
        return StartError(f"{name}: is a directory", 126)
    if error.errno == errno.ENOENT and not os.path.lexists(path):
        return StartError(f"{name}: no such file or directory", 127)
    if error.errno == errno.ENOENT:
        return StartError(f"{name}: its interpreter (the `#!` line) was not found", 126)
    if error.errno == errno.ENOTDIR:
        return StartError(f"{name}: not a directory", 127)
    return StartError(f"{name}: {(error.strerror or str(error)).lower()}", 126)


def _nul_error(name: str) -> StartError:
    return StartError(f"{name}: an argument holds a NUL character", 126)


def _spawn(
    path: str, words: Sequence[str], environment: Mapping[str, str], files: Files, default_signals: Sequence[int]
) -> int:
    moved: list[int] = []
    try:
        actions = _file_actions(files, moved) if files.table else ()
        return os.posix_spawn(path, words, environment, file_actions=actions, setsigdef=default_signals)  # type: ignore[arg-type]
    finally:
        for fd in moved:
            os.close(fd)


def _file_actions(files: Files, moved: list[int]) -> list[tuple[int, ...]]:
    """What puts the descriptors in place; those in the way of others are moved out of it first."""
    import fcntl

    actions: list[tuple[int, ...]] = []
    table = files.table
    for fd, real in sorted(table.items()):
        if real is None:
            actions.append((os.POSIX_SPAWN_CLOSE, fd))
            continue
        if real != fd and real in table:
            real = fcntl.fcntl(real, fcntl.F_DUPFD_CLOEXEC, _HIGH)
            moved.append(real)
        actions.append((os.POSIX_SPAWN_DUP2, real, fd))
    return actions


def exit_status(wait_status: int) -> int:
    """A shell's exit status from waitpid's: 128 + the signal for a program that one ended."""
    if os.WIFSIGNALED(wait_status):
        return 128 + os.WTERMSIG(wait_status)
    if os.WIFSTOPPED(wait_status):
        return 128 + os.WSTOPSIG(wait_status)
    return os.WEXITSTATUS(wait_status)


def describe_signal(number: int) -> str:
    """E.g. `Terminated`."""
    try:
        return signal.strsignal(number) or f"Signal {number}"
    except ValueError:
        return f"Signal {number}"


def wait_for(pid: int) -> int:
    """Waits for a child to end and returns its exit status; it may have been waited for already."""
    try:
        return exit_status(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 127


def replace_process(
    path: str, words: Sequence[str], environment: Mapping[str, str], files: Files, default_signals: Sequence[int]
) -> None:
    """Puts a program in the place of this process (`exec`). Returns only by raising `StartError`."""
    for fd, real in _settled(files):
        if real is None:
            with contextlib.suppress(OSError):
                os.close(fd)
        else:
            os.dup2(real, fd) if real != fd else os.set_inheritable(fd, True)
    for number in default_signals:
        signal.signal(number, signal.SIG_DFL)
    try:
        _execute(path, words, environment)
    except OSError as error:
        raise _start_error(path, words[0], error) from None
    except ValueError:
        raise _nul_error(words[0]) from None


def _execute(path: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
    try:
        os.execve(path, list(words), environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    if _is_binary(path):
        raise StartError(f"{words[0]}: cannot execute binary file", 126)
    os.execve("/bin/sh", ["sh", path, *words[1:]], environment)


def _settled(files: Files) -> list[tuple[int, int | None]]:
    """The table in an order of its own, with sources out of the way of targets."""
    import fcntl

    pairs: list[tuple[int, int | None]] = []
    for fd, real in sorted(files.table.items()):
        if real is not None and real != fd and real in files.table:
            real = fcntl.fcntl(real, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        pairs.append((fd, real))
    return pairs
