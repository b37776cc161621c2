"""A daemon of a few lines that speaks the real protocol over a real socket, for tests of the client side.

Handlers are generators or functions by syscall name; the tests of the whole use the real daemon.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec import msgpack

from llmos_shell import paths
from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.framing import Splitter, encode
from llmos_shell.abi.syscalls import BUILTIN, Nothing
from llmos_shell.abi.wire import Bye, Call, Cancel, ClientMessage, Failure, Hello, Item, Reply, Welcome
from llmos_shell.shell.command import Context
from llmos_shell.shell.direct import DirectShell


class Hangup(Exception):
    """A handler raises it to break the connection."""


class FakeDaemon:
    """Answers calls with `handlers[name](args)`; generators answer streams. Records what it was asked."""

    def __init__(self, path: str) -> None:
        self.handlers: dict[str, Callable[[Any], Any]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.hellos: list[Hello] = []
        self.cancelled: list[int] = []
        self.byes = 0
        self.ends = 0  # so many handshakes it ends instead of answering
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def asked(self, name: str) -> list[Any]:
        """Arguments of all calls of this name."""
        return [args for called, args in self.calls if called == name]

    def hang_up(self) -> None:
        """Breaks all connections; new ones are accepted."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        splitter, decoder = Splitter(), msgpack.Decoder(ClientMessage)
        try:
            while data := connection.recv(65536):
                for body in splitter.feed(data):
                    self._take(connection, decoder.decode(body))
        except (OSError, Hangup):
            pass
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def _take(self, connection: socket.socket, message: Any) -> None:
        if isinstance(message, Hello):
            self.hellos.append(message)
            if len(self.hellos) <= self.ends:
                raise Hangup
            connection.sendall(encode(Welcome(PROTOCOL, "test", 100 + len(self.hellos), 4242, 1.0)))
        elif isinstance(message, Call):
            connection.sendall(self._answer(message, connection))
        elif isinstance(message, Cancel):
            self.cancelled.append(message.id)
        elif isinstance(message, Bye):
            self.byes += 1

    def _answer(self, call: Call, connection: socket.socket) -> bytes:
        args = msgspec.convert(call.args, BUILTIN[call.name].args)
        self.calls.append((call.name, args))
        try:
            if call.name not in self.handlers:
                raise LlmosError(Code.ENOSYS, f"the fake daemon has no {call.name}")
            result = self.handlers[call.name](args)
            if BUILTIN[call.name].streams:
                for item in result:
                    connection.sendall(encode(Item(call.id, item)))
                result = None
            elif BUILTIN[call.name].result is Nothing:
                result = Nothing()
            return encode(Reply(call.id, result))
        except LlmosError as error:
            return encode(Failure(call.id, error.code, error.message, error.hint, error.pid))


@pytest.fixture
def fake_daemon(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """A fake daemon on the socket that `connect` finds."""
    monkeypatch.setenv("LLMOS_HOME", str(tmp_path))
    import os

    os.makedirs(paths.runtime_dir(), mode=0o700, exist_ok=True)
    daemon = FakeDaemon(paths.socket_path())
    daemon.handlers["proc.wait"] = lambda args: None
    daemon.handlers["model.problems"] = lambda args: ()
    yield daemon
    daemon.close()


class Bench:
    """Runs built-in commands as `llmos COMMAND` does, with its output kept."""

    def __init__(self) -> None:
        self.shell = DirectShell("test")
        self.out = io.StringIO()
        self.err = io.StringIO()
        self.tracked: list[int] = []

    def context(self, stdin: bytes | None = None) -> Context:
        return Context(
            self.shell,
            stdin=_Terminal() if stdin is None else io.BytesIO(stdin),
            out=self.out,
            err=self.err,
            on_track=self.tracked.append,
        )

    def run(self, *words: str, stdin: bytes | None = None) -> int:
        return self.shell.run_words(words, self.context(stdin))


class _Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def bench(fake_daemon: FakeDaemon) -> Iterator[Bench]:
    """Commands against the fake daemon."""
    bench = Bench()
    yield bench
    bench.shell.close()


@pytest.fixture
def hangup() -> type[Exception]:
    """What a handler raises to break the connection."""
    return Hangup
