"""Images that are verified before they are asked for: whole, locked meanwhile, and given up without a trace."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.engine import images
from llmos_shell.engine.ahead import Ahead
from llmos_shell.engine.arenas import Arenas
from llmos_shell.testing.retry import retry_until

SIZE = 100_000
HEADER = images.Header(images.VERSION, "model", (1, 2, 3), "split", 16, 0)


@pytest.fixture
def arenas() -> Iterator[Arenas]:
    with_files = Arenas(least_bytes=1)
    yield with_files
    with_files.close()


@pytest.fixture
def ahead(arenas: Arenas) -> Iterator[Ahead]:
    before = descriptors()
    made = Ahead("model", arenas)
    yield made
    made.close()
    arenas.close()
    gc.collect()  # mappings in tracebacks
    assert descriptors() == before


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def export(path: Path, arenas: Arenas, fill: int) -> None:
    draft = images.Draft(str(path), HEADER, arenas)
    blob = draft.room(SIZE)
    if blob is not None:
        blob[:] = bytes([fill]) * SIZE
    draft.finish(bytes([fill]) * SIZE if blob is None else blob)


def blob_of(ahead: Ahead, path: Path) -> bytes:
    with ahead.image(str(path)) as image:
        return bytes(image.blob)


def verified(ahead: Ahead, path: Path) -> None:
    """Waits until that is done."""
    ahead.expect(str(path))
    retry_until(lambda: ahead._expected[str(path)].done())


@pytest.mark.parametrize("expected", [False, True])
def test_an_image_is_the_same_whether_expected_or_not(
    tmp_path: Path, arenas: Arenas, ahead: Ahead, expected: bool
) -> None:
    export(tmp_path / "a", arenas, 1)
    for _ in range(3):
        if expected:
            verified(ahead, tmp_path / "a")
            ahead.expect(str(tmp_path / "a"))
        assert blob_of(ahead, tmp_path / "a") == bytes([1]) * SIZE
    file = (tmp_path / "a").stat().st_ino
    (tmp_path / "a").unlink()
    export(tmp_path / "b", arenas, 2)
    assert (tmp_path / "b").stat().st_ino == file, "its file can be used again"


def test_what_was_verified_stays_what_it_is_when_its_name_goes(tmp_path: Path, arenas: Arenas, ahead: Ahead) -> None:
    export(tmp_path / "a", arenas, 1)
    verified(ahead, tmp_path / "a")
    (tmp_path / "a").unlink()
    export(tmp_path / "b", arenas, 2)
    assert blob_of(ahead, tmp_path / "a") == bytes([1]) * SIZE


@pytest.mark.parametrize("expected", [False, True])
def test_what_cannot_be_used_is_an_error(tmp_path: Path, arenas: Arenas, ahead: Ahead, expected: bool) -> None:
    export(tmp_path / "a", arenas, 1)
    with (tmp_path / "a").open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"x")
    for name, code in (("a", Code.EIO), ("missing", Code.ENOENT)):
        if expected:
            verified(ahead, tmp_path / name)
        with pytest.raises(LlmosError) as caught:
            blob_of(ahead, tmp_path / name)
        assert caught.value.code == code


def test_nothing_is_left_of_what_nobody_asked_for(tmp_path: Path, arenas: Arenas, ahead: Ahead) -> None:
    export(tmp_path / "a", arenas, 1)
    for path in (tmp_path / "a", tmp_path / "missing"):
        for wait in (False, True):
            ahead.expect(str(path))
            if wait:
                verified(ahead, path)
            ahead.forget(str(path))
            ahead.forget(str(path))
    ahead.expect(str(tmp_path / "a"))
