"""Files that hold one image after another: used again when nobody needs them, and never before."""

from __future__ import annotations

import fcntl
import resource
import shutil
from pathlib import Path

import pytest
from msgspec import structs

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.engine import images
from llmos_shell.engine.arenas import SPARE, Arenas

HEADER = images.Header(images.VERSION, "model", tuple(range(100)), "split", 16, 0)
SIZE = 20_000


@pytest.fixture
def arenas():
    kept = Arenas(least_bytes=1000, most_bytes=5 * SIZE)
    yield kept
    kept.close()


def blob_of(number: int, size: int = SIZE) -> bytes:
    return bytes((number + index) % 251 for index in range(size))


def export(path: Path, arenas: Arenas, blob: bytes) -> int:
    draft = images.Draft(str(path), HEADER, arenas)
    room = draft.room(len(blob))
    if room is None:
        return draft.finish(blob)
    room[:] = blob
    return draft.finish(room)


def read(path: Path, arenas: Arenas | None) -> bytes:
    image = images.read(str(path), "model", arenas)
    assert structs.replace(image.header, blob_bytes=0) == HEADER
    return bytes(image.blob)


@pytest.mark.parametrize("again", [False, True])
def test_an_exported_image_is_that_which_is_written(tmp_path: Path, arenas: Arenas, again: bool) -> None:
    if again:
        export(tmp_path / "a", arenas, blob_of(9))
        (tmp_path / "a").unlink()
    size = export(tmp_path / "a", arenas, blob_of(1))
    assert images.write(str(tmp_path / "b"), structs.replace(HEADER, blob_bytes=SIZE), blob_of(1)) == size
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read(tmp_path / "a", arenas) == read(tmp_path / "a", None) == blob_of(1)


def test_a_small_image_gets_a_file_of_its_own(tmp_path: Path, arenas: Arenas) -> None:
    export(tmp_path / "a", arenas, blob_of(1, 500))
    assert (arenas.kept_bytes, read(tmp_path / "a", arenas)) == (0, blob_of(1, 500))


@pytest.mark.parametrize("size", [SIZE // 2 + 500, SIZE, SIZE + 5000])
def test_a_file_is_used_again_once_its_image_is_gone(tmp_path: Path, arenas: Arenas, size: int) -> None:
    export(tmp_path / "a", arenas, blob_of(1))
    file = (tmp_path / "a").stat().st_ino
    export(tmp_path / "b", arenas, blob_of(2))
    assert (tmp_path / "b").stat().st_ino != file
    (tmp_path / "a").unlink()
    export(tmp_path / "c", arenas, blob_of(3, size))
    assert (tmp_path / "c").stat().st_ino == file
    assert read(tmp_path / "c", None) == read(tmp_path / "c", arenas) == blob_of(3, size)
    assert read(tmp_path / "b", arenas) == blob_of(2)


def test_a_much_larger_file_is_left_to_larger_images(tmp_path: Path, arenas: Arenas) -> None:
    export(tmp_path / "a", arenas, blob_of(1))
    (tmp_path / "a").unlink()
    export(tmp_path / "b", arenas, blob_of(2, SIZE // 4))
    assert len(list((tmp_path / SPARE).iterdir())) == 2


def test_a_file_that_is_being_read_is_not_used_again(tmp_path: Path, arenas: Arenas) -> None:
    export(tmp_path / "a", arenas, blob_of(1))
    with (tmp_path / "a").open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        (tmp_path / "a").unlink()
        export(tmp_path / "b", arenas, blob_of(2))
        assert blob_of(1) in reader.read()
    export(tmp_path / "c", arenas, blob_of(3))
    assert len(list((tmp_path / SPARE).iterdir())) == 2


def test_another_workers_image_is_adopted(tmp_path: Path, arenas: Arenas) -> None:
    (tmp_path / SPARE).mkdir()
    images.write(str(tmp_path / "a"), structs.replace(HEADER, blob_bytes=SIZE), blob_of(1))
    file = (tmp_path / "a").stat().st_ino
    assert read(tmp_path / "a", arenas) == blob_of(1)
    (tmp_path / "a").unlink()
    export(tmp_path / "b", arenas, blob_of(2))
    assert (tmp_path / "b").stat().st_ino == file


def test_an_image_on_a_disk_is_not_kept(tmp_path: Path, arenas: Arenas) -> None:
    export(tmp_path / "own", arenas, blob_of(2))
    (tmp_path / "disk").mkdir()
    images.write(str(tmp_path / "disk" / "a"), structs.replace(HEADER, blob_bytes=SIZE), blob_of(1))
    assert read(tmp_path / "disk" / "a", arenas) == blob_of(1)
    assert arenas.kept_bytes < 2 * SIZE and [path.name for path in (tmp_path / "disk").iterdir()] == ["a"]


def test_a_file_whose_image_was_replaced_is_not_taken_for_it(tmp_path: Path, arenas: Arenas) -> None:
    export(tmp_path / "a", arenas, blob_of(1))
    images.write(str(tmp_path / "a"), structs.replace(HEADER, blob_bytes=SIZE), blob_of(2))
    assert read(tmp_path / "a", arenas) == blob_of(2)


def test_what_is_kept_is_bounded(tmp_path: Path, arenas: Arenas) -> None:
    for number in range(20):
        export(tmp_path / str(number), arenas, blob_of(number))
        assert arenas.kept_bytes <= 5 * SIZE
    assert [read(tmp_path / str(number), arenas) for number in range(20)] == [blob_of(number) for number in range(20)]
    assert arenas.kept_bytes <= 5 * SIZE
    arenas.close()
    assert not list((tmp_path / SPARE).iterdir())
    assert [read(tmp_path / str(number), None) for number in range(20)] == [blob_of(number) for number in range(20)]


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_without_room_is_an_error_and_leaves_nothing(tmp_path: Path, arenas: Arenas, again: bool) -> None:
    if again:
        export(tmp_path / "a", arenas, blob_of(1))
        (tmp_path / "a").unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, limits[1]))
    try:
        with pytest.raises(LlmosError, match="cannot write"):
            export(tmp_path / "a", arenas, blob_of(1, SIZE + 5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    export(tmp_path / "a", arenas, blob_of(1))
    assert read(tmp_path / "a", arenas) == blob_of(1)


def test_a_folder_that_was_removed_is_an_error(tmp_path: Path, arenas: Arenas) -> None:
    (tmp_path / "folder").mkdir()
    export(tmp_path / "folder" / "a", arenas, blob_of(1))
    shutil.rmtree(tmp_path / "folder")
    with pytest.raises(LlmosError) as caught:
        export(tmp_path / "folder" / "a", arenas, blob_of(1))
    assert caught.value.code == Code.EIO


def test_a_draft_that_is_closed_leaves_nothing(tmp_path: Path, arenas: Arenas) -> None:
    export(tmp_path / "a", arenas, blob_of(1))
    (tmp_path / "a").unlink()
    draft = images.Draft(str(tmp_path / "a"), HEADER, arenas)
    assert draft.room(SIZE) is not None
    draft.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
