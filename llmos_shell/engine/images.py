"""KV images in files: written whole or not at all, verified whole before an engine sees a byte.

    magic `LLMOSKV2` | length of header: u32 | header: msgpack | KV blob | XXH3-128 of everything before

Integers are little-endian. A truncated blob would crash llama.cpp and a flipped bit would load silently, so a reader
checks length and checksum of the whole file first. XXH3 runs at 30 GB/s where zlib's CRC-32 does 4 and blake2b 0.9 (one
core, 2026), and images have hundreds of megabytes. It is no protection against an attacker; the folders are private to
the user.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Final

import xxhash
from msgspec import MsgspecError, Struct, msgpack

from llmos_shell.abi.errors import Code, LlmosError

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
    encoded = msgpack.encode(header)
    head = MAGIC + _LENGTH.pack(len(encoded)) + encoded
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
        code = Code.ENOSPC if error.errno in (28, 122) else Code.EIO
        raise LlmosError(code, f"cannot write {path}: {error.strerror}") from error
    return len(head) + len(blob) + len(checksum)


def read(path: str, fingerprint: str | None, *, mapped: bool = False) -> Image:
    """Reads and verifies an image. Raises ENOENT, EIO (damaged) or EINVAL (of another model or format).

    Without a fingerprint an image of any model will do. `mapped` takes a fifth of the time, but a file that others cut
    short, or a broken disk, kills the process: it is for workers, and for files of our own.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            if mapped and os.fstat(file.fileno()).st_size:
                data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
            else:
                data = memoryview(file.readall())
    except FileNotFoundError:
        raise LlmosError(Code.ENOENT, f"no image at {path}") from None
    except OSError as error:
        raise LlmosError(Code.EIO, f"cannot read {path}: {error.strerror}") from error
    if len(data) < _MIN_BYTES or bytes(data[: len(MAGIC)]) != MAGIC:
        raise LlmosError(Code.EIO, f"{path} is not a KV image")
    if xxhash.xxh3_128_digest(data[:-_DIGEST_BYTES]) != data[-_DIGEST_BYTES:]:
        raise LlmosError(Code.EIO, f"{path} is damaged: {len(data)} bytes with a wrong checksum")
    header, start = _parse(path, data)
    if len(data) != start + header.blob_bytes + _DIGEST_BYTES:
        raise LlmosError(Code.EIO, f"{path} is damaged: {len(data)} bytes, {header.blob_bytes} of KV expected")
    if fingerprint is not None and header.fingerprint != fingerprint:
        raise LlmosError(Code.EINVAL, f"{path} was made by another model or kernel")
    return Image(header, data[start:-_DIGEST_BYTES])


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading tokens are equal."""
    size = min(len(left), len(right))
    if tuple(left[:size]) == tuple(right[:size]):
        return size
    return next(index for index in range(size) if left[index] != right[index])


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
