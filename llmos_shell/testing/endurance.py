"""Short processes of every kind, batch after batch, and what a daemon and its worker occupy meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from llmos_shell import paths
from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import PROC_FORK, PROC_INPUT, SYS_STATUS, Fork, Input, Nothing
from llmos_shell.abi.types import Limits, Signal
from llmos_shell.ipc.client import Client, connect
from llmos_shell.testing.clients import info, kill, say, spawn, text_of, wait

TOKENS = 8
"""That each generates."""

FAR = 1e6
"""Seconds: a deadline that a short process never meets."""


class Footprint(Struct, frozen=True):
    """What is occupied: RSS without mapped files in RAM, open descriptors, images in RAM, bytes of journal and log.

    Files in RAM are counted apart: a worker keeps some to be used again, up to a limit (`engine.arenas`).
    """

    daemon_bytes: int
    worker_bytes: int
    daemon_descriptors: int
    worker_descriptors: int
    parked_files: int
    state_bytes: int


def footprint(client: Client) -> Footprint:
    """That of the daemon and its one worker."""
    status = client.call(SYS_STATUS, Nothing())
    daemon, (worker,) = status.daemon_pid, (one.pid for one in status.workers)
    parked = sum(path.is_file() and path.suffix == ".kv" for path in Path(paths.park_dir()).glob("*"))
    state = sum(path.stat().st_size for path in Path(paths.state_dir()).rglob("*") if path.is_file())
    return Footprint(_rss(daemon), _rss(worker), _descriptors(daemon), _descriptors(worker), parked, state)


def live_and_die(count: int, first: int = 0) -> None:
    """So many processes, numbered from `first`, each batch in a session of its own that ends with them."""
    for start in range(first, first + count, len(_KINDS)):
        with connect("endurance", start=False) as client:
            waiting = [list(kind(client, start + offset)) for offset, kind in enumerate(_KINDS)]
            for pids in waiting:
                for pid in pids:
                    wait(client, pid)


# -- kinds of lives: each begins a process or two, and names those to wait for ---------------------------------------


def _plain(client: Client, number: int) -> Iterator[int]:
    yield _begin(client, number)


def _followed(client: Client, number: int) -> Iterator[int]:
    pid = _begin(client, number)
    text_of(client, pid)
    yield pid


def _ignored(client: Client, number: int) -> Iterator[int]:
    """Nobody waits for it but the session's end."""
    pid = _begin(client, number)
    text_of(client, pid)
    yield from ()


def _chat(client: Client, number: int) -> Iterator[int]:
    pid = spawn(client, chat=True, sampling=_sampling(number))
    say(client, pid, f"hello {number}")
    client.call(PROC_INPUT, Input(pid, end=True))
    yield pid


def _forked(client: Client, number: int) -> Iterator[int]:
    pid = spawn(client, chat=True, sampling=_sampling(number))
    say(client, pid, f"hello {number}")
    (child,) = client.call(PROC_FORK, Fork(pid)).pids
    say(client, child, "and now something else")
    for each in (pid, child):
        kill(client, each, Signal.KILL)
        yield each


def _killed(client: Client, number: int) -> Iterator[int]:
    pid = _begin(client, number)
    with suppress(LlmosError):  # it may have ended
        kill(client, pid, Signal.STOP)
        kill(client, pid, Signal.TERM)
    yield pid


def _grouped(client: Client, number: int) -> Iterator[int]:
    yield _begin(client, number, group=f"group-{number}", deadline=FAR, limits=Limits(seconds=FAR))


def _detached(client: Client, number: int) -> Iterator[int]:
    yield _begin(client, number, detached=True, private=True)


def _refused(client: Client, number: int) -> Iterator[int]:
    pid = spawn(client, _prompt(number), sampling={**_sampling(number), "grammar": "root ::="})
    info(client, pid)
    yield pid


_KINDS: tuple[Callable[[Client, int], Iterator[int]], ...] = (
    _plain, _plain, _followed, _ignored, _chat, _forked, _killed, _grouped, _detached, _refused,
)  # fmt: skip


def _begin(client: Client, number: int, **options: object) -> int:
    return spawn(client, _prompt(number), sampling=_sampling(number), **options)


def _prompt(number: int) -> str:
    return f"{number} is the number of this one{'!' * (number % 61)} <x>"


def _sampling(number: int) -> dict[str, object]:
    return {"seed": number, "max_tokens": TOKENS, "ignore_eos": True}


# -- figures of the host -----------------------------------------------------------------------------------------------


def _rss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "RssShmem"))}
    return (kib["VmRSS"] - kib["RssShmem"]) << 10


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
