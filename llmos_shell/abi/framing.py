"""Frames on a stream socket: a 4-byte big-endian length, then that many bytes of msgpack.

Used by both protocols (`wire` and `worker`). Encoding and splitting only; the sockets belong to the callers.
"""

from __future__ import annotations

from msgspec import Struct, msgpack

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.wire import MAX_FRAME

_encoder = msgpack.Encoder()


def encode(message: Struct) -> bytes:
    """One frame. Raises E2BIG when the message exceeds `MAX_FRAME` bytes."""
    frame = bytearray(4)
    _encoder.encode_into(message, frame, 4)
    length = len(frame) - 4
    if length > MAX_FRAME:
        raise LlmosError(Code.E2BIG, f"a message of {length} bytes exceeds the limit of {MAX_FRAME}")
    frame[:4] = length.to_bytes(4, "big")
    return bytes(frame)


class Splitter:
    """Cuts a byte stream into the bodies of its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The bodies completed by `data`. Raises EPROTO for a length beyond `MAX_FRAME`."""
        buffer = self._buffer
        buffer += data
        bodies = []
        start, end = 0, len(buffer)
        while end - start >= 4:
            length = int.from_bytes(buffer[start : start + 4], "big")
            if length > MAX_FRAME:
                raise LlmosError(Code.EPROTO, f"a frame of {length} bytes exceeds the limit of {MAX_FRAME}")
            if end - start - 4 < length:
                break
            bodies.append(bytes(buffer[start + 4 : start + 4 + length]))
            start += 4 + length
        if start:
            del buffer[:start]
        return bodies
