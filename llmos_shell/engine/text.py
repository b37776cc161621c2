"""Tokens to text, incrementally: UTF-8 characters and stop strings that tokens split are put together again.

Pure: what a stream has emitted depends only on the bytes pushed, never on how tokens divide them.
"""

from __future__ import annotations

from codecs import getincrementaldecoder

_Decoder = getincrementaldecoder("utf-8")


class TextStream:
    """The text of one turn.

    Text that could be the beginning of a stop string is held back until it is clear. Of several stop strings the one
    that is complete first ends the text; of those complete at the same character, the longest. `held` is that text.
    """

    __slots__ = ("_decode", "_decoder", "_firsts", "_longest", "_stop", "held", "stopped")

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._decoder = _Decoder("replace")
        self._decode = self._decoder.decode
        self._stop = tuple(string for string in stop if string)
        self._firsts = frozenset(string[0] for string in self._stop)
        self._longest = max(map(len, self._stop), default=0)
        self.held = ""
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """The text that is certain now. Sets `stopped` when a stop string is complete; nothing comes after that."""
        text = self._decode(piece)
        if not self._stop:
            return text
        if self.stopped or not text:
            return ""
        buffer = self.held + text
        cut = self._find_stop(buffer)
        if cut is not None:
            self.held, self.stopped = "", True
            return buffer[:cut]
        keep = self._held_length(buffer)
        split = len(buffer) - keep
        self.held = buffer[split:]
        return buffer[:split]

    def flush(self) -> str:
        """What was held back, at the end of the turn; an unfinished character becomes U+FFFD."""
        tail = self._decoder.decode(b"", True)
        if self.stopped:
            return ""
        text, self.held = self.held + tail, ""
        cut = self._find_stop(text) if self._stop and tail else None
        return text if cut is None else text[:cut]

    def _find_stop(self, buffer: str) -> int | None:
        """Where the stop string begins that is complete first, if one is."""
        best: tuple[int, int] | None = None
        for string in self._stop:
            start = buffer.find(string)
            if start >= 0 and (best is None or (start + len(string), start) < best):
                best = (start + len(string), start)
        return None if best is None else best[1]

    def _held_length(self, buffer: str) -> int:
        """Length of the longest tail of `buffer` with which some stop string begins."""
        size = len(buffer)
        for start in range(max(0, size - self._longest + 1), size):
            if buffer[start] in self._firsts:
                tail = buffer[start:]
                if any(string.startswith(tail) for string in self._stop):
                    return size - start
        return 0
