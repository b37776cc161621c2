"""Disks that are full, and swap folders that vanish, while processes run: KV is computed again, nobody loses a token.

The disks are small file systems in RAM, mounted where only the daemon of the test sees them.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from llmos_shell import paths
from llmos_shell.abi.memory import MEM_INFO, MEM_SWAPON, SwapOn
from llmos_shell.abi.syscall import Nothing
from llmos_shell.abi.syscalls import SYS_DMESG, SYS_STATUS, Dmesg
from llmos_shell.models.registry import Registry
from llmos_shell.testing.clients import info, kill, run, say, spawn, text_of, wait_for_tokens
from llmos_shell.testing.daemon import DaemonProcess
from llmos_shell.testing.hurry import hurry
from llmos_shell.testing.retry import retry_until

TIGHT = {"pages": 24, "page_tokens": 16, "slots": 8, "step_seconds": 0.001}
MOUNT = 'mount -t tmpfs -o size="$2" small "$1" && shift 2 && exec "$@"'
PRIVATE = ("unshare", "--mount", *(() if os.getuid() == 0 else ("--map-root-user",)))
COUNT = 10
STEADY = """
slots = 4
kv_type = "f32"
options = { deterministic = true }
"""
FULL, NOT_PARKED = "No space left on device", "was not parked"
on_shm = pytest.mark.skipif(not paths.park_dir().startswith("/dev/shm"), reason="images in RAM are not on /dev/shm")
pytestmark = pytest.mark.llmos(models={"tight": TIGHT})


def on_a_small_disk(folder, size, *command):
    """The command, for which a file system of this size is mounted on the folder."""
    return (*PRIVATE, "sh", "-c", MOUNT, "sh", str(folder), size, *command)


@pytest.fixture
def small_disk(llmos_home, tmp_path):
    """Starts a daemon that sees a full or nearly full disk on a folder."""
    try:
        probe = subprocess.run(on_a_small_disk(tmp_path, "8k", "true"), check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"no file system can be mounted: {error}")
    if probe.returncode:
        pytest.skip(f"no file system can be mounted: {probe.stderr.strip()}")
    started = []

    def start(folder, size, **env):
        daemon = DaemonProcess(llmos_home, env)
        daemon.wrapper = on_a_small_disk(folder, size)
        daemon.start()
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.stop()
        assert "Traceback" not in daemon.log()


def chat(client, n):
    return spawn(
        client, chat=True, sampling={"seed": n, "temperature": 1.2, "max_tokens": 70 + 4 * n, "ignore_eos": True}
    )


def options(n):
    return {"sampling": {"seed": n, "temperature": 1.2, "max_tokens": 200, "ignore_eos": True}}


def alone(client):
    """What each says when it has the pool for itself."""
    with hurry():
        return [run(client, f"number {n} <x>", **options(n)) for n in range(COUNT)]


def together(client):
    return [spawn(client, f"number {n} <x>", **options(n)) for n in range(COUNT)]


def worker(client):
    (one,) = client.call(SYS_STATUS, Nothing()).workers
    return one.pid


def warnings(client):
    return [event.text for event in client.stream(SYS_DMESG, Dmesg()) if event.level == "warning"]


@pytest.mark.parametrize("compress", ["0", "1"])
def test_a_disk_that_fills_while_swapping(small_disk, tmp_path, compress):
    (tmp_path / "disk").mkdir()
    swap = {"LLMOS_PARK_BYTES": "0", "LLMOS_SWAP_BYTES": "10000000", "LLMOS_SWAP_DIR": str(tmp_path / "disk")}
    daemon = small_disk(tmp_path / "disk", "8k", **swap, LLMOS_SWAP_COMPRESS=compress)
    with daemon.connect() as client:
        expected, before = alone(client), worker(client)
        pids = together(client)
        retry_until(lambda: client.call(MEM_INFO, Nothing()).swap_problem != "")
        assert [text_of(client, pid) for pid in pids] == expected and worker(client) == before
        assert FULL in client.call(MEM_INFO, Nothing()).swap_problem
        assert any("cannot write" in text and "`swapon` tries again" in text for text in warnings(client))
        (tmp_path / "other").mkdir()
        assert client.call(MEM_SWAPON, SwapOn(str(tmp_path / "other"), 1 << 20)).problem == ""
        pids = together(client)
        retry_until(lambda: client.call(MEM_INFO, Nothing()).swap_used > 0)
        assert [text_of(client, pid) for pid in pids] == expected


@on_shm
def test_ram_for_images_that_is_full(small_disk):
    daemon = small_disk("/dev/shm", "16k")
    with daemon.connect() as client:
        expected, before = alone(client), worker(client)
        pids = together(client)
        assert [text_of(client, pid) for pid in pids] == expected and worker(client) == before
        assert sum(info(client, pid).recomputed_tokens for pid in pids) > 0
        assert any(NOT_PARKED in text and FULL in text for text in warnings(client))


@on_shm
def test_ram_for_large_images_that_is_full(llmos_home, small_disk):
    """Those are written through mappings, where a page that cannot be had would kill the worker."""
    weights = Registry().resolve("tiny").path
    (llmos_home / "config" / "models.toml").write_text(
        f'default = "steady"\n[models.steady]\npath = "{weights}"{STEADY}'
    )
    daemon = small_disk("/dev/shm", "2m")
    with daemon.connect() as client:
        expected = []
        for n in range(COUNT):
            pid = chat(client, n)
            expected.append([say(client, pid, text) for text in ("hello", "and?")])
            kill(client, pid)
        before = worker(client)
        pids = [chat(client, n) for n in range(COUNT)]
        said = [[say(client, pid, text) for pid in pids] for text in ("hello", "and?")]
        assert list(zip(*said, strict=True)) == [tuple(one) for one in expected] and worker(client) == before
        assert sum(info(client, pid).recomputed_tokens for pid in pids) > 0
        assert any(NOT_PARKED in text and FULL in text for text in warnings(client))


@pytest.mark.llmos(models={"tight": TIGHT}, env={"LLMOS_PARK_BYTES": "0", "LLMOS_SWAP_BYTES": "10000000"})
def test_a_swap_folder_that_is_removed_again_and_again_while_processes_run(daemon):
    with daemon.connect() as client:
        expected, before = alone(client), worker(client)
        pids = together(client)
        removed = 0
        for count in range(5, 90, 5):
            wait_for_tokens(client, pids[-1], count)
            removed += os.path.isdir(paths.swap_dir())
            shutil.rmtree(paths.swap_dir(), ignore_errors=True)
        assert [text_of(client, pid) for pid in pids] == expected and worker(client) == before
        assert removed
