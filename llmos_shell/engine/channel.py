"""The worker's end of the socket: a thread reads it, the others write it.

Messages come out in the order in which they came in, but for kinds that are diverted: their handler is called from the
reading thread. What steps report may be held back a moment, so that short steps do not wake the daemon each.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from msgspec import MsgspecError, Struct, msgpack

from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.framing import Splitter, encode

RECEIVE_BYTES = 1 << 18


class Channel:
    """Typed messages in and out. `send`, `hold` and `flush` may be called from any thread, `receive` from one."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._decoder: msgpack.Decoder[abi.ToWorker] = msgpack.Decoder(abi.ToWorker)
        self._inbox: SimpleQueue[abi.ToWorker | Exception] = SimpleQueue()
        self._end: Exception | None = None
        self._handlers: dict[type, Callable[[abi.ToWorker], None]] = {}
        self._listeners: dict[type, Callable[[Any], None]] = {}
        self._writing = threading.Lock()
        self._held: list[bytes] = []
        self._sent_at = 0.0  # monotonic
        self.ended = False  # nothing more will come: the daemon has gone
        threading.Thread(target=self._read, name="channel", daemon=True).start()

    def divert(self, kind: type, handler: Callable[[abi.ToWorker], None]) -> None:
        """Has messages of this kind handled as they arrive, whatever else is under way."""
        self._handlers[kind] = handler

    def overhear(self, kind: type, handler: Callable[[Any], None]) -> None:
        """Has somebody told of messages of this kind as they arrive, besides whoever receives them."""
        self._listeners[kind] = handler

    def receive(self, wait: bool) -> list[abi.ToWorker]:
        """All messages that have arrived; with `wait`, blocks until there is one.

        Raises EOFError at the end, LlmosError (EPROTO) for what is no message.
        """
        messages: list[abi.ToWorker] = []
        while self._end is None:
            try:
                item = self._inbox.get(wait and not messages)
            except Empty:
                return messages
            if not isinstance(item, Exception):
                messages.append(item)
                continue
            self._end = item
            if messages:
                return messages
        raise self._end

    def send(self, message: Struct) -> None:
        """Sends what was held, then this message. Raises EOFError when the daemon has gone."""
        with self._writing:
            self._held.append(encode(message))
            self._flush()

    def hold(self, message: Struct, seconds: float) -> None:
        """Sends a message with the next one; at once when nothing was sent for so many seconds."""
        with self._writing:
            self._held.append(encode(message))
            if time.monotonic() - self._sent_at >= seconds:
                self._flush()

    def flush(self) -> None:
        """Sends what was held."""
        with self._writing:
            if self._held:
                self._flush()

    def _flush(self) -> None:
        held, self._held = self._held, []
        self._sent_at = time.monotonic()
        try:
            self._socket.sendall(b"".join(held))
        except ConnectionError:
            raise EOFError from None

    def _read(self) -> None:
        splitter, buffer = Splitter(), memoryview(bytearray(RECEIVE_BYTES))
        try:
            while count := self._socket.recv_into(buffer):
                for body in splitter.feed(buffer[:count]):
                    message = self._decoder.decode(body)
                    if (listener := self._listeners.get(type(message))) is not None:
                        listener(message)
                    self._handlers.get(type(message), self._inbox.put)(message)
        except ConnectionError:
            pass
        except (MsgspecError, LlmosError) as error:
            self._inbox.put(LlmosError(Code.EPROTO, f"the daemon sent what is no message: {error}"))
        self.ended = True
        self._inbox.put(EOFError())
