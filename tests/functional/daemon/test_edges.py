"""What goes wrong at the edges: turns cut short, entries that change, calls given up, a daemon that ends in between."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3

import psutil
import pytest
from msgspec import msgpack

from llmos_shell import paths
from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.framing import Splitter, encode
from llmos_shell.abi.syscalls import (
    MODEL_LIST,
    MODEL_LOAD,
    MODEL_PROBLEMS,
    MODEL_TOKENIZE,
    MODEL_UNLOAD,
    PROC_FORK,
    PROC_INFO,
    PROC_INPUT,
    PROC_LIST,
    PROC_SPAWN,
    PROC_TRANSCRIPT,
    PROC_WAIT,
    SYS_DMESG,
    SYS_STATUS,
    Dmesg,
    Fork,
    Input,
    List,
    ModelName,
    Nothing,
    Pid,
    Spawn,
    Tokenize,
    Wait,
)  # fmt: skip
from llmos_shell.abi.types import Limits, Message, Reason, Signal, State
from llmos_shell.abi.wire import Call, Cancel, Failure, Hello
from llmos_shell.testing.clients import (
    code_of,
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
from llmos_shell.testing.retry import retry_until

ENDLESS = {"endless": {"step_seconds": 0.002, "pages": 4096}}


# -- text held back for a stop string ----------------------------------------------------------------------------------


@pytest.mark.llmos(models={"held": {"reply": "one User two", "step_seconds": 0.002}})
def test_text_held_back_is_said_at_a_limit(client):
    pid = spawn(client, "say>", limits=Limits(tokens=6), sampling={"stop": ["User:"]})
    assert text_of(client, pid) == "one Us"
    assert wait(client, pid).reason is Reason.LIMIT
    assert client.call(PROC_TRANSCRIPT, Pid(pid)).turns[-1].text == "one Us"


@pytest.mark.llmos(models={"held": {"reply": "a" * 900, "step_seconds": 0.002}})
def test_text_held_back_is_said_by_one_that_is_killed(client):
    pid = spawn(client, "say>", sampling={"stop": ["a" * 900 + "b"]})
    wait_for_tokens(client, pid, 6)
    kill(client, pid, Signal.TERM)
    assert text_of(client, pid) == "a" * info(client, pid).generated_tokens != ""


@pytest.mark.llmos(models={"held": {"reply": "one User two " * 99, "step_seconds": 0.002}})
def test_an_interrupted_chat_has_said_all_its_tokens(client):
    pid = client.call(
        PROC_SPAWN, Spawn(messages=(Message("user", "x"),), chat=True, sampling={"stop": ["User t!"]})
    ).pid
    for _ in range(5):
        wait_for_tokens(client, pid, info(client, pid).generated_tokens + 7)
        kill(client, pid, Signal.INT)
        wait_for_state(client, pid, State.SLEEPING)
        turn = client.call(PROC_TRANSCRIPT, Pid(pid)).turns[-1]
        assert len(turn.text) == turn.tokens and turn.reason is Reason.INTERRUPT
        client.call(PROC_INPUT, Input(pid, "more"))


# -- sizes and numbers -------------------------------------------------------------------------------------------------


@pytest.mark.llmos(shared=True)
def test_a_huge_prompt_is_refused_unread(client):
    run(client)
    with pytest.raises(LlmosError, match=r"70000 bytes long, at least 10000 tokens, .* holds 1024") as error:
        spawn(client, "x" * 70_000)
    assert error.value.code == Code.E2BIG


@pytest.mark.llmos(shared=True)
@pytest.mark.parametrize("pid", [0, -1, 2**63 - 1, 2**63, 2**64 - 1])
def test_impossible_pids(client, pid):
    assert code_of(client, PROC_INFO, Pid(pid)) == Code.ESRCH
    assert code_of(client, PROC_WAIT, Wait(pid)) == Code.ESRCH


@pytest.mark.llmos(shared=True)
def test_impossible_numbers(client):
    assert client.call(PROC_LIST, List(all=True, limit=2**63))
    pid = spawn(client, chat=True)
    assert code_of(client, PROC_WAIT, Wait(pid, timeout=float("nan"))) == Code.EINVAL
    assert code_of(client, PROC_SPAWN, Spawn(prompt="x", limits=Limits(seconds=float("nan")))) == Code.EINVAL
    for sampling in ({"presence_penalty": float("inf")}, {"repeat_penalty": 1e-300}, {"stop": ["x"] * 65}):
        assert code_of(client, PROC_SPAWN, Spawn(prompt="x", sampling=sampling)) == Code.EINVAL


def test_copies_that_do_not_fit_leave_nothing_behind(client, daemon):
    pid = spawn(client, chat=True)
    for _ in range(3):
        client.call(PROC_FORK, Fork(pid, 1024))
    with pytest.raises(LlmosError, match="4096 are the limit"):
        client.call(PROC_FORK, Fork(pid, 1024))
    assert len(client.call(PROC_LIST, List(sessions=False))) == 1 + 3 * 1024


# -- models.toml -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[models.x\n", "default = 5\n", "defualt = 'tiny'\n", "a = " + "[" * 9999, b"\xff"])
def test_a_broken_file_is_said_and_names_still_work(client, llmos_home, text):
    file = llmos_home / "config" / "models.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LlmosError) as error:
        spawn(client)
    assert error.value.code == Code.EINVAL and str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)
    assert client.call(MODEL_PROBLEMS, Nothing()) == (error.value.message,)
    assert [row.default for row in client.call(MODEL_LIST, Nothing())] == [False]
    assert error.value.message in [event.text for event in client.stream(SYS_DMESG, Dmesg())]
    assert spawn(client, chat=True, model="tiny")


def move(home, **options):
    """Writes another `models.toml`, in which the same name stands for other weights."""
    (home / "config" / "other.model").write_text("scripted\n")
    write_models(home, scripted=options)
    file = home / "config" / "models.toml"
    file.write_text(file.read_text().replace("scripted.model", "other.model"))


@pytest.mark.llmos(models={"scripted": {"reply": "old"}})
def test_a_changed_entry_is_loaded_anew(client, llmos_home):
    chat = spawn(client, chat=True, sampling={"temperature": 0.0})
    assert run(client) == say(client, chat, "a") == "old"
    move(llmos_home, reply="new")
    assert run(client) == "new"
    assert say(client, chat, "b") == "new"
    assert info(client, chat).context_tokens > 40, "the new weights have read the whole conversation"
    rows = client.call(MODEL_LIST, Nothing())
    assert [row.entry.name for row in rows if row.worker] == ["scripted"] and len(rows) == 2


@pytest.mark.llmos(models={"scripted": {"step_seconds": 0.002}})
def test_a_changed_entry_waits_until_nobody_runs(client, llmos_home):
    busy = spawn(client)
    wait_for_tokens(client, busy)
    move(llmos_home, reply="new")
    client.call(MODEL_LOAD, ModelName("scripted"))
    count = info(client, busy).generated_tokens
    wait_for_tokens(client, busy, count + 1)
    kill(client, busy)
    assert run(client) == "new"


@pytest.mark.llmos(models={"typo": {"end_aftre": 3}})
def test_an_unknown_option_is_refused(client):
    with pytest.raises(LlmosError, match=r"no option `end_aftre`.*end_after") as error:
        spawn(client)
    assert error.value.code == Code.EINVAL


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_call_cancelled_at_once_is_answered(daemon):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(paths.socket_path())
        sock.settimeout(20)
        splitter = Splitter()
        sock.sendall(encode(Hello(PROTOCOL, "0.0.1", "raw", os.getpid())))
        assert splitter.feed(sock.recv(1 << 16))
        sock.sendall(encode(Call(7, "proc.wait", {"pid": 1})) + encode(Cancel(7)))
        (body,) = splitter.feed(sock.recv(1 << 16))
        assert msgpack.decode(body, type=Failure) == Failure(7, Code.EINTR, "proc.wait was cancelled")


# -- the journal -------------------------------------------------------------------------------------------------------


def test_the_journal_outlasts_a_lock_of_somebody_else(client, daemon):
    locked = sqlite3.connect(paths.journal_path(), isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    pid = spawn(client, detached=True)  # its answer waits for the journal, but not for ever
    wait(client, pid)
    assert pid in {row.pid for row in client.call(PROC_LIST, List(all=True))}, "said to have ended, though not written"
    locked.execute("ROLLBACK")
    locked.close()
    retry_until(lambda: any(row.pid == pid for row in client.call(PROC_LIST, List(all=True))))
    daemon.kill()
    daemon.start()
    with daemon.connect() as other:
        assert info(other, pid).exit.reason is Reason.EOS


# -- the end of the daemon ---------------------------------------------------------------------------------------------


@pytest.mark.llmos(models={"slow": {"load_seconds": 600}})
def test_a_process_that_waits_for_its_model_outlasts_the_daemon(client, daemon):
    client._begin(PROC_SPAWN, Spawn(prompt="hello", detached=True))
    with daemon.connect() as other:
        retry_until(lambda: other.call(PROC_LIST, List(sessions=False)))
    for end in (daemon.stop, daemon.kill, daemon.stop):
        end()
        daemon.start()
        with daemon.connect() as other:
            (row,) = retry_until(lambda: other.call(PROC_LIST, List(sessions=False)))
            assert row.state is State.NEW


@pytest.mark.llmos(models={"plain": {"end_after": 20}})
def test_a_turn_the_worker_refuses_does_not_end_the_chat(client):
    pid = spawn(client, chat=True)
    say(client, pid, "one")
    client.call(PROC_INPUT, Input(pid, "two", sampling={"grammar": "root ::= [a-z]"}))
    wait_for_state(client, pid, State.SLEEPING)
    assert client.call(PROC_TRANSCRIPT, Pid(pid)).turns[-1].reason is Reason.ERROR
    client.call(PROC_INPUT, Input(pid, "three", sampling={"grammar": None}))
    wait_for_state(client, pid, State.SLEEPING)
    assert client.call(PROC_TRANSCRIPT, Pid(pid)).turns[-1].reason is Reason.EOS


# -- workers that are not wanted any more ------------------------------------------------------------------------------


@pytest.mark.llmos(models={"slow": {"load_seconds": 1}})
def test_a_model_unloaded_while_its_worker_restarts_leaves_no_worker(client, daemon):
    pid = client.call(MODEL_LOAD, ModelName("slow")).worker
    os.kill(pid, 9)
    retry_until(lambda: not client.call(SYS_STATUS, Nothing()).workers)
    client.call(MODEL_UNLOAD, ModelName("slow"))
    host = psutil.Process(daemon.pid)
    assert [child.pid for child in host.children()] != [pid]
    retry_until(lambda: not host.children(), 10)


def test_a_question_to_a_model_that_is_unloaded_is_answered(client, daemon):
    run(client)
    (worker,) = client.call(SYS_STATUS, Nothing()).workers
    os.kill(worker.pid, signal.SIGSTOP)
    call = client._begin(MODEL_TOKENIZE, Tokenize("abc"))
    with daemon.connect() as other:
        other.call(MODEL_UNLOAD, ModelName(worker.model))
    assert client._next_answer(call).code == Code.EAGAIN


# -- what the user sees ------------------------------------------------------------------------------------------------


def test_a_broken_file_on_the_command_line(llmos, llmos_home):
    (llmos_home / "config" / "models.toml").write_text("[models.x\n")
    refused, listed = llmos("run", "hello"), llmos("models")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "models.toml: Expected" in refused.stderr
    assert listed.returncode == 1 and listed.stderr.count("\n") == 1 and "models.toml: Expected" in listed.stderr
    assert "tiny" in listed.stdout


def test_a_home_that_cannot_be_written(llmos, tmp_path):
    (tmp_path / "file").touch()
    refused = llmos("ps", LLMOS_HOME=str(tmp_path / "file" / "home"))
    assert refused.returncode == 1
    assert "Not a directory: set LLMOS_HOME to a folder that can be written" in refused.stderr
    assert "Errno" not in refused.stderr and "its log is" not in refused.stderr
