"""Checkpoint files: what is written comes back, only what is new is written, and damage never passes for contents."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.engine import checkpoints
from llmos_shell.engine.checkpoints import Facts, Member, Reader, write
from llmos_shell.engine.chunks import LEAST, MOST, pieces

CASES = max(300, int(os.environ.get("LLMOS_FUZZ", "0")) // 20)
LAYERS, ROW = 8, 256


def kv(tokens, seed=1):
    """KV as engines lay it out: for each layer one row per token."""
    rows = np.random.default_rng(seed).integers(0, 256, (LAYERS, 4096, ROW), dtype=np.uint8)
    return rows[:, :tokens].tobytes()


def member(tokens=100, pid=7, seed=1, **facts):
    known = {"ppid": 1, "name": "chat", "model": "m", "weights": "w", "fingerprint": "f"}
    described = Facts(pid=pid, tokens=tokens, kv_tokens=tokens, **{**known, **facts})
    return Member(described, b"record", bytes(4 * tokens), f"text of {tokens}".encode(), kv(tokens, seed))


def read(path):
    with Reader(str(path)) as reader:
        return [reader.member(entry) for entry in reader.index.entries], reader.note


def outcome(path):
    """The contents, or the code of the error."""
    try:
        return read(path)[0]
    except LlmosError as error:
        return error.code


@pytest.mark.parametrize("size", [0, 1, LEAST - 1, LEAST, LEAST + 1, 100_000, 5_000_003])
@pytest.mark.parametrize("kind", ["random", "zeros"])
def test_pieces_are_the_whole(size, kind):
    data = random.Random(size).randbytes(size) if kind == "random" else bytes(size)
    parts = list(pieces(data))
    assert b"".join(parts) == data
    assert all(LEAST <= len(part) <= MOST for part in parts[:-1]) and all(len(part) <= MOST for part in parts)


def test_pieces_do_not_depend_on_what_stands_before():
    data = random.Random(1).randbytes(1 << 20)
    before, after = set(map(bytes, pieces(data))), set(map(bytes, pieces(bytes(4096) + data)))
    assert len(before & after) > 0.9 * len(before)


def test_what_is_written_comes_back(tmp_path):
    path = str(tmp_path / "c")
    members = [member(100), member(50, pid=8, seed=2), member(0, pid=9)]
    done = write(path, members, "1")
    assert done.bytes == done.written == os.path.getsize(path)
    assert read(path) == (members, "")
    assert os.listdir(tmp_path) == ["c"]


def test_equal_contents_are_there_once(tmp_path):
    one = write(str(tmp_path / "one"), [member(400)], "1")
    eight = write(str(tmp_path / "eight"), [member(400, pid=pid) for pid in range(8)], "1")
    assert eight.bytes < 1.1 * one.bytes


def test_a_second_checkpoint_writes_what_is_new(tmp_path):
    path = str(tmp_path / "c")
    first = write(path, [member(2000)], "1")
    second = write(path, [member(2010)], "1")
    assert second.written < 0.15 * first.written
    assert read(path)[0] == [member(2010)]


def test_a_file_full_of_old_states_is_written_anew(tmp_path):
    path = str(tmp_path / "c")
    sizes = [write(path, [member(2000, seed=seed)], "1").bytes for seed in range(6)]
    assert sizes[-1] < 3 * sizes[0]
    assert read(path)[0] == [member(2000, seed=5)]
    assert os.listdir(tmp_path) == ["c"]


def test_a_write_that_fails_leaves_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "c"
    write(str(path), [member(100)], "1")
    size = path.stat().st_size

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(LlmosError) as failed:
        write(str(path), [member(200)], "1")
    assert failed.value.code == Code.ENOSPC and path.stat().st_size == size
    with pytest.raises(LlmosError):
        write(str(tmp_path / "new"), [member(200)], "1")
    assert os.listdir(tmp_path) == ["c"] and read(path)[0] == [member(100)]


@pytest.mark.fuzz
def test_a_truncated_file_is_refused_or_an_older_state(tmp_path):
    path = tmp_path / "c"
    old, new = member(20), member(30)
    write(str(path), [old], "1")
    write(str(path), [new], "1")
    data = path.read_bytes()
    for end in sorted(random.Random(1).sample(range(len(data)), min(CASES, len(data) - 1))):
        path.write_bytes(data[:end])
        found = outcome(path)
        assert found in (Code.EIO, Code.EINVAL) or (found == [old] and read(path)[1])


@pytest.mark.fuzz
def test_a_flipped_bit_is_refused_or_does_no_harm(tmp_path):
    path = tmp_path / "c"
    old, new = member(20), member(30)
    write(str(path), [old], "1")
    write(str(path), [new], "1")
    data, chance = path.read_bytes(), random.Random(2)
    for bit in [*range(8 * checkpoints.DATA_START), *(chance.randrange(8 * len(data)) for _ in range(CASES))]:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found = outcome(path)
        assert found in (Code.EIO, Code.EINVAL, [new]) or (found == [old] and read(path)[1])


def test_a_damaged_piece_is_not_used_again(tmp_path):
    path = tmp_path / "c"
    write(str(path), [member(500)], "1")
    data = bytearray(path.read_bytes())
    data[data.index(kv(500)[10_000:10_100]) + 50] ^= 1
    path.write_bytes(data)
    assert outcome(path) == Code.EIO
    write(str(path), [member(510)], "1")
    assert outcome(path) == [member(510)]


def test_other_files_are_left_alone(tmp_path):
    path = tmp_path / "letter"
    path.write_text("dear Ada, this is no checkpoint but something that somebody wrote")
    with pytest.raises(LlmosError) as refused:
        write(str(path), [member(1)], "1")
    assert refused.value.code == Code.EINVAL and path.read_text().startswith("dear Ada")
    assert outcome(path) == Code.EINVAL
    assert outcome(tmp_path / "nothing") == Code.ENOENT
    path.write_text("")
    assert outcome(path) == Code.EINVAL


def test_a_newer_format_is_named(tmp_path, monkeypatch):
    path = str(tmp_path / "c")
    monkeypatch.setattr(checkpoints, "VERSION", 9)
    write(path, [member(1)], "2")
    monkeypatch.undo()
    with pytest.raises(LlmosError) as refused:
        read(path)
    assert refused.value.code == Code.EINVAL and "format 9" in str(refused.value)
