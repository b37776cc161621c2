"""KV images in files: written whole or not at all, verified whole before an engine sees a byte.

    magic `LLMOSKV2` | length of header: u32 | header: msgpack | KV blob | XXH3-128 of everything before

Integers are little-endian. A truncated blob would crash llama.cpp and a flipped bit would load silently, so a reader
checks length and checksum of the whole file first. XXH3 runs at 30 GB/s where zlib's CRC-32 does 4 and blake2b 0.9 (one
core, 2026), and images have hundreds of megabytes. It is no protection against an attacker; the folders are private to
the user. Files in RAM are used again and stay mapped, see `arenas`; those on disk may be `packed`.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from typing import Final

import xxhash
from msgspec import MsgspecError, Struct, msgpack, structs

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.engine import packed
from llmos_shell.engine.arenas import Arena, Arenas

MAGIC: Final = b"LLMOSKV2"
VERSION: Final = 2
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 16
_MIN_BYTES = len(MAGIC) + _LENGTH.size + _DIGEST_BYTES


class Header(Struct, frozen=True):
    """What an image is of."""

    version: int
    fingerprint: str  # of the engine that exported it
    tokens: tuple[int, ...]  # whose KV the blob holds
    layout: str
    kv_bytes_per_token: int
    blob_bytes: int


class Image(Struct, frozen=True):
    """A verified image."""

    header: Header
    blob: memoryview


def write(path: str, header: Header, blob: bytes | memoryview, *, durable: bool = False) -> int:
    """Writes an image through a temporary file beside it; returns its size in bytes.

    `durable` flushes it to the disk before it gets its name (pointless on tmpfs). Raises ENOSPC or EIO, and leaves
    nothing behind then.
    """
    head = _head(header)
    digest = xxhash.xxh3_128(head)
    digest.update(blob)
    checksum = digest.digest()
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "wb", buffering=0) as file:
            for part in (head, blob, checksum):
                _write_all(file.fileno(), part)
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise _failed(path, error) from error
    return len(head) + len(blob) + len(checksum)


class Draft:
    """An image in the making: into `room`, if there is any, an engine writes its KV where it stays.

    `room` takes no longer than it must, as steps wait for it; `finish` may be called from another thread.
    """

    def __init__(self, path: str, header: Header, arenas: Arenas) -> None:
        """`blob_bytes` of the header need not be known yet."""
        self._path = path
        self._header = header
        self._arenas = arenas
        self._arena: Arena | None = None
        self._room: memoryview | None = None

    def room(self, size: int) -> memoryview | None:
        """Where `size` bytes of KV can be written at once; None where there is no such place."""
        head = _head(structs.replace(self._header, blob_bytes=size))
        self._arena = self._arenas.take(len(head) + size + _DIGEST_BYTES)
        if self._arena is None:
            return None
        view = self._arena.view()
        view[: len(head)] = head
        self._room = view[len(head) : len(head) + size]
        return self._room

    def finish(self, blob: bytes | memoryview) -> int:
        """Gives the image its name; returns its size in bytes. Raises ENOSPC or EIO, and leaves nothing behind then."""
        arena = self._arena
        if arena is None or blob is not self._room:
            self.close()
            size = write(self._path, structs.replace(self._header, blob_bytes=len(blob)), blob)
            self._arenas.adopt(self._path, own=True)
            return size
        view = arena.view()
        view[-_DIGEST_BYTES:] = xxhash.xxh3_128_digest(view[:-_DIGEST_BYTES])
        try:
            self._arenas.publish(arena, self._path)
        except OSError as error:
            self.close()
            raise _failed(self._path, error) from error
        return len(view)

    def close(self) -> None:
        """Nothing will come of it."""
        arena, self._arena, self._room = self._arena, None, None
        if arena is not None:
            arena.close()


def read(path: str, fingerprint: str | None, arenas: Arenas | None = None) -> Image:
    """Reads and verifies an image. Raises ENOENT, EIO (damaged) or EINVAL (of another model or format).

    Without a fingerprint an image of any model will do. With `arenas` the blob is a mapping of the file where that can
    be, valid until the next image is written.
    """
    try:
        data = arenas.adopt(path) if arenas is not None else None
        if data is None:
            with open(path, "rb", buffering=0) as file:
                data = packed.contents(file, path)
    except FileNotFoundError:
        raise LlmosError(Code.ENOENT, f"no image at {path}") from None
    except OSError as error:
        raise LlmosError(Code.EIO, f"cannot read {path}: {error.strerror}") from error
    magic = bytes(data[: len(MAGIC)])
    if len(data) < _MIN_BYTES or magic[:-1] != MAGIC[:-1]:
        raise LlmosError(Code.EIO, f"{path} is not a KV image")
    if magic != MAGIC:
        number = magic[-1:].decode("ascii", "replace")
        raise LlmosError(Code.EINVAL, f"{path} is an image of format {number}, not {VERSION}")
    if xxhash.xxh3_128_digest(data[:-_DIGEST_BYTES]) != data[-_DIGEST_BYTES:]:
        raise LlmosError(Code.EIO, f"{path} is damaged: {len(data)} bytes with a wrong checksum")
    header, start = _parse(path, data)
    if len(data) != start + header.blob_bytes + _DIGEST_BYTES:
        raise LlmosError(Code.EIO, f"{path} is damaged: {len(data)} bytes, {header.blob_bytes} of KV expected")
    if fingerprint is not None and header.fingerprint != fingerprint:
        raise LlmosError(Code.EINVAL, f"{path} was made by {header.fingerprint}, this is {fingerprint}")
    return Image(header, data[start:-_DIGEST_BYTES])


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading tokens are equal."""
    size = min(len(left), len(right))
    if tuple(left[:size]) == tuple(right[:size]):
        return size
    return next(index for index in range(size) if left[index] != right[index])


def _head(header: Header) -> bytes:
    """What stands before the KV."""
    encoded = msgpack.encode(header)
    return MAGIC + _LENGTH.pack(len(encoded)) + encoded


def _failed(path: str, error: OSError) -> LlmosError:
    code = Code.ENOSPC if error.errno in (28, 122) else Code.EIO
    return LlmosError(code, f"cannot write {path}: {error.strerror}")


def _parse(path: str, data: memoryview) -> tuple[Header, int]:
    """The header, and where the blob begins, of a file whose checksum is right."""
    begin = len(MAGIC) + _LENGTH.size
    length = _LENGTH.unpack(data[len(MAGIC) : begin])[0]
    try:
        header = msgpack.decode(data[begin : begin + length], type=Header)
    except MsgspecError as error:
        raise LlmosError(Code.EINVAL, f"{path} has a header of another format") from error
    if header.version != VERSION:
        raise LlmosError(Code.EINVAL, f"{path} is an image of format {header.version}, not {VERSION}")
    return header, begin + length


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
