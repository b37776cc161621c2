"""The state of a sequence as llama.cpp writes it, for a KV cache with another number of streams. Pure.

A cache in the layout `shared` has one stream, in the layout `split` one per slot. What is written of a sequence is

    magic, sequence, number of streams: 3 times u32; of each stream the number of its cells: u32; and their data, if any

(llama-cpp-python 0.3.36; fingerprints name the version), and it is read back only with the same number of streams. The
cells of a sequence are all in one, whichever, so the others' zeros can be left out or added. Models with sliding
windows have two caches, written one after the other: theirs stays as it is.
"""

from __future__ import annotations

import struct

from llmos_shell.abi.errors import Code, LlmosError

_HEAD = 8
_NUMBER = struct.Struct("=I")


def with_streams(blob: bytes | memoryview, streams: int) -> bytes | memoryview:
    """The same state for a cache with so many streams. Raises EINVAL for what is no state of one sequence."""
    view = memoryview(blob).cast("B")
    count = _number(view, _HEAD)
    if count == streams:
        return blob
    first = _HEAD + _NUMBER.size
    empty = 0
    while empty < count and not _number(view, first + empty * _NUMBER.size):
        empty += 1
    start, end = first + empty * _NUMBER.size, len(view) - (count - empty - 1) * _NUMBER.size
    if empty >= count or any(view[end:]) or start >= end:
        raise LlmosError(Code.EINVAL, f"a state of {len(view)} bytes in {count} streams is not that of one sequence")
    return b"".join((view[:_HEAD], _NUMBER.pack(streams), view[start:end], bytes((streams - 1) * _NUMBER.size)))


def _number(view: memoryview, offset: int) -> int:
    if offset + _NUMBER.size > len(view):
        raise LlmosError(Code.EINVAL, f"a state ends after {len(view)} bytes")
    return int(_NUMBER.unpack_from(view, offset)[0])
