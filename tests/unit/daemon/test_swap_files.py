"""Files on their way to the swap folder and back: packed where that gains something, nothing left behind otherwise."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.memory.swap import Moved, copy_file
from llmos_shell.engine.packed import MAGIC

EVEN = b"a conversation that says the same again and again. " * 50_000
NOISE = random.Random(1).randbytes(1_500_000)


def moved(source: Path, target: Path, compress: bool, durable: bool = False) -> Moved:
    done = copy_file(str(source), str(target), compress, durable)
    assert (done.source_bytes, done.target_bytes) == (source.stat().st_size, target.stat().st_size)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return done


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("data", [EVEN, NOISE, b""], ids=["even", "noise", "nothing"])
def test_there_and_back(tmp_path: Path, data: bytes, compress: bool, durable: bool) -> None:
    (tmp_path / "image").write_bytes(data)
    out = moved(tmp_path / "image", tmp_path / "disk" / "1.kv", compress, durable)
    assert out.target_bytes <= len(data)
    assert (tmp_path / "disk" / "1.kv").read_bytes().startswith(MAGIC) == (compress and data is EVEN)
    back = moved(tmp_path / "disk" / "1.kv", tmp_path / "ram" / "2.kv", False)
    assert back.target_bytes == len(data) and (tmp_path / "ram" / "2.kv").read_bytes() == data


def test_a_damaged_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(EVEN)
    moved(tmp_path / "image", tmp_path / "disk" / "1.kv", True)
    whole = (tmp_path / "disk" / "1.kv").read_bytes()
    (tmp_path / "disk" / "1.kv").write_bytes(whole[:-1])
    with pytest.raises(LlmosError, match=r"1\.kv is damaged: it ends too early") as caught:
        copy_file(str(tmp_path / "disk" / "1.kv"), str(tmp_path / "ram" / "2.kv"), False, False)
    assert caught.value.code == Code.EIO and not list((tmp_path / "ram").iterdir())


@pytest.mark.parametrize("compress", [False, True])
def test_a_disk_without_room_is_an_error_and_leaves_nothing(tmp_path: Path, compress: bool) -> None:
    (tmp_path / "image").write_bytes(NOISE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            copy_file(str(tmp_path / "image"), str(tmp_path / "disk" / "1.kv"), compress, False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "disk").iterdir())
