"""The syscall table: the only door into the daemon. Credentials → capability → decoding → handler → answer.

Owns the binding of handlers to declarations. Every call completes: with a result, with the handler's `LlmosError`, with
EINTR when it was cancelled, with EIO when the handler is broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscall import Syscall
from llmos_shell.abi.wire import Call, Failure, Item, Reply
from llmos_shell.daemon.processes.process import Process

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.server import Connection

Handler = Callable[["Context", Any], Awaitable[Any]]


class Context:
    """One call: who makes it, and where the items of a stream go."""

    __slots__ = ("_connection", "_id", "caller", "core")

    def __init__(self, core: Core, connection: Connection, caller: Process, call_id: int) -> None:
        self.core = core
        self.caller = caller
        self._connection = connection
        self._id = call_id

    @property
    def congested(self) -> bool:
        """Whether the client should read before it is sent more."""
        return self._connection.congested

    def emit(self, item: Struct) -> None:
        """Sends one item of a stream."""
        self._connection.send(Item(self._id, item))

    def on_drained(self, callback: Callable[[], None]) -> None:
        """Calls back once when the client has read."""
        self._connection.on_drained(callback)


class SyscallTable:
    """Declarations with their handlers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._entries: dict[str, tuple[Syscall, Handler]] = {}

    def bind(self, syscall: Syscall, handler: Handler) -> None:
        """Adds an entry. Raises ValueError for a name that is taken."""
        if syscall.name in self._entries:
            raise ValueError(f"syscall {syscall.name} is bound twice")
        self._entries[syscall.name] = (syscall, handler)

    def names(self) -> frozenset[str]:
        """All syscalls that can be called."""
        return frozenset(self._entries)

    async def answer(self, connection: Connection, call: Call) -> None:
        """Runs one call of a session and sends its answer."""
        session = connection.session
        assert session is not None
        try:
            syscall, handler = self._find(call.name)
            check_capability(session, syscall)
            args = _decode(syscall, call.args)
            value = await handler(Context(self._core, connection, session, call.id), args)
            connection.send(Reply(call.id, None if syscall.streams else value))
        except LlmosError as error:
            connection.send(Failure(call.id, error.code, error.message, error.hint, error.pid))
        except asyncio.CancelledError:
            connection.send(Failure(call.id, Code.EINTR, f"{call.name} was cancelled"))
        except Exception as error:
            self._core.events.exception("syscall", error)
            text = f"{call.name} failed inside the daemon: {type(error).__name__}: {error}"
            connection.send(Failure(call.id, Code.EIO, text, "the daemon's log has the details"))

    def _find(self, name: str) -> tuple[Syscall, Handler]:
        entry = self._entries.get(name)
        if entry is None:
            text = f"no syscall is called {name}"
            raise LlmosError(Code.ENOENT, text, hint="the daemon may be older than the client")
        return entry


def check_capability(caller: Process, syscall: Syscall) -> None:
    """Raises EPERM when the caller does not hold the capability. Sessions are the owner's, and hold all."""


def _decode(syscall: Syscall, args: Any) -> Any:
    try:
        return msgspec.convert(args, syscall.args)
    except msgspec.ValidationError as error:
        raise LlmosError(Code.EINVAL, f"{syscall.name}: {error}") from None
