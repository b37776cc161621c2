"""What a process has said: append-only text with character offsets, and marks where turns ended.

Readers come with an offset and take what there is; nothing here knows them. Kept in pieces, because a turn grows by a
few characters at a time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from llmos_shell.abi.types import Reason, TokenLogprob


class Output:
    """Text of a process over its whole life."""

    __slots__ = ("_logprob_starts", "_logprobs", "_pieces", "_starts", "length", "mark_offsets", "marks")

    def __init__(self, text: str = "") -> None:
        self._pieces: list[str] = [text] if text else []
        self._starts: list[int] = [0] if text else []
        self.length = len(text)
        self.marks: list[Reason] = []
        self.mark_offsets: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._logprob_starts: list[int] = []

    def append(self, text: str) -> None:
        """Adds text at the end."""
        self._pieces.append(text)
        self._starts.append(self.length)
        self.length += len(text)

    def mark(self, reason: Reason) -> None:
        """Notes that a turn ended here, and packs its pieces."""
        self.marks.append(reason)
        self.mark_offsets.append(self.length)
        self.pack()

    def append_logprob(self, logprob: TokenLogprob) -> None:
        """Notes a token's probabilities at the present end; call before `append`ing its text."""
        self._logprobs.append(logprob)
        self._logprob_starts.append(self.length)

    def read(self, start: int, end: int | None = None) -> str:
        """The text from `start` to `end`, or to the present end."""
        stop = self.length if end is None else min(end, self.length)
        if start >= stop:
            return ""
        first = bisect_right(self._starts, start) - 1
        text = self._pieces[first] if first == len(self._pieces) - 1 else "".join(self._pieces[first:])
        base = self._starts[first]
        return text[start - base : stop - base]

    def logprobs_from(self, index: int) -> list[TokenLogprob]:
        """The probabilities noted since `index` of them were."""
        return self._logprobs[index:]

    def logprob_index(self, offset: int) -> int:
        """How many probabilities were noted before `offset`."""
        return bisect_left(self._logprob_starts, offset)

    def next_mark(self, offset: int) -> int:
        """Index of the first turn end beyond `offset`."""
        return bisect_right(self.mark_offsets, offset)

    def pack(self) -> None:
        """Joins the pieces into one."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
            self._starts = [0]
