"""Spawning, following, waiting, listing."""

from __future__ import annotations

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    PROC_FOLLOW,
    PROC_INFO,
    PROC_LIST,
    PROC_SPAWN,
    PROC_TRANSCRIPT,
    PROC_WAIT,
    Follow,
    List,
    Pid,
    Spawn,
    Wait,
)  # fmt: skip
from llmos_shell.abi.types import Kind, Reason, State
from llmos_shell.testing.clients import run, spawn, text_of
from llmos_shell.testing.retry import retry_until


def test_spawn_follow_and_wait(client):
    spawned = client.call(PROC_SPAWN, Spawn(prompt="hello <x>"))
    assert spawned.prompt_tokens == 10
    items = list(client.stream(PROC_FOLLOW, Follow(spawned.pid)))
    assert items[-1].exit.reason is Reason.EOS and len("".join(item.text for item in items)) == 20
    assert [item.turn for item in items if item.turn] == [Reason.EOS]
    assert client.call(PROC_WAIT, Wait(spawned.pid)).code == 0


def test_a_child_is_a_zombie_until_it_was_waited_for(client):
    pid = spawn(client)
    text_of(client, pid)
    assert client.call(PROC_INFO, Pid(pid)).state is State.ZOMBIE
    client.call(PROC_WAIT, Wait(pid))
    assert client.call(PROC_INFO, Pid(pid)).state is State.GONE
    assert pid not in {row.pid for row in client.call(PROC_LIST, List())}
    assert pid in {row.pid for row in client.call(PROC_LIST, List(all=True))}
    assert client.call(PROC_WAIT, Wait(pid)).reason is Reason.EOS


def test_32_at_once_say_what_they_say_alone(client):
    options = {"sampling": {"seed": 7}}
    alone = [run(client, f"number {n} <x>", **options) for n in range(32)]
    pids = [spawn(client, f"number {n} <x>", **options) for n in range(32)]
    assert [text_of(client, pid) for pid in pids] == alone


def test_followers_start_where_they_like(client):
    pid = spawn(client)
    text = text_of(client, pid)
    assert text_of(client, pid, offset=5) == text[5:]
    assert text_of(client, pid, offset=-4) == text[-4:]
    assert text_of(client, pid, offset=99) == ""


def test_the_same_seed_says_the_same(client):
    said = {run(client, sampling={"seed": seed, "temperature": 1.5}) for seed in (1, 1, 2)}
    assert len(said) == 2


def test_the_seed_is_drawn_and_recorded(client):
    pid = spawn(client, sampling={"temperature": 1.5})
    text = text_of(client, pid)
    seed = client.call(PROC_TRANSCRIPT, Pid(pid)).seed
    assert run(client, sampling={"seed": seed, "temperature": 1.5}) == text


def test_transcript(client):
    pid = spawn(client)
    text = text_of(client, pid)
    turns = client.call(PROC_TRANSCRIPT, Pid(pid)).turns
    assert [(turn.role, turn.text) for turn in turns] == [("prompt", "hello <x>"), ("completion", text)]


def test_pid_1_is_the_daemon_and_sessions_are_listed(client):
    rows = {row.pid: row for row in client.call(PROC_LIST, List())}
    assert rows[1].name == "llmosd" and rows[client.session].kind is Kind.SESSION
    assert all(row.kind is not Kind.SESSION for row in client.call(PROC_LIST, List(sessions=False)))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, Code.EINVAL),
        ({"prompt": "a", "model": "nobody"}, Code.ENOENT),
        ({"prompt": "a", "nice": 20}, Code.EINVAL),
        ({"prompt": "a", "sampling": {"temprature": 1}}, Code.EINVAL),
        ({"prompt": "a", "sampling": {"temperature": "hot"}}, Code.EINVAL),
        ({"prompt": "x" * 5000}, Code.E2BIG),
        ({"prompt": "a", "parent": 999}, Code.ESRCH),
    ],
)
def test_what_cannot_be_spawned_is_refused(client, arguments, code):
    with pytest.raises(LlmosError) as error:
        client.call(PROC_SPAWN, Spawn(**arguments))
    assert error.value.code == code


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(client):
    with pytest.raises(LlmosError, match=r"5001 tokens.*1024"):
        client.call(PROC_SPAWN, Spawn(prompt="x" * 5000))


def test_waiting_has_an_end(client):
    pid = client.call(PROC_SPAWN, Spawn(chat=True)).pid
    with pytest.raises(LlmosError) as error:
        client.call(PROC_WAIT, Wait(pid, timeout=0.01))
    assert error.value.code == Code.ETIMEDOUT
    assert client.call(PROC_WAIT, Wait(pid, until="idle")) is None


def test_no_such_process(client):
    for syscall, args in ((PROC_INFO, Pid(999)), (PROC_WAIT, Wait(999)), (PROC_TRANSCRIPT, Pid(999))):
        with pytest.raises(LlmosError) as error:
            client.call(syscall, args)
        assert error.value.code == Code.ESRCH


@pytest.mark.llmos(models={"slow": {"load_seconds": 600}}, env={"LLMOS_WORKER_STALL_SECONDS": "600"})
def test_giving_up_a_spawn_ends_the_process(client):
    call = client._begin(PROC_SPAWN, Spawn(prompt="hello"))
    row = retry_until(lambda: next((row for row in client.call(PROC_LIST, List(sessions=False))), None))
    assert row.state is State.NEW
    client._give_up(call)
    retry_until(lambda: client.call(PROC_INFO, Pid(row.pid)).state is State.GONE)
    assert client.call(PROC_INFO, Pid(row.pid)).exit.reason is Reason.INTERRUPT


def test_logprobs(client):
    pid = spawn(client, sampling={"logprobs": 2})
    items = list(client.stream(PROC_FOLLOW, Follow(pid, logprobs=True)))
    found = [one for item in items for one in item.logprobs]
    assert len(found) == 20 and all(len(one.top) == 2 and one.logprob <= 0 for one in found)
    assert "".join(one.text for one in found) == "".join(item.text for item in items)
    assert not any(item.logprobs for item in client.stream(PROC_FOLLOW, Follow(pid)))


def test_names_cannot_disturb_a_terminal(client):
    pid = spawn(client, "x <y>", name="evil\x1b[31m\nname")
    assert client.call(PROC_INFO, Pid(pid)).name == "evil [31m name"
