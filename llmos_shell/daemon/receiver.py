"""How the daemon reads its sockets: into one buffer that all of them share, since each read is dealt with at once.

A fresh buffer for every read, cut to what came, would leave holes all over the heap, and the daemon would grow and
grow.
"""

from __future__ import annotations

import asyncio

RECEIVE_BYTES = 1 << 18

_buffer = memoryview(bytearray(RECEIVE_BYTES))


class Receiver(asyncio.BufferedProtocol):
    """A protocol whose `data_received` gets bytes that are gone when it returns."""

    def data_received(self, data: memoryview) -> None:
        """Deals with what has come."""
        raise NotImplementedError

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next read goes."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        self.data_received(_buffer[:nbytes])
