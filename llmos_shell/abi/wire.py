"""Frames between a client and the daemon, over the daemon's Unix socket.

A frame is a 4-byte big-endian length followed by one msgpack-encoded message, at most `MAX_FRAME` bytes. The client
speaks first (`Hello`); the daemon answers `Welcome`, or `Refused` and closes. After that the client sends `Call` and
`Cancel` and the daemon `Reply`, `Failure` and `Item`, in any order; `id` is the client's and joins them. A streaming
syscall sends any number of `Item`s, then one `Reply` or `Failure`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

MAX_FRAME = 64 * 1024 * 1024


class Hello(Struct, frozen=True, tag="hello"):
    """Opens a connection. It becomes a `session` process with this name."""

    protocol: int
    version: str  # of the package
    name: str  # e.g. `llmos -c …`, `repl`, `top`
    pid: int  # of the client on the host
    tty: str = ""
    interactive: bool = False  # its processes get HUP when it ends, however it ends
    reclaim: tuple[int, ...] = ()  # processes to take back after the daemon was restarted


class Welcome(Struct, frozen=True, tag="welcome"):
    """The connection stands."""

    protocol: int
    version: str
    session: int  # PID of the new session
    daemon_pid: int  # on the host
    started: float  # the daemon's start; a different value after a reconnect means it was restarted


class Refused(Struct, frozen=True, tag="refused"):
    """The daemon will not talk; it closes the connection after this."""

    code: str
    message: str
    protocol: int
    version: str


class Call(Struct, frozen=True, tag="call"):
    """Invokes the syscall `name`; `args` is a map that fits its declared argument type."""

    id: int
    name: str
    args: Raw | dict[str, Any]


class Cancel(Struct, frozen=True, tag="cancel"):
    """Gives up a call; the daemon answers it with `Failure(EINTR)` unless it was already answered."""

    id: int


class Bye(Struct, frozen=True, tag="bye"):
    """A clean end: background processes of a non-interactive session are adopted by PID 1 instead of getting HUP."""


class Reply(Struct, frozen=True, tag="reply"):
    """A call's result."""

    id: int
    value: Raw | Any = None


class Item(Struct, frozen=True, tag="item"):
    """One element of a streaming call."""

    id: int
    value: Raw | Any = None


class Failure(Struct, frozen=True, tag="failure"):
    """A call's error; the fields are those of `LlmosError`."""

    id: int
    code: str
    message: str
    hint: str = ""
    pid: int | None = None


ClientMessage = Hello | Call | Cancel | Bye
DaemonMessage = Welcome | Refused | Reply | Item | Failure
