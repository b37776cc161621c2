"""Checkpoint files: processes with their tokens, text and KV, written whole or not at all, verified before use.

    magic `LLMOSCP1` | slot 0 | slot 1 | pieces and indexes, in the order of writing

A slot is `generation: u64 | offset: u64 | length: u32 of an index | CRC-32 of the index | CRC-32 of the slot`, all
little-endian. An index is msgpack: its format's version, and per process a few facts and its contents as lists of
pieces (offset, length, CRC-32, 16 bytes of BLAKE2b). Equal pieces are in the file once.

A new file appears under its name when it is complete and on the disk. A further checkpoint to the same file appends the
pieces that are new and an index, waits for the disk, then overwrites the older slot: whenever the power goes, the
newest whole checkpoint is there. Once half the file is of no more use, it is written anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import BinaryIO, Final, TypeVar

from msgspec import MsgspecError, Struct, msgpack

from llmos_shell.abi.errors import Code, LlmosError

MAGIC: Final = b"LLMOSCP1"
VERSION: Final = 1
DISK_FULL = (28, 122)
_SLOT = struct.Struct("<QQII")
_CRC = struct.Struct("<I")
_SLOT_BYTES = _SLOT.size + _CRC.size
DATA_START: Final = len(MAGIC) + 2 * _SLOT_BYTES


class Piece(Struct, frozen=True, array_like=True):
    """A stretch of the file."""

    offset: int
    length: int
    crc: int
    digest: bytes


class Blob(Struct, frozen=True, array_like=True):
    """Contents, as the pieces to join."""

    pieces: tuple[Piece, ...]
    length: int


class Facts(Struct, frozen=True):
    """What is known of a process without reading its contents."""

    pid: int
    ppid: int
    name: str
    model: str
    weights: str  # fingerprint of the weights its tokens are for; "": not known
    fingerprint: str  # of the engine its KV is for; "": there is none
    tokens: int
    kv_tokens: int
    layout: str = ""
    kv_bytes_per_token: int = 0


class Member(Struct, frozen=True):
    """A process to be written: its facts, its record, and its contents."""

    facts: Facts
    record: bytes
    tokens: bytes  # 32-bit, little-endian
    text: bytes
    kv: bytes | memoryview


class Entry(Struct, frozen=True):
    """A process in an index."""

    facts: Facts
    record: Blob
    tokens: Blob
    text: Blob
    kv: Blob


class Index(Struct, frozen=True):
    """One checkpoint."""

    version: int
    product: str
    created: float
    entries: tuple[Entry, ...]


class Written(Struct, frozen=True):
    """What writing came to: the file's size, and the bytes that were new."""

    bytes: int
    written: int


class _Slot(Struct, frozen=True):
    generation: int
    offset: int
    length: int
    crc: int


# -- writing -----------------------------------------------------------------------------------------------------------


def write(path: str, members: Sequence[Member], product: str) -> Written:
    """Writes a checkpoint of these processes, in addition to what is in the file already.

    Raises EINVAL when the file is something else, EIO when it is damaged, EBUSY when it is being written, ENOSPC.
    """
    try:
        if os.path.exists(path):
            return _append(path, members, product)
        return _create(path, members, product)
    except OSError as error:
        code = Code.ENOSPC if error.errno in DISK_FULL else Code.EIO
        raise LlmosError(code, f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def _create(path: str, members: Sequence[Member], product: str) -> Written:
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "xb+") as file:
            file.write(MAGIC + bytes(2 * _SLOT_BYTES))
            _add(file, members, product, {}, 1)
            size = file.seek(0, os.SEEK_END)
        os.replace(temporary, path)
    except FileExistsError:
        raise LlmosError(Code.EBUSY, f"{temporary} exists", hint="wait for who writes it, or remove it") from None
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path)
    return Written(size, size)


def _append(path: str, members: Sequence[Member], product: str) -> Written:
    with open(path, "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LlmosError(Code.EBUSY, f"{path} is just being written", hint="wait for it") from None
        slot, index = _newest(path, file)[:2]
        known = {(one.digest, one.length): one for entry in index.entries for one in _pieces_of(entry)}
        before = file.seek(0, os.SEEK_END)
        try:
            live = _add(file, members, product, known, slot.generation + 1)
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise
        size = file.seek(0, os.SEEK_END)
    if live < size // 2 and size > 1 << 20:
        return _compact(path, members, product)
    return Written(size, size - before)


def _compact(path: str, members: Sequence[Member], product: str) -> Written:
    fresh = f"{path}.new"
    with contextlib.suppress(OSError):
        os.unlink(fresh)
    done = _create(fresh, members, product)
    os.replace(fresh, path)
    _sync_folder(path)
    return done


def _add(
    file: BinaryIO, members: Sequence[Member], product: str, known: dict[tuple[bytes, int], Piece], generation: int
) -> int:
    """Appends what is new, then the index, then points the older slot at it; returns the bytes that are of use."""
    file.seek(0, os.SEEK_END)
    entries = tuple(
        Entry(
            member.facts, *(_put(file, part, known) for part in (member.record, member.tokens, member.text, member.kv))
        )
        for member in members
    )
    encoded = msgpack.encode(Index(VERSION, product, time.time(), entries))
    offset = file.tell()
    file.write(encoded)
    file.flush()
    os.fsync(file.fileno())
    body = _SLOT.pack(generation, offset, len(encoded), zlib.crc32(encoded))
    file.seek(len(MAGIC) + generation % 2 * _SLOT_BYTES)
    file.write(body + _CRC.pack(zlib.crc32(body)))
    file.flush()
    os.fsync(file.fileno())
    used = {(one.digest, one.length) for entry in entries for one in _pieces_of(entry)}
    return DATA_START + len(encoded) + sum(length for _, length in used)


def _put(file: BinaryIO, data: bytes | memoryview, known: dict[tuple[bytes, int], Piece]) -> Blob:
    from llmos_shell.engine.chunks import pieces

    parts: list[Piece] = []
    for part in pieces(data):
        key = blake2b(part, digest_size=16).digest(), len(part)
        if key not in known or not _holds(file, known[key], part):
            known[key] = Piece(file.tell(), len(part), zlib.crc32(part), key[0])
            file.write(part)
        parts.append(known[key])
    return Blob(tuple(parts), len(data))


def _holds(file: BinaryIO, piece: Piece, part: memoryview) -> bool:
    """Whether a piece is in the file as it should be: what is referred to once more must not be damaged by now."""
    file.flush()
    return os.pread(file.fileno(), piece.length, piece.offset) == part


# -- reading -----------------------------------------------------------------------------------------------------------


class Reader:
    """An open checkpoint file: its newest whole index, and the contents of its processes, verified."""

    def __init__(self, path: str) -> None:
        """Raises ENOENT, EIO (damaged) or EINVAL (something else, or a newer format)."""
        self.path = path
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        except FileNotFoundError:
            raise LlmosError(Code.ENOENT, f"{path}: no such file") from None
        except OSError as error:
            raise LlmosError(Code.EIO, f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
        try:
            _, self.index, self.note = _newest(path, self._file)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def member(self, entry: Entry) -> Member:
        """A process with its contents. Raises EIO when any of them is damaged."""
        record, tokens, text, kv = map(self._join, (entry.record, entry.tokens, entry.text, entry.kv))
        return Member(entry.facts, record, tokens, text, kv)

    def _join(self, blob: Blob) -> bytes:
        data = bytearray()
        for piece in blob.pieces:
            self._file.seek(piece.offset)
            part = self._file.read(piece.length)
            if len(part) != piece.length or zlib.crc32(part) != piece.crc:
                raise LlmosError(Code.EIO, f"{self.path} is damaged at byte {piece.offset}")
            data += part
        if len(data) != blob.length:
            raise LlmosError(Code.EIO, f"{self.path} is damaged: {len(data)} bytes where {blob.length} should be")
        return bytes(data)


def _newest(path: str, file: BinaryIO) -> tuple[_Slot, Index, str]:
    """The newest checkpoint that is whole, and what is wrong with a newer one."""
    file.seek(0)
    head = file.read(DATA_START)
    if head[: len(MAGIC)] != MAGIC:
        raise LlmosError(Code.EINVAL, f"{path} is no checkpoint")
    slots = [slot for number in (0, 1) if (slot := _slot(head, number)) is not None]
    newest = max((slot.generation for slot in slots), default=0)
    problem, torn = "", sum(_is_torn(head, number) for number in (0, 1))
    for slot in sorted(slots, key=lambda one: -one.generation):
        try:
            index = _index(path, file, slot)
        except LlmosError as error:
            if error.code == Code.EINVAL:
                raise
            problem = problem or str(error)
            continue
        lost = torn or slot.generation < newest
        note = f"a checkpoint in {path} is damaged; this is the newest whole one" if lost else ""
        return slot, index, note
    raise LlmosError(Code.EIO, problem or f"{path} is damaged: its head cannot be read")


def _slot(head: bytes, number: int) -> _Slot | None:
    start = len(MAGIC) + number * _SLOT_BYTES
    body, crc = head[start : start + _SLOT.size], head[start + _SLOT.size : start + _SLOT_BYTES]
    if len(crc) < _CRC.size or _CRC.unpack(crc)[0] != zlib.crc32(body) or not any(body):
        return None
    return _Slot(*_SLOT.unpack(body))


def _is_torn(head: bytes, number: int) -> bool:
    start = len(MAGIC) + number * _SLOT_BYTES
    return any(head[start : start + _SLOT_BYTES]) and _slot(head, number) is None


def _index(path: str, file: BinaryIO, slot: _Slot) -> Index:
    file.seek(slot.offset)
    encoded = file.read(slot.length)
    if len(encoded) != slot.length or zlib.crc32(encoded) != slot.crc:
        raise LlmosError(Code.EIO, f"{path} is damaged: {os.path.getsize(path)} bytes with a wrong checksum")
    version = _decoded(path, encoded, _Version).version
    if version != VERSION:
        raise LlmosError(Code.EINVAL, f"{path} has format {version}, this is {VERSION}", hint="use a newer llmos")
    return _decoded(path, encoded, Index)


_T = TypeVar("_T")


class _Version(Struct):
    version: int


def _decoded(path: str, encoded: bytes, kind: type[_T]) -> _T:
    try:
        return msgpack.decode(encoded, type=kind)
    except MsgspecError as error:
        raise LlmosError(Code.EINVAL, f"{path} is of another format: {error}") from error


def _pieces_of(entry: Entry) -> Iterator[Piece]:
    for blob in (entry.record, entry.tokens, entry.text, entry.kv):
        yield from blob.pieces


def _sync_folder(path: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
