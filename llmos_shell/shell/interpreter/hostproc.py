"""Programs of the host: finding them on PATH, starting them without a copy of this process, and how they ended."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Mapping, Sequence

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
    *,
    group: int | None = None,
    default_signals: Sequence[int] = (),
) -> int:
    """Starts a program and returns its PID. `group` 0 makes it the leader of a process group, else it joins one.

    `default_signals` are those this process ignores and the program should not. Raises `StartError`.
    """
    try:
        return _spawn(path, words, environment, files, group, default_signals)
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            if _is_binary(path):
                raise StartError(f"{words[0]}: cannot execute binary file", 126) from None
            return _spawn("/bin/sh", ["sh", path, *words[1:]], environment, files, group, default_signals)
        _found.pop(words[0], None)
        raise _start_error(path, words[0], error) from None
    except ValueError:
        raise StartError(f"{words[0]}: an argument holds a NUL character", 126) from None


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


def _spawn(
    path: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    files: Files,
    group: int | None,
    default_signals: Sequence[int],
) -> int:
    moved: list[int] = []
    try:
        actions = _file_actions(files, moved) if files.table else ()
        if group is None:
            return os.posix_spawn(path, words, environment, file_actions=actions, setsigdef=default_signals)  # type: ignore[arg-type]
        return os.posix_spawn(
            path,
            words,  # type: ignore[arg-type]
            environment,
            file_actions=actions,
            setpgroup=group,
            setsigdef=default_signals,
        )
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
        os.execve(path, list(words), environment)
    except OSError as error:
        raise _start_error(path, words[0], error) from None


def _settled(files: Files) -> list[tuple[int, int | None]]:
    """The table in an order of its own, with sources out of the way of targets."""
    import fcntl

    pairs: list[tuple[int, int | None]] = []
    for fd, real in sorted(files.table.items()):
        if real is not None and real != fd and real in files.table:
            real = fcntl.fcntl(real, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        pairs.append((fd, real))
    return pairs
