"""A blocking client of the daemon, without asyncio and without threads of its own.

Several threads may use one client: whichever of them waits for an answer reads the socket for all (leader and
followers), so a one-shot command pays for no thread and a pipeline needs no second connection. A call that is
interrupted by an exception of a signal handler loses no bytes: waiting is interruptible, receiving is not.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, msgpack

from llmos_shell import __version__, paths
from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.framing import Splitter, encode
from llmos_shell.abi.syscall import Syscall
from llmos_shell.abi.wire import Bye, Call, Cancel, DaemonMessage, Failure, Hello, Item, Refused, Reply, Welcome
from llmos_shell.ipc.interrupts import Uninterrupted

T = TypeVar("T")
_HANDSHAKES = 5
"""How often to try, with daemons that end just then."""

_decoder: msgpack.Decoder[DaemonMessage] = msgpack.Decoder(DaemonMessage)


class ConnectionLost(LlmosError):
    """The daemon has gone; a new connection may find (or start) another one."""

    def __init__(self) -> None:
        super().__init__(
            Code.EPIPE,
            "the connection to the daemon was lost",
            hint="`llmos status` says whether it runs, and any command starts it again",
        )


class Client:
    """One connection, which the daemon shows as a `session` process. Close it, or use it as a context manager."""

    def __init__(self, sock: socket.socket, hello: Hello) -> None:
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._splitter = Splitter()
        self._pending: dict[int, deque[Reply | Item | Failure]] = {}
        self._next = 0
        self._send_lock = threading.Lock()
        self._condition = threading.Condition()
        self._reader: int | None = None  # the thread that reads for everyone
        self._lost = False
        try:
            self._send(hello)
            answer = self._handshake()
        except BaseException:
            sock.close()
            raise
        self.session = answer.session
        self.daemon_pid = answer.daemon_pid
        self.daemon_started = answer.started

    @property
    def lost(self) -> bool:
        """Whether the connection is closed or broken, so that no further call can succeed.

        Looks at the socket: a daemon may have gone since the last call.
        """
        if not self._lost:
            poll = select.poll()  # one of its own, since another thread may be waiting in `_poll`
            poll.register(self._socket, 0)
            self._lost = bool(poll.poll(0))
        return self._lost

    def call(
        self,
        syscall: Syscall,
        args: Struct,
        *,
        type: type[T] | None = None,
        too_late: Callable[[Any], None] | None = None,
    ) -> Any:
        """Invokes a syscall and returns its result. Raises the daemon's `LlmosError`, or `ConnectionLost`.

        `type` is only a hint for type checkers; the result always has the type the syscall declares. An interrupted
        call (KeyboardInterrupt) is cancelled in the daemon; where that was `too_late`, this gets the result.
        """
        call = 0
        try:
            with Uninterrupted():
                call = self._begin(syscall, args)
            answer = self._only_answer(call)
        except BaseException:
            if call and too_late is None:
                self._give_up(call)
            elif call and too_late is not None and isinstance(late := self._cancel(call), Reply):
                too_late(_result(syscall, late))
            raise
        self._forget(call)
        return _result(syscall, answer)

    def stream(self, syscall: Syscall, args: Struct) -> Iterator[Any]:
        """Invokes a streaming syscall; yields its items. Closing the iterator cancels the call."""
        call = self._begin(syscall, args)
        done = False
        try:
            while True:
                answer = self._next_answer(call)
                if not isinstance(answer, Item):
                    done = True
                    _result(syscall, answer, streaming=True)
                    return
                yield _convert(answer.value, syscall.result)
        finally:
            if done:
                self._forget(call)
            else:
                self._give_up(call)

    def close(self, *, bye: bool = True) -> None:
        """Ends the session. Without `bye` it ends as if the terminal had been closed."""
        if bye and not self._lost:
            with suppress(LlmosError):
                self._send(Bye())
        self._lost = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits
        with self._condition:
            self._condition.notify_all()
            while self._reader not in (None, threading.get_ident()):  # it may be just about to wait for this socket,
                self._condition.wait()  # whose number is another one's once it is closed
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- calls in flight ---------------------------------------------------------------------------------------------

    def _begin(self, syscall: Syscall, args: Struct) -> int:
        with self._condition:
            self._next += 1
            call = self._next
            self._pending[call] = deque()
        try:
            self._send(Call(call, syscall.name, msgspec.to_builtins(args)))
        except BaseException:
            self._give_up(call)
            raise
        return call

    def _forget(self, call: int) -> None:
        with self._condition:
            self._pending.pop(call, None)

    def _give_up(self, call: int) -> None:
        self._release()
        self._forget(call)
        if not self._lost:
            with suppress(LlmosError):
                self._send(Cancel(call))

    def _cancel(self, call: int) -> Reply | Item | Failure | None:
        """Cancels a call; what its answer is nevertheless."""
        self._release()
        try:
            self._send(Cancel(call))
            return self._only_answer(call)
        except ConnectionLost:
            return None
        finally:
            self._forget(call)

    def _next_answer(self, call: int) -> Reply | Item | Failure:
        """Waits for the next answer to `call`."""
        self._only_answer(call)
        return self._pending[call].popleft()

    def _only_answer(self, call: int) -> Reply | Item | Failure:
        """The same, and whoever is interrupted can ask for it again; reads for everyone if nobody else does."""
        condition = self._condition
        queue = self._pending[call]
        while True:
            with condition:
                while not queue and not self._lost and self._reader not in (None, threading.get_ident()):
                    condition.wait()
                if queue:
                    return queue[0]
                if self._lost:
                    raise ConnectionLost
                self._reader = threading.get_ident()
            try:
                self._read_once()
            finally:
                self._release()

    def _release(self) -> None:
        """Lets another thread read, if this one did."""
        with self._condition:
            if self._reader == threading.get_ident():
                self._reader = None
                self._condition.notify_all()

    def _read_once(self) -> None:
        self._wait()
        with Uninterrupted():
            for message in self._receive():
                if isinstance(message, Reply | Item | Failure):
                    with self._condition:
                        if message.id in self._pending:
                            self._pending[message.id].append(message)

    # -- the socket --------------------------------------------------------------------------------------------------

    def _send(self, message: Struct) -> None:
        frame = encode(message)
        with Uninterrupted(), self._send_lock:
            try:
                self._socket.sendall(frame)
            except OSError:
                self._lost = True
                raise ConnectionLost from None

    def _wait(self) -> None:
        """Until there is something to receive; signal handlers may raise here."""
        if not self._lost:
            self._poll.poll()

    def _receive(self) -> list[DaemonMessage]:
        """The messages that have arrived; none, and the connection marked as lost, when the daemon has gone."""
        try:
            data = self._socket.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self._lost = True
            return []
        try:
            return [_decoder.decode(body) for body in self._splitter.feed(data)]
        except (msgspec.DecodeError, LlmosError) as error:
            self._lost = True
            raise LlmosError(Code.EPROTO, f"the daemon sent what this client cannot read ({error})") from None

    def _handshake(self) -> Welcome:
        while not self._lost:
            self._wait()
            for message in self._receive():
                if isinstance(message, Welcome):
                    return message
                if isinstance(message, Refused):
                    raise LlmosError(_code(message.code), message.message)
        raise ConnectionLost


def connect(name: str, *, interactive: bool = False, start: bool = True, reclaim: tuple[int, ...] = ()) -> Client:
    """Connects to the user's daemon; with `start`, starts one when none runs.

    Raises ENOENT when there is none and `start` is off, EACCES for somebody else's socket, EPROTO for another version.
    """
    hello = Hello(PROTOCOL, __version__, name, os.getpid(), _tty_name(), interactive, reclaim)
    for _ in range(_HANDSHAKES):
        sock = open_socket()
        if sock is None:
            if not start:
                raise LlmosError(Code.ENOENT, "no daemon is running", hint="`llmos daemon start` starts one")
            from llmos_shell.ipc.launch import start_daemon

            sock = start_daemon(open_socket)
        with suppress(ConnectionLost):
            return Client(sock, hello)
    raise ConnectionLost


def open_socket() -> socket.socket | None:
    """A connection to the daemon's socket, or None when nobody listens there. EACCES when it is somebody else's."""
    path = paths.socket_path()
    try:
        owner = os.stat(path).st_uid
    except OSError:
        return None
    if owner != os.getuid():
        raise LlmosError(Code.EACCES, f"{path} belongs to user {owner}", hint="set LLMOS_HOME to a folder of your own")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise LlmosError(Code.EACCES, f"cannot connect to {path}: {error.strerror}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _tty_name() -> str:
    try:
        return os.ttyname(sys.stdin.fileno()).removeprefix("/dev/")
    except (OSError, ValueError, AttributeError):
        return ""


def _code(text: str) -> Code:
    """The code, or EIO for one that a newer daemon knows."""
    try:
        return Code(text)
    except ValueError:
        return Code.EIO


def _result(syscall: Syscall, answer: Reply | Item | Failure, *, streaming: bool = False) -> Any:
    if isinstance(answer, Failure):
        raise LlmosError(_code(answer.code), answer.message, hint=answer.hint, pid=answer.pid)
    return None if streaming else _convert(answer.value, syscall.result)


def _convert(value: Any, to: Any) -> Any:
    try:
        return msgspec.convert(value, to)
    except msgspec.ValidationError as error:
        raise LlmosError(Code.EPROTO, f"the daemon's answer is not what was declared ({error})") from None
