"""Packed image files: the same bytes come out, in little memory, or nothing does."""

from __future__ import annotations

import io
import os
import random
import tracemalloc
from array import array
from functools import cache
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.engine import images, packed
from llmos_shell.engine.packed import BLOCK_BYTES, MAGIC

CASES = int(os.environ.get("LLMOS_FUZZ", "300"))
HEAD = len(MAGIC) + 8
BLOCK_HEAD = 5
DIGEST = 16


def pack(data: bytes) -> bytes:
    target = io.BytesIO()
    size = packed.pack(io.BytesIO(data), target, len(data))
    assert size == len(target.getvalue())
    return target.getvalue()


def unpack(data: bytes) -> bytes:
    target = io.BytesIO()
    assert packed.unpack(io.BytesIO(data), target, "image") == len(target.getvalue())
    return target.getvalue()


def refused(data: bytes) -> bool:
    try:
        unpack(data)
    except LlmosError as error:
        assert error.code == Code.EIO and str(error).startswith("image is damaged: ")
        return True
    return False


def summed(data: bytes) -> bytes:
    """A file that is made up, with the checksum it should have."""
    return data + xxhash.xxh3_128_digest(data)


def head(size: int) -> bytes:
    return MAGIC + size.to_bytes(8, "little")


def block(form: int, data: bytes, length: int | None = None) -> bytes:
    return bytes([form]) + (len(data) if length is None else length).to_bytes(4, "little") + data


@cache
def numbers(kind: str, count: int) -> bytes:
    """Such as KV has: of like size, with noise in the lower bits."""
    chance = random.Random(count)
    if kind == "f":
        return array("f", [chance.gauss(0, 1) for _ in range(count)]).tobytes()
    return array("H", [0x3C00 + chance.randrange(0x800) for _ in range(count)]).tobytes()


def forms(data: bytes) -> list[int]:
    """Of the blocks of a packed file."""
    found, at = [], HEAD
    while at < len(data) - DIGEST:
        found.append(data[at])
        at += BLOCK_HEAD + int.from_bytes(data[at + 1 : at + BLOCK_HEAD], "little")
    return found


DATA = st.one_of(
    st.binary(max_size=4000),
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=20), st.integers(0, 3000)),
    st.builds(
        lambda before, kind, count, after: before + numbers(kind, count) + after,
        st.binary(max_size=5), st.sampled_from("fH"), st.integers(0, 2000), st.binary(max_size=5),
    ),
)  # fmt: skip


@given(DATA)
def test_the_same_bytes_come_out(data: bytes) -> None:
    assert unpack(pack(data)) == data


@given(st.integers(-9, 9), st.integers(0, 2), st.integers())
@settings(max_examples=12, deadline=None)
def test_the_same_bytes_come_out_of_several_blocks(more: int, blocks: int, seed: int) -> None:
    size = max(0, blocks * BLOCK_BYTES + more)
    noise, even = random.Random(seed).randbytes(size), bytes(size)
    for data in (noise, even, noise[: size // 2] + even[size // 2 :]):
        assert unpack(pack(data)) == data


def test_each_block_is_in_the_form_that_is_smallest() -> None:
    noise = random.Random(1).randbytes(BLOCK_BYTES)
    halves, floats = numbers("H", BLOCK_BYTES // 2), numbers("f", BLOCK_BYTES // 4)
    words = (b"a rather long text that comes again " * BLOCK_BYTES)[:BLOCK_BYTES]
    data = pack(noise + halves + floats + words)
    assert forms(data) == [0, 2, 4, 1]
    assert unpack(data) == noise + halves + floats + words
    assert len(pack(noise)) == len(noise) + HEAD + BLOCK_HEAD + DIGEST
    assert len(pack(halves)) < 0.9 * len(halves) and len(pack(floats)) < 0.92 * len(floats)


def test_small_images_gain_as_large_ones_do() -> None:
    assert len(pack(numbers("H", 20_000))) < 0.9 * 40_000


@given(DATA, st.data())
@settings(max_examples=CASES)
def test_what_is_damaged_is_refused(data: bytes, draw: st.DataObject) -> None:
    whole = pack(data)
    assert refused(whole[: draw.draw(st.integers(0, len(whole) - 1))])
    assert refused(whole + draw.draw(st.binary(min_size=1, max_size=9)))
    flipped = bytearray(whole)
    for bit in draw.draw(st.sets(st.integers(0, 8 * len(whole) - 1), min_size=1, max_size=3)):
        flipped[bit // 8] ^= 1 << bit % 8
    assert refused(bytes(flipped))


def test_every_truncation_and_every_flipped_bit_is_noticed() -> None:
    whole = pack(numbers("H", 40))
    for size in range(len(whole)):
        assert refused(whole[:size])
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(flipped))


@given(st.integers(0, 255), st.binary(max_size=60), st.integers(0, 1 << 64 - 1), st.none() | st.integers(0, 1 << 31))
def test_a_file_with_a_right_checksum_may_say_anything(form: int, data: bytes, size: int, length: int | None) -> None:
    made = summed(head(size) + block(form, data, length))
    assert refused(made) or unpack(made) == (data if form == 0 else unpack(made))


HUGE = ZstdCompressor().compress(bytes(64 << 20))
LIES = {
    "a huge image": head(1 << 62) + block(0, b"x" * 100),
    "a huge block": head(1 << 62) + block(0, b"x" * 100, (1 << 32) - 1),
    "a block that unpacks to more than it stands for": head(100) + block(1, HUGE),
    "a block that unpacks to more than a block": head(64 << 20) + block(2, HUGE),
    "a frame that does not tell its size": head(64 << 20) + block(
        1, ZstdCompressor(write_content_size=False).compress(bytes(BLOCK_BYTES))
    ),
    "a frame and something behind it": head(100) + block(1, ZstdCompressor().compress(bytes(100)) + b"x"),
    "an unknown form": head(100) + block(3, ZstdCompressor().compress(bytes(100))),
    "no frame": head(100) + block(1, bytes(50)),
    "a block too few": head(2 * BLOCK_BYTES) + block(1, ZstdCompressor().compress(bytes(BLOCK_BYTES))),
    "a block too many": head(0) + block(0, b""),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_no_size_in_a_file_is_believed_beyond_a_block(lie: str) -> None:
    made = summed(LIES[lie])
    tracemalloc.start()
    assert refused(made)
    assert tracemalloc.get_traced_memory()[1] < 5 * BLOCK_BYTES
    tracemalloc.stop()


def test_little_memory_is_taken_whatever_the_image_has(tmp_path: Path) -> None:
    block = numbers("H", BLOCK_BYTES // 2)
    with (tmp_path / "image").open("wb") as file:
        for _ in range(24):
            file.write(block)
    tracemalloc.start()
    with (tmp_path / "image").open("rb") as source, (tmp_path / "packed").open("wb") as target:
        packed.pack(source, target, 24 * BLOCK_BYTES)
    with (tmp_path / "packed").open("rb") as source, (tmp_path / "again").open("wb") as target:
        packed.unpack(source, target, "image")
    assert tracemalloc.get_traced_memory()[1] < 8 * BLOCK_BYTES
    tracemalloc.stop()
    assert (tmp_path / "again").read_bytes() == (tmp_path / "image").read_bytes()


def test_an_image_that_ends_too_early_is_not_packed() -> None:
    with pytest.raises(LlmosError, match="ends after 7 of 9 bytes"):
        packed.pack(io.BytesIO(b"1234567"), io.BytesIO(), 9)


def test_a_packed_image_is_read_like_any_other(tmp_path: Path) -> None:
    blob = numbers("H", 3000)
    images.write(str(tmp_path / "a"), images.Header(images.VERSION, "model", (1, 2), "split", 16, len(blob)), blob)
    plain = images.read(str(tmp_path / "a"), "model")
    whole = pack((tmp_path / "a").read_bytes())
    assert len(whole) < (tmp_path / "a").stat().st_size
    (tmp_path / "b").write_bytes(whole)
    found = images.read(str(tmp_path / "b"), "model")
    assert (found.header, bytes(found.blob)) == (plain.header, blob)
    (tmp_path / "b").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(LlmosError, match="b is damaged: wrong checksum") as caught:
        images.read(str(tmp_path / "b"), "model")
    assert caught.value.code == Code.EIO
    (tmp_path / "b").write_bytes(pack((tmp_path / "a").read_bytes()[:-1] + b"x"))
    with pytest.raises(LlmosError, match="with a wrong checksum"):
        images.read(str(tmp_path / "b"), "model")
