from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.engine import images
from llmos_shell.engine.arenas import SPARE, Arenas

Reader = Callable[[str, str | None], images.Image]
HEADER = images.Header(images.VERSION, "model", (1, 2, 3), "split", 16, 40)
BLOB = bytes(range(40))


@pytest.fixture(params=[False, True], ids=["read", "mapped"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Reader:
    (tmp_path / SPARE).mkdir()
    return partial(images.read, arenas=Arenas(least_bytes=1) if request.param else None)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    assert images.write(str(path), HEADER, BLOB) == path.stat().st_size
    return path


def test_round_trip(image: Path, read: Reader) -> None:
    found = read(str(image), "model")
    assert (found.header, bytes(found.blob)) == (HEADER, BLOB)
    assert [child.name for child in image.parent.iterdir() if child.is_file()] == ["image"]


def test_every_truncation_is_noticed(image: Path, read: Reader) -> None:
    data = image.read_bytes()
    for size in range(len(data)):
        image.write_bytes(data[:size])
        with pytest.raises(LlmosError) as caught:
            read(str(image), "model")
        assert caught.value.code == Code.EIO


def test_every_flipped_bit_is_noticed(image: Path, read: Reader) -> None:
    data = image.read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        image.write_bytes(flipped)
        with pytest.raises(LlmosError):
            read(str(image), "model")


def test_appended_bytes_are_noticed(image: Path, read: Reader) -> None:
    image.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(LlmosError):
        read(str(image), "model")


def test_other_models_and_missing_files_are_refused(image: Path, read: Reader) -> None:
    for path, fingerprint, code in ((image, "other", Code.EINVAL), (image.parent / "none", "model", Code.ENOENT)):
        with pytest.raises(LlmosError) as caught:
            read(str(path), fingerprint)
        assert caught.value.code == code


def test_a_failed_write_leaves_the_old_image(image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(LlmosError):
        images.write(str(image.parent / "no" / "folder"), HEADER, BLOB)
    images.write(str(image), HEADER, BLOB, durable=True)
    assert image.read_bytes() == before


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix(left: list[int], right: list[int]) -> None:
    size = images.common_prefix(left, right)
    assert left[:size] == right[:size]
    assert size == min(len(left), len(right)) or left[size] != right[size]
