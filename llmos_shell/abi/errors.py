"""The one exception that crosses process borders, and its codes."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Errno-like codes; the names mean what errno(3) says, read for processes and models."""

    EPERM = "EPERM"  # not permitted by the process's capabilities
    EACCES = "EACCES"  # peer credentials refused
    ENOENT = "ENOENT"  # no such model, file, policy, syscall
    ESRCH = "ESRCH"  # no such process
    ECHILD = "ECHILD"  # nothing to wait for
    EINVAL = "EINVAL"  # malformed argument
    E2BIG = "E2BIG"  # prompt does not fit the context
    EAGAIN = "EAGAIN"  # a queue or table is full; try again later
    ENOMEM = "ENOMEM"  # KV pool, RAM or VRAM cannot hold it at all
    ENOSPC = "ENOSPC"  # disk full
    EBUSY = "EBUSY"  # in use, or already running
    EINTR = "EINTR"  # interrupted by a signal or by the user
    ETIMEDOUT = "ETIMEDOUT"  # a time limit ran out
    ENOEXEC = "ENOEXEC"  # a model file that cannot be loaded
    ENOSYS = "ENOSYS"  # the engine cannot do this
    EPROTO = "EPROTO"  # a peer broke the protocol or speaks another version
    EPIPE = "EPIPE"  # the other side has gone
    EIO = "EIO"  # a worker, disk or engine failed


class LlmosError(Exception):
    """An error meant for a person: what is wrong, and how to mend it.

    `str(error)` is `message`, or `message: hint` when there is a hint. `pid` names the process concerned, if one is.
    """

    def __init__(self, code: Code, message: str, *, hint: str = "", pid: int | None = None) -> None:
        super().__init__(f"{message}: {hint}" if hint else message)
        self.code = code
        self.message = message
        self.hint = hint
        self.pid = pid
