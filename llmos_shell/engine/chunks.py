"""Cutting bytes where their content says so: what is inserted in the middle leaves the other pieces as they were.

KV grows at the end of every layer, somewhere in the middle of a blob. A cut follows four words whose hash has a given
pattern, wherever they stand; so two blobs that differ in places have most of their pieces in common. Words of four
bytes suffice: KV rows are multiples of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

LEAST, MOST = 2 << 10, 64 << 10
"""Bytes of a piece; on average they have about 10 KiB."""

_MASK = np.uint32((1 << 11) - 1)
_PATTERN = np.uint32(0x2A7)
_FACTORS = tuple(np.uint32(factor) for factor in (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F))
_SLICE = 4 << 20  # words hashed at once


def pieces(data: bytes | memoryview) -> Iterator[memoryview]:
    """The data in pieces of LEAST to MOST bytes; the last may be smaller."""
    view = memoryview(data).cast("B")
    for start, end in pairwise(_cuts(view)):
        yield view[start:end]


def _cuts(view: memoryview) -> Iterator[int]:
    """Where to cut, both ends included."""
    yield 0
    size, last = len(view), 0
    for mark in _marks(view):
        while mark - last > MOST:
            last += MOST
            yield last
        if mark - last >= LEAST:
            last = mark
            yield last
    while size - last > MOST:
        last += MOST
        yield last
    if size > last:
        yield size


def _marks(view: memoryview) -> Iterator[int]:
    """Offsets at which the content allows a cut."""
    words = np.frombuffer(view[: len(view) // 4 * 4], dtype="<u4")
    overlap = len(_FACTORS) - 1
    for start in range(0, len(words), _SLICE):
        part = words[max(0, start - overlap) : start + _SLICE]
        first = max(0, start - overlap)
        if len(part) <= overlap:
            return
        count = len(part) - overlap
        mixed = np.zeros(count, dtype=np.uint32)
        for index, factor in enumerate(_FACTORS):
            mixed ^= part[index : index + count] * factor
        mixed *= _FACTORS[1]
        mixed >>= np.uint32(9)
        yield from (((mixed & _MASK) == _PATTERN).nonzero()[0] + (first + overlap + 1)).astype(np.int64) * 4
