"""A pool that is too small: parking, restoring, refusing; nobody fails."""

from __future__ import annotations

import os

import pytest

from llmos_shell import paths
from llmos_shell.abi.errors import Code
from llmos_shell.abi.syscalls import MEM_INFO, PROC_SPAWN, Nothing, Spawn
from llmos_shell.abi.types import KvState, Reason, Signal
from llmos_shell.testing.clients import code_of, info, kill, run, say, spawn, text_of, wait, wait_for_tokens
from llmos_shell.testing.daemon import write_models
from llmos_shell.testing.hurry import hurry
from llmos_shell.testing.retry import retry_until
from llmos_shell.testing.scripted import computed

TIGHT = {"pages": 16, "page_tokens": 16, "slots": 8, "end_after": 90}


def outputs(client, count, **options):
    pids = [spawn(client, f"number {n} <x>", sampling={"seed": n, "temperature": 1.2}, **options) for n in range(count)]
    return pids, [text_of(client, pid) for pid in pids]


@pytest.mark.llmos(models={"tight": TIGHT})
def test_a_full_pool_fails_nobody(client):
    alone = [run(client, f"number {n} <x>", sampling={"seed": n, "temperature": 1.2}) for n in range(8)]
    pids, together = outputs(client, 8)
    assert together == alone
    assert all(wait(client, pid).reason is Reason.EOS for pid in pids)
    assert all(info(client, pid).recomputed_tokens == 0 for pid in pids)


@pytest.mark.llmos(
    models={"tight": {**TIGHT, "step_seconds": 0.002}}, env={"LLMOS_PARK_BYTES": "0", "LLMOS_SWAP_BYTES": "0"}
)
def test_without_room_to_park_kv_is_computed_again(client):
    with hurry():
        alone = [run(client, f"number {n} <x>", sampling={"seed": n, "temperature": 1.2}) for n in range(8)]
    pids, together = outputs(client, 8)
    assert together == alone
    assert sum(info(client, pid).recomputed_tokens for pid in pids) > 0


@pytest.mark.llmos(models={"split": {**TIGHT, "pages": 24, "slots": 3, "layout": "split"}})
def test_split_slots(client):
    alone = [run(client, f"number {n} <x>", sampling={"seed": n, "temperature": 1.2}) for n in range(6)]
    assert outputs(client, 6)[1] == alone


@pytest.fixture
def counter(tmp_path, llmos_home):
    path = str(tmp_path / "counter")
    write_models(llmos_home, tight={**TIGHT, "end_after": 40, "counter": path})
    return path


def test_sleeping_chats_are_parked_and_come_back(counter, client):
    chats = [spawn(client, chat=True, sampling={"seed": n}) for n in range(6)]
    first = [say(client, pid, f"I am number {n}") for n, pid in enumerate(chats)]
    assert len(set(first)) == 6 and {info(client, pid).kv for pid in chats} == {KvState.PARKED, KvState.RESIDENT}
    assert client.call(MEM_INFO, Nothing()).park_used > 0
    for pid in chats:
        assert len(say(client, pid, "and?")) == 40
    assert [info(client, pid).recomputed_tokens for pid in chats] == [0] * 6
    total = sum(info(client, pid).context_tokens - info(client, pid).reused_tokens for pid in chats)
    assert sum(step.tokens for step in computed(counter)) == total


def test_images_go_with_their_process(counter, client):
    chats = [spawn(client, chat=True, sampling={"seed": n}) for n in range(6)]
    for n, pid in enumerate(chats):
        say(client, pid, f"I am number {n}")
    assert os.listdir(paths.park_dir())
    for pid in chats:
        client.call(PROC_SPAWN, Spawn(chat=True))
        from llmos_shell.testing.clients import kill

        kill(client, pid)
    assert not os.listdir(paths.park_dir())


def test_a_damaged_image_is_not_used(counter, client):
    chats = [spawn(client, chat=True, sampling={"seed": n}) for n in range(6)]
    first = [say(client, pid, f"I am number {n}") for n, pid in enumerate(chats)]
    assert all(first)
    for name in os.listdir(paths.park_dir()):
        path = os.path.join(paths.park_dir(), name)
        with open(path, "r+b") as file:
            file.seek(200)
            file.write(b"\xff\x00\xff")
    parked = next(pid for pid in chats if info(client, pid).kv is KvState.PARKED)
    assert len(say(client, parked, "and?")) == 40
    assert info(client, parked).recomputed_tokens > 0


@pytest.mark.llmos(models={"tight": {**TIGHT, "context": 10_000}})
def test_what_can_never_fit_is_refused_with_numbers(client):
    assert code_of(client, PROC_SPAWN, Spawn(prompt="x" * 300)) == Code.E2BIG


@pytest.mark.llmos(models={"tight": {**TIGHT, "end_after": 100000}})
def test_a_process_that_outgrows_the_pool_ends_with_a_full_context(client):
    pids = [spawn(client, f"number {n} <x>") for n in range(3)]
    texts = [text_of(client, pid) for pid in pids]
    assert all(len(text) > 230 for text in texts)
    assert [wait(client, pid).reason for pid in pids] == [Reason.CONTEXT] * 3


@pytest.mark.llmos(models={"tight": TIGHT})
def test_prefixes_are_reused_and_then_given_up(client):
    prompt = "a prompt that fills more than one page of the pool <x>"
    run(client, prompt)
    pid = spawn(client, prompt)
    text_of(client, pid)
    assert info(client, pid).reused_tokens == 48
    assert client.call(MEM_INFO, Nothing()).pools[0].cached_pages > 0
    for number in range(6):
        run(client, f"{number} is a prompt of another kind, which needs some pages too <x>")
    assert client.call(MEM_INFO, Nothing()).pools[0].used_pages <= 16


@pytest.mark.llmos(models={"roomy": {"pages": 64, "page_tokens": 16, "step_seconds": 0.002}})
def test_a_stopped_process_keeps_no_more_pages_than_it_needs(client):
    pid = spawn(client, "go on <x>")
    wait_for_tokens(client, pid, 20)
    kill(client, pid, Signal.STOP)

    def is_exact():
        return client.call(MEM_INFO, Nothing()).pools[0].used_pages <= -(-info(client, pid).context_tokens // 16)

    retry_until(is_exact)
    kill(client, pid, Signal.KILL)
