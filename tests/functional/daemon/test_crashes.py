"""Workers and daemons that die."""

from __future__ import annotations

import os
import signal

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    PROC_FOLLOW,
    PROC_FORK,
    PROC_LIST,
    PROC_SPAWN,
    PROC_TRANSCRIPT,
    PROC_WAIT,
    SYS_STATUS,
    SYS_STOP,
    Follow,
    Fork,
    List,
    Nothing,
    Pid,
    Spawn,
    Stop,
    Wait,
)  # fmt: skip
from llmos_shell.abi.types import KvState, Message, Reason, Signal, State
from llmos_shell.ipc.client import ConnectionLost
from llmos_shell.testing.clients import (
    info,
    kill,
    run,
    say,
    spawn,
    text_of,
    wait,
    wait_for_state,
    wait_for_tokens,
)  # fmt: skip
from llmos_shell.testing.daemon import write_models
from llmos_shell.testing.hurry import begin_to_hurry, hurry
from llmos_shell.testing.retry import retry_until

SLOW = {"slow": {"step_seconds": 0.006, "end_after": 100, "slots": 16, "pages": 256}}


def options(n):
    return {"sampling": {"seed": n, "temperature": 1.3}}


def worker_pid(client):
    return client.call(SYS_STATUS, Nothing()).workers[0].pid


@pytest.mark.llmos(models=SLOW)
def test_a_killed_worker_costs_nobody_a_token(client):
    with hurry():
        alone = [run(client, f"number {n} <x>", **options(n)) for n in range(6)]
    pids = [spawn(client, f"number {n} <x>", **options(n)) for n in range(6)]
    for count in (20, 60):
        for pid in pids:
            wait_for_tokens(client, pid, count)
        os.kill(worker_pid(client), signal.SIGKILL)
        retry_until(lambda: client.call(SYS_STATUS, Nothing()).workers)
    begin_to_hurry()
    assert [text_of(client, pid) for pid in pids] == alone
    status = client.call(SYS_STATUS, Nothing())
    assert status.workers[0].restarts == 2
    assert all(info(client, pid).recomputed_tokens > 0 for pid in pids)


def test_a_killed_worker_costs_a_sleeping_chat_nothing(client):
    pid = spawn(client, chat=True, sampling={"seed": 1})
    twin = spawn(client, chat=True, sampling={"seed": 1})
    assert say(client, pid, "one") == say(client, twin, "one")
    os.kill(worker_pid(client), signal.SIGKILL)
    retry_until(lambda: info(client, pid).kv is KvState.DROPPED)
    assert say(client, pid, "two") == say(client, twin, "two")


def test_a_crash_once(tmp_path, llmos_home, request):
    write_models(llmos_home, once={"end_after": 60, "crash_at_token": 40, "marker": str(tmp_path / "crashed")})
    client = request.getfixturevalue("client")
    pids = [spawn(client, f"number {n} <x>", **options(n)) for n in range(4)]
    texts = [text_of(client, pid) for pid in pids]
    assert os.path.exists(tmp_path / "crashed")
    assert texts == [run(client, f"number {n} <x>", **options(n)) for n in range(4)]


@pytest.mark.llmos(models={"poison": {"end_after": 60, "crash_at_token": 100}})
def test_a_process_that_always_crashes_the_worker_takes_nobody_along(client):
    pids = [spawn(client, f"number {n} <x>", **options(n)) for n in range(5)]
    poison = spawn(client, "x" * 92 + "<x>", **options(9))
    assert all(len(text_of(client, pid)) == 60 for pid in pids)
    ended = wait(client, poison)
    assert ended.reason is Reason.ERROR and ended.code == 1 and "crashed" in ended.message
    assert [wait(client, pid).reason for pid in pids] == [Reason.EOS] * 5
    assert len(run(client, "after <x>")) == 60


def test_a_hung_worker_is_replaced(tmp_path, llmos_home, request):
    write_models(llmos_home, hung={"end_after": 60, "hang_at_token": 40, "marker": str(tmp_path / "hung")})
    os.environ["LLMOS_WORKER_STALL_SECONDS"] = "0.3"
    try:
        client = request.getfixturevalue("client")
    finally:
        del os.environ["LLMOS_WORKER_STALL_SECONDS"]
    assert len(run(client)) == 60


def test_what_the_worker_refuses_ends_only_that_process(client):
    pid = spawn(client, chat=True)
    bad = spawn(client, "x <y>", sampling={"grammar": "root ::= x"})
    ended = wait(client, bad)
    assert ended.reason is Reason.ERROR and "grammar" in ended.message
    assert len(say(client, pid, "hello")) == 20


# -- the daemon --------------------------------------------------------------------------------------------------------


@pytest.mark.llmos(models=SLOW)
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_killed_daemon_loses_nobody(daemon, how):
    with daemon.connect() as client:
        with hurry():
            alone = [run(client, f"number {n} <x>", **options(n)) for n in range(4)]
            chat = spawn(client, chat=True, sampling={"seed": 1}, name="my chat")
            first = say(client, chat, "one")
        pids = [spawn(client, f"number {n} <x>", detached=n % 2 == 0, **options(n)) for n in range(4)]
        stopped = spawn(client, "stopped <x>", **options(5))
        for pid in (*pids, stopped):
            wait_for_tokens(client, pid, 10)
        kill(client, stopped, Signal.STOP)
        part = text_of_now(client, pids[0])
        wait_for_state(client, stopped, State.STOPPED)
        last = max(row.pid for row in client.call(PROC_LIST, List(all=True)))
        retry_until(lambda: client.call(SYS_STATUS, Nothing()).journal_bytes)
        getattr(daemon, how)()
    begin_to_hurry()
    daemon.start()
    with daemon.connect() as client:
        assert all(info(client, pid).session == 0 for pid in (*pids, chat))
        assert [text_of(client, pid) for pid in pids] == alone
        assert alone[0].startswith(part)
        assert info(client, stopped).state is State.STOPPED
        kill(client, stopped, Signal.CONT)
        assert len(text_of(client, stopped)) == 100
        row = info(client, chat)
        assert (row.state, row.kv, row.name) == (State.SLEEPING, KvState.DROPPED, "my chat")
        assert text_of(client, chat, until="idle") == first
        again = say(client, chat, "two")
        assert again and spawn(client, chat=True) > last


def text_of_now(client, pid):
    return client.call(PROC_TRANSCRIPT, Pid(pid)).turns[-1].text


@pytest.mark.llmos(models=SLOW)
def test_a_client_takes_its_processes_back(daemon):
    with daemon.connect() as client:
        pid = spawn(client)
        wait_for_tokens(client, pid)
        daemon.kill()
        with pytest.raises(ConnectionLost):
            info(client, pid)
    daemon.start()
    with daemon.connect(reclaim=(pid, 999)) as client:
        assert info(client, pid).session == client.session
        assert client.call(PROC_WAIT, Wait(pid)).reason is Reason.EOS


def test_ended_processes_are_remembered(daemon):
    with daemon.connect() as client:
        pid = spawn(client)
        text = text_of(client, pid)
        wait(client, pid)
    daemon.kill()
    daemon.start()
    with daemon.connect() as client:
        row = next(row for row in client.call(PROC_LIST, List(all=True)) if row.pid == pid)
        assert row.exit.reason is Reason.EOS
        assert text_of(client, pid) == text and wait(client, pid).code == 0
        child = client.call(PROC_FORK, Fork(pid)).pids[0]
        assert len(say(client, child, "more <x>")) == 20


@pytest.mark.llmos(models={"tight": {"pages": 8, "slots": 8, "end_after": 40}})
def test_parked_images_survive_the_daemon(daemon):
    with daemon.connect() as client:
        chats = [spawn(client, chat=True, sampling={"seed": n}) for n in range(4)]
        for pid in chats:
            say(client, pid, "hello")
        parked = [pid for pid in chats if info(client, pid).kv is KvState.PARKED]
        assert parked
    daemon.stop()
    daemon.start()
    with daemon.connect() as client:
        assert len(say(client, parked[0], "again")) == 40
        assert info(client, parked[0]).recomputed_tokens == 0


@pytest.mark.llmos(models=SLOW)
def test_a_turn_goes_on_after_the_daemon_was_killed(daemon):
    ask = {"messages": (Message("user", "talk"),), "chat": True, "sampling": {"seed": 4, "temperature": 1.3}}
    with daemon.connect() as client:
        with hurry():
            twin = client.call(PROC_SPAWN, Spawn(**ask)).pid
            text = text_of(client, twin, until="idle")
        pid = client.call(PROC_SPAWN, Spawn(**ask)).pid
        part = next(item.text for item in client.stream(PROC_FOLLOW, Follow(pid)) if item.text)
        wait_for_tokens(client, pid, 20)
        daemon.kill()
    begin_to_hurry()
    daemon.start()
    with daemon.connect() as client:
        assert text_of(client, pid, until="idle") == text and text.startswith(part)
        assert [turn.tokens for turn in client.call(PROC_TRANSCRIPT, Pid(pid)).turns][-1] == 100
        assert info(client, pid).generated_tokens == 100
        assert say(client, pid, "more") == say(client, twin, "more")


def test_stopping_is_answered(client, daemon):
    client.call(SYS_STOP, Stop())
    assert daemon.process.wait(20) == 0


def test_a_full_disk_stops_nothing(llmos_home, tmp_path, request):
    """The journal's file may not grow any more: a limit on the size of files does what a full disk does."""
    import resource

    client = request.getfixturevalue("client")
    daemon = request.getfixturevalue("daemon")
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    assert len(run(client)) == 20
    status = retry_until(lambda: (s := client.call(SYS_STATUS, Nothing())).journal_error and s)
    assert status.journal_error
    pid = spawn(client, chat=True)
    assert say(client, pid, "hello")
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    retry_until(lambda: not client.call(SYS_STATUS, Nothing()).journal_error)
    daemon.kill()
    daemon.start()
    with daemon.connect() as other:
        assert text_of(other, pid, until="idle")


def test_the_error_for_a_lost_daemon(client, daemon):
    daemon.kill()
    with pytest.raises(LlmosError) as error:
        client.call(PROC_SPAWN, Spawn(messages=(Message("user", "x"),)))
    assert error.value.code == Code.EPIPE


@pytest.mark.llmos(models=SLOW)
def test_followers_are_told_that_the_daemon_stops(client, daemon):
    pid = spawn(client, "hello <x>")
    wait_for_tokens(client, pid, 3)
    follow = client.stream(PROC_FOLLOW, Follow(pid))
    next(follow)
    daemon.process.terminate()
    with pytest.raises(LlmosError, match="the daemon is stopping") as caught:
        for _ in follow:
            pass
    assert caught.value.code is Code.EPIPE and not isinstance(caught.value, ConnectionLost)
