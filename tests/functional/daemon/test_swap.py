"""Images go to disk when RAM is full, and come back; a disk that fails costs computing, never a conversation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from llmos_shell import paths
from llmos_shell.abi.errors import Code
from llmos_shell.abi.memory import MEM_INFO, MEM_MAP, MEM_STAT, MEM_SWAP, MEM_SWAPOFF, MEM_SWAPON, SwapOn
from llmos_shell.abi.syscall import Nothing, Pid
from llmos_shell.abi.syscalls import MODEL_UNLOAD, SYS_DMESG, SYS_HIBERNATE, Dmesg, ModelName
from llmos_shell.abi.types import KvState
from llmos_shell.engine import packed
from llmos_shell.models.registry import Registry
from llmos_shell.testing.clients import code_of, info, kill, run, say, spawn, text_of
from llmos_shell.testing.hurry import hurry
from llmos_shell.testing.retry import retry_until

TIGHT = {"pages": 16, "page_tokens": 16, "slots": 8, "end_after": 40}
NO_RAM = {"LLMOS_PARK_BYTES": "0", "LLMOS_SWAP_BYTES": "10000000"}
pytestmark = pytest.mark.llmos(models={"tight": TIGHT}, env=NO_RAM)


def chats(client, count=6):
    pids = [spawn(client, chat=True, sampling={"seed": n}) for n in range(count)]
    for n, pid in enumerate(pids):
        say(client, pid, f"I am number {n}")
    return pids


def states(client, pids):
    return [info(client, pid).kv for pid in pids]


def swapped(client, pids):
    retry_until(lambda: KvState.SWAPPED in states(client, pids) and KvState.PARKED not in states(client, pids))
    return [pid for pid in pids if info(client, pid).kv is KvState.SWAPPED]


def answers(client, pids):
    return [say(client, pid, "and?") for pid in pids]


def test_sleepers_go_to_disk_and_come_back(client):
    pids = chats(client)
    out = swapped(client, pids)
    assert all(info(client, pid).swapped_bytes > 0 for pid in out)
    memory = client.call(MEM_INFO, Nothing())
    assert memory.swap_used == sum(info(client, pid).swapped_bytes for pid in pids) > 0
    assert memory.pools[0].swapped_bytes == memory.swap_used
    extents = client.call(MEM_MAP, Pid(out[0])).extents
    assert [extent.kind for extent in extents] == ["swapped"] and extents[0].path.startswith(paths.swap_dir())
    assert all(len(text) == 40 for text in answers(client, pids))
    assert [info(client, pid).recomputed_tokens for pid in pids] == [0] * 6
    stat = client.call(MEM_STAT, Nothing())
    assert stat.swapped_in > 0 and stat.swapped_out > 0 and stat.restored > 0 and stat.recomputed_tokens == 0


@pytest.mark.llmos(models={"tight": {**TIGHT, "end_after": 90, "step_seconds": 0.001}}, env=NO_RAM)
def test_a_full_pool_fails_nobody(client):
    def options(n):
        return {"sampling": {"seed": n, "temperature": 1.2}}

    with hurry():
        alone = [run(client, f"number {n} <x>", **options(n)) for n in range(10)]
    pids = [spawn(client, f"number {n} <x>", **options(n)) for n in range(10)]
    assert [text_of(client, pid) for pid in pids] == alone
    assert not os.listdir(paths.park_dir())
    retry_until(lambda: not os.path.exists(paths.swap_dir()) or not os.listdir(paths.swap_dir()))


def test_a_swap_folder_that_is_removed_costs_computing(client):
    pids = chats(client)
    out = swapped(client, pids)
    shutil.rmtree(paths.swap_dir())
    assert all(len(text) == 40 for text in answers(client, pids))
    assert all(info(client, pid).recomputed_tokens > 0 for pid in out)
    swapped(client, pids)


def test_a_damaged_image_is_not_used(client):
    pids = chats(client)
    out = swapped(client, pids)
    for name in os.listdir(paths.swap_dir()):
        with open(os.path.join(paths.swap_dir(), name), "r+b") as file:
            file.truncate(100)
    assert all(len(text) == 40 for text in answers(client, pids))
    assert all(info(client, pid).recomputed_tokens > 0 for pid in out)


def test_a_full_disk_is_said_and_costs_nothing_more(client):
    with open(paths.swap_dir(), "w"):  # where the folder should be: every write fails
        pass
    pids = chats(client)
    retry_until(lambda: client.call(MEM_INFO, Nothing()).swap_problem != "")
    assert all(len(text) == 40 for text in answers(client, pids))
    os.unlink(paths.swap_dir())
    assert client.call(MEM_SWAPON, SwapOn(limit=1 << 20)).problem == ""
    chats(client)
    retry_until(lambda: client.call(MEM_SWAP, Nothing()).images > 0)


def test_swapoff_gives_up_what_is_there(client):
    pids = chats(client)
    out = swapped(client, pids)
    off = client.call(MEM_SWAPOFF, Nothing())
    assert (off.limit, off.images, off.dropped) == (0, 0, len(out)) and off.dropped_tokens > 0
    assert not os.listdir(paths.swap_dir())
    assert {info(client, pid).kv for pid in out} == {KvState.DROPPED}
    assert all(len(text) == 40 for text in answers(client, pids))


def test_swapping_elsewhere(client, tmp_path):
    pids = chats(client)
    swapped(client, pids)
    there = client.call(MEM_SWAPON, SwapOn(str(tmp_path), 5 << 20))
    assert there.folder == str(tmp_path / "llmos-swap") and there.limit == 5 << 20
    assert all(len(text) == 40 for text in answers(client, pids))
    swapped(client, pids)
    assert os.listdir(there.folder)
    assert code_of(client, MEM_SWAPON, SwapOn("/proc/1")) == Code.EACCES
    assert code_of(client, MEM_SWAPON, SwapOn("relative")) == Code.EINVAL
    assert code_of(client, MEM_SWAPON, SwapOn(limit=5)) == Code.EINVAL


def test_swapped_conversations_survive_the_daemon(daemon):
    with daemon.connect() as client:
        pids = [spawn(client, chat=True, detached=True, sampling={"seed": n}) for n in range(6)]
        for n, pid in enumerate(pids):
            say(client, pid, f"I am number {n}")
        out = swapped(client, pids)
        spawn(client, chat=True)  # an answer of the daemon is in the journal, with all before it
    daemon.kill()
    daemon.start()
    with daemon.connect() as client:
        assert {info(client, pid).kv for pid in out} == {KvState.SWAPPED}
        assert client.call(MEM_INFO, Nothing()).swap_used > 0
        assert all(len(text) == 40 for text in answers(client, pids))
        assert [info(client, pid).recomputed_tokens for pid in out] == [0] * len(out)


# -- compressed ---

COMPRESSED = {**NO_RAM, "LLMOS_SWAP_COMPRESS": "1"}
compressed = pytest.mark.llmos(models={"tight": TIGHT}, env=COMPRESSED)


def files(folder=None):
    return sorted(Path(folder or paths.swap_dir()).iterdir())


def are_packed(found):
    """Of each file whether it is packed."""
    return [path.read_bytes().startswith(packed.MAGIC) for path in found]


def on_disk(client):
    """The swap space, when nothing moves."""
    retry_until(lambda: (now := client.call(MEM_SWAP, Nothing())).used == now.packed)
    return client.call(MEM_SWAP, Nothing())


def warnings(client):
    return [event.text for event in client.stream(SYS_DMESG, Dmesg()) if event.level == "warning"]


@compressed
def test_compressed_images_come_back_and_count_as_they_are(client):
    pids = chats(client)
    out = swapped(client, pids)
    there = on_disk(client)
    assert there.compress and there.images == len(out) and all(are_packed(files()))
    assert there.used == there.packed == sum(path.stat().st_size for path in files())
    assert there.packed == sum(info(client, pid).swapped_bytes for pid in out) < 0.8 * there.unpacked
    memory, stat = client.call(MEM_INFO, Nothing()), client.call(MEM_STAT, Nothing())
    for figures in (memory, stat):
        assert (figures.swap_used, figures.swap_packed, figures.swap_unpacked) == (
            there.used,
            there.packed,
            there.unpacked,
        )
    assert memory.pools[0].swapped_bytes == there.packed and stat.swapped_out_bytes >= there.packed
    assert all(len(text) == 40 for text in answers(client, pids))
    assert [info(client, pid).recomputed_tokens for pid in pids] == [0] * 6
    assert client.call(MEM_STAT, Nothing()).swapped_in > 0 and warnings(client) == []


@pytest.mark.llmos(models={"tight": TIGHT}, env={"LLMOS_PARK_BYTES": "0", "LLMOS_SWAP_BYTES": "8200"})
def test_a_limit_holds_more_conversations_compressed(client):
    def on_disk_of(count):
        pids = []
        while len(pids) < count:
            pids += chats(client, 1)
            on_disk(client)
        return pids, states(client, pids).count(KvState.SWAPPED)

    pids, plain = on_disk_of(16)
    for pid in pids:
        kill(client, pid)
    retry_until(lambda: client.call(MEM_SWAP, Nothing()).used == 0)
    assert client.call(MEM_SWAPON, SwapOn(compress=True)).limit == 8200
    assert on_disk_of(16)[1] > plain > 0
    assert client.call(MEM_SWAP, Nothing()).used <= 8200


@pytest.mark.llmos(
    models={"tight": {**TIGHT, "pages": 96, "slots": 16}}, env={**COMPRESSED, "LLMOS_SWAP_BYTES": "7000"}
)
def test_room_that_compression_made_is_used(client):
    """Those that come to the disk together find room for five until it is known how small they are there."""
    pids = chats(client, 12)
    assert KvState.SWAPPED not in states(client, pids)
    client.call(MODEL_UNLOAD, ModelName("tight"))
    retry_until(lambda: states(client, pids).count(KvState.SWAPPED) > 5)
    assert on_disk(client).used <= 7000


def test_compression_is_switched_with_images_of_both_forms_there(client):
    pids = chats(client)
    swapped(client, pids)
    plain = on_disk(client)
    assert not plain.compress and plain.packed == plain.unpacked and not any(are_packed(files()))
    there = client.call(MEM_SWAPON, SwapOn(compress=True))
    assert (there.compress, there.folder, there.limit) == (True, plain.folder, plain.limit)
    more = chats(client)
    swapped(client, [*pids, *more])
    assert on_disk(client).packed < on_disk(client).unpacked
    assert set(are_packed(files())) == {False, True}, "those that are there stay as they are"
    assert client.call(MEM_SWAPON, SwapOn()).compress
    assert not client.call(MEM_SWAPON, SwapOn(compress=False)).compress
    assert all(len(text) == 40 for text in answers(client, [*pids, *more]))
    assert [info(client, pid).recomputed_tokens for pid in [*pids, *more]] == [0] * 12
    swapped(client, [*pids, *more])
    on_disk(client)
    assert False in are_packed(files())


@compressed
def test_a_damaged_packed_image_costs_computing_and_is_said_once(client):
    pids = chats(client)
    out = swapped(client, pids)
    on_disk(client)
    for number, path in enumerate(files()):
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + (bytes([data[middle] ^ 1]) + data[middle + 1 :] if number % 2 else b""))
    assert all(len(text) == 40 for text in answers(client, pids))
    assert all(info(client, pid).recomputed_tokens > 0 for pid in out)
    said = [text for text in warnings(client) if "cannot be read back" in text and "is damaged: " in text]
    assert len(said) == len(warnings(client)) == len(out)


@compressed
def test_compressed_conversations_survive_the_daemon_whatever_it_is_told_then(daemon):
    with daemon.connect() as client:
        pids = [spawn(client, chat=True, detached=True, sampling={"seed": n}) for n in range(6)]
        for n, pid in enumerate(pids):
            say(client, pid, f"I am number {n}")
        out = swapped(client, pids)
        before = on_disk(client)
        spawn(client, chat=True)  # an answer of the daemon is in the journal, with all before it
    daemon.kill()
    daemon.env["LLMOS_SWAP_COMPRESS"] = "0"
    daemon.start()
    with daemon.connect() as client:
        there = on_disk(client)
        assert (there.packed, there.unpacked, there.compress) == (before.packed, before.unpacked, False)
        assert sum(info(client, pid).swapped_bytes for pid in out) == there.packed
        assert all(len(text) == 40 for text in answers(client, pids))
        assert [info(client, pid).recomputed_tokens for pid in out] == [0] * len(out)


@pytest.mark.llmos(models={"tight": TIGHT}, env={"LLMOS_SWAP_COMPRESS": "1"})
def test_hibernating_compressed(daemon):
    with daemon.connect() as client:
        pids = [spawn(client, chat=True, detached=True, sampling={"seed": n}) for n in range(3)]
        for n, pid in enumerate(pids):
            say(client, pid, f"I am number {n}")
        done = client.call(SYS_HIBERNATE, Nothing())
    assert (done.images, done.recomputed_tokens, done.problems) == (3, 0, ())
    assert all(are_packed(files())) and done.bytes == sum(path.stat().st_size for path in files())
    daemon.process.wait(20)
    daemon.process = None
    daemon.start()
    with daemon.connect() as client:
        assert all(len(text) == 40 for text in answers(client, pids))
        assert [info(client, pid).recomputed_tokens for pid in pids] == [0] * 3


@pytest.mark.parametrize("kv_type", ["f32", "f16"])
@pytest.mark.llmos(env=COMPRESSED)
def test_real_weights_go_on_token_for_token(llmos_home, request, kv_type):
    weights = Registry().resolve("tiny").path
    (llmos_home / "config" / "models.toml").write_text(
        f'default = "few"\n[models.few]\npath = "{weights}"\nslots = 2\nkv_type = "{kv_type}"\n'
        "options = { deterministic = true }\n"
    )
    daemon = request.getfixturevalue("daemon")

    def chat(client, n):
        return spawn(client, chat=True, sampling={"seed": n, "temperature": 1.2, "max_tokens": 60, "ignore_eos": True})

    with daemon.connect() as client:
        expected = []
        for n in range(5):
            pid = chat(client, n)
            expected.append([say(client, pid, text) for text in (f"I am {n}", "and?", "why?")])
            kill(client, pid)
        pids = [chat(client, n) for n in range(5)]
        said = []
        for text in ("I am {}", "and?", "why?"):
            said.append([say(client, pid, text.format(n)) for n, pid in enumerate(pids)])
            retry_until(lambda: on_disk(client).images == 3)
            there = on_disk(client)
            assert there.packed < 0.9 * there.unpacked
        assert [list(each) for each in zip(*said, strict=True)] == expected
        assert [info(client, pid).recomputed_tokens for pid in pids] == [0] * 5
        assert client.call(MEM_STAT, Nothing()).swapped_in >= 6
