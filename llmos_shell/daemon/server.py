"""Clients: accepts connections, frames, the handshake, and a bounded outgoing queue for each.

A connection is one `session` process. A reader that does not read stops its own streams (`congested`), never the daemon
or another client; one that lets `HARD_LIMIT` bytes of replies pile up is disconnected.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import MsgspecError, Struct, msgpack

from llmos_shell import __version__
from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.framing import Splitter, encode
from llmos_shell.abi.wire import Bye, Call, Cancel, ClientMessage, Failure, Hello, Refused, Welcome
from llmos_shell.daemon.processes import lifecycle
from llmos_shell.daemon.processes.process import Process
from llmos_shell.daemon.receiver import Receiver

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

HIGH_WATER = 1 << 18
HARD_LIMIT = 128 << 20
MAX_CONNECTIONS = 512
MAX_CALLS = 1024
HANDSHAKE_SECONDS = 30.0
CLOSE_SECONDS = 5.0

_decoder: msgpack.Decoder[ClientMessage] = msgpack.Decoder(ClientMessage)


class Connection(Receiver):
    """One client."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._transport: asyncio.Transport | None = None
        self._splitter = Splitter()
        self._outgoing: list[bytes] = []
        self._queued = 0  # bytes
        self._scheduled = False
        self._drained: set[Callable[[], None]] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self.session: Process | None = None
        self.interactive = False
        self.said_bye = False
        self.congested = False
        self.calls: dict[int, asyncio.Task[None]] = {}

    # -- what the syscall layer uses -----------------------------------------------------------------------------------

    def send(self, message: Struct) -> None:
        """Queues a message; it leaves at the end of this turn of the loop."""
        if self._transport is None:
            return
        frame = encode(message)
        self._outgoing.append(frame)
        self._queued += len(frame)
        if self._queued > HIGH_WATER:
            self._write()
        elif not self._scheduled:
            self._scheduled = True
            self._core.loop.call_soon(self._flush)

    def on_drained(self, callback: Callable[[], None]) -> None:
        """Calls back once when the client has read again, or has gone."""
        self._drained.add(callback)

    def close(self) -> None:
        """Sends what is queued and closes; a client that does not read it is cut off."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
            self._core.loop.call_later(CLOSE_SECONDS, self._cut)

    def refuse_calls(self, code: Code, text: str) -> None:
        """Answers every call in flight with an error."""
        for call in list(self.calls):
            self.send(Failure(call, code, text))

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Checks who it is, and waits for the handshake."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        uid = _peer_uid(transport.get_extra_info("socket"))
        if uid != os.getuid():
            self._core.events.warning("server", f"refused a connection of user {uid}")
            self._refuse(Code.EACCES, f"this daemon belongs to user {os.getuid()}, not {uid}")
        elif len(self._core.connections) >= MAX_CONNECTIONS:
            self._refuse(Code.EAGAIN, f"{MAX_CONNECTIONS} clients are connected, which is the limit")
        else:
            self._core.connections.add(self)
            self._deadline = self._core.loop.call_later(HANDSHAKE_SECONDS, self.close)

    def data_received(self, data: memoryview) -> None:
        """Handles the messages completed by `data`; a malformed one ends the connection."""
        try:
            for body in self._splitter.feed(data):
                if self._transport is None or self._transport.is_closing():
                    return
                self._handle(_decoder.decode(body))
        except (MsgspecError, LlmosError, RecursionError) as error:
            self._malformed(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: its calls end, and then its session."""
        self._transport = None
        self._outgoing.clear()
        self._core.connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        for task in list(self.calls.values()):
            task.cancel()
        self._wake_drained()
        if self.session is not None and not self._core.closing:
            lifecycle.end_session(self._core, self.session, adopt=self.said_bye and not self.interactive)
        self._core.note_activity()

    def pause_writing(self) -> None:
        """The client does not read."""
        self.congested = True
        transport = self._transport
        if transport is not None and transport.get_write_buffer_size() > HARD_LIMIT:
            self._core.events.warning("server", "disconnected a client that does not read", self._pid())
            transport.abort()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.congested = False
        self._wake_drained()

    # -- messages ------------------------------------------------------------------------------------------------------

    def _handle(self, message: ClientMessage) -> None:
        if isinstance(message, Hello):
            self._handshake(message)
        elif self.session is None:
            raise LlmosError(Code.EPROTO, "the first message must be `hello`")
        elif isinstance(message, Call):
            self._call(message)
        elif isinstance(message, Cancel):
            task = self.calls.get(message.id)
            if task is not None:
                task.cancel()
        elif isinstance(message, Bye):
            self.said_bye = True

    def _handshake(self, hello: Hello) -> None:
        if self.session is not None:
            raise LlmosError(Code.EPROTO, "a second `hello`")
        if hello.protocol != PROTOCOL:
            self._refuse(
                Code.EPROTO,
                f"this client is {hello.version} (protocol {hello.protocol}), the running daemon {__version__} "
                f"(protocol {PROTOCOL}): `llmos daemon stop` stops it, and the next command starts another",
            )
            return
        if self._deadline is not None:
            self._deadline.cancel()
        core = self._core
        self.interactive = hello.interactive
        self.session = lifecycle.start_session(core, hello)
        core.note_activity()
        self.send(Welcome(PROTOCOL, __version__, self.session.pid, os.getpid(), core.started))

    def _call(self, call: Call) -> None:
        if call.id in self.calls:
            self.send(Failure(call.id, Code.EINVAL, f"call {call.id} is in flight already"))
        elif len(self.calls) >= MAX_CALLS:
            self.send(Failure(call.id, Code.EAGAIN, f"{MAX_CALLS} calls are in flight, which is the limit"))
        else:
            task = self._core.loop.create_task(self._core.syscalls.answer(self, call))
            self.calls[call.id] = task
            task.add_done_callback(lambda done: self._answered(call, done))

    def _answered(self, call: Call, task: asyncio.Task[None]) -> None:
        self.calls.pop(call.id, None)
        if task.cancelled():  # before it began, so that it could not say so itself
            self.send(Failure(call.id, Code.EINTR, f"{call.name} was cancelled"))

    def _malformed(self, error: Exception) -> None:
        text = f"a message could not be read: {error}"
        self._core.events.warning("server", text, self._pid())
        if self.session is None:
            self._refuse(Code.EPROTO, text)
        else:
            self.send(Failure(0, Code.EPROTO, text))
            self.close()

    def _refuse(self, code: Code, text: str) -> None:
        self.send(Refused(code, text, PROTOCOL, __version__))
        self.close()

    def _pid(self) -> int | None:
        return self.session.pid if self.session is not None else None

    # -- writing -------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._scheduled = False
        self._write()

    def _write(self) -> None:
        self._queued = 0
        transport, outgoing = self._transport, self._outgoing
        if transport is None or not outgoing:
            return
        data = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
        outgoing.clear()
        transport.write(data)
        if self.congested:
            self.pause_writing()

    def _wake_drained(self) -> None:
        waiting, self._drained = self._drained, set()
        for callback in waiting:
            callback()


def _peer_uid(sock: socket.socket) -> int:
    """The user at the other end of a Unix socket."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getuid()  # the socket's mode already keeps others out
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)
