"""Signals in every state."""

from __future__ import annotations

import pytest

from llmos_shell.abi.errors import Code
from llmos_shell.abi.syscalls import (
    PROC_FOLLOW,
    PROC_INPUT,
    PROC_KILL,
    PROC_SPAWN,
    PROC_TRANSCRIPT,
    Follow,
    Input,
    Kill,
    Pid,
    Spawn,
)  # fmt: skip
from llmos_shell.abi.types import Message, Reason, Signal, State
from llmos_shell.testing.clients import (
    code_of,
    info,
    kill,
    say,
    spawn,
    text_of,
    wait,
    wait_for_state,
    wait_for_tokens,
)  # fmt: skip
from llmos_shell.testing.retry import retry_until

ENDLESS = {"step_seconds": 0.002, "pages": 4096}
ENDS = [
    (Signal.TERM, Reason.TERM, 143),
    (Signal.KILL, Reason.KILL, 137),
    (Signal.INT, Reason.INTERRUPT, 130),
    (Signal.HUP, Reason.HUP, 129),
]


@pytest.mark.llmos(models={"endless": ENDLESS})
@pytest.mark.parametrize(("signal", "reason", "code"), ENDS)
def test_ending_a_generating_process(client, signal, reason, code):
    pid = spawn(client)
    wait_for_tokens(client, pid)
    kill(client, pid, signal)
    ended = wait(client, pid)
    assert (ended.reason, ended.code) == (reason, code)
    assert code_of(client, PROC_KILL, Kill(pid)) == Code.ESRCH


@pytest.mark.llmos(models={"slow": {"load_seconds": 600}}, env={"LLMOS_WORKER_STALL_SECONDS": "600"})
@pytest.mark.parametrize(("signal", "reason", "code"), ENDS)
def test_ending_a_process_that_waits_for_its_model(client, daemon, signal, reason, code):
    with daemon.connect() as other:
        call = client._begin(PROC_SPAWN, Spawn(prompt="hello", detached=True))
        pid = retry_until(lambda: next((p for p in pids(other) if p.state is State.NEW), None)).pid
        kill(other, pid, signal)
        ended = wait(other, pid)
        assert (ended.reason, ended.code) == (reason, code)
    assert client._next_answer(call) is not None


def pids(client):
    from llmos_shell.abi.syscalls import PROC_LIST, List

    return client.call(PROC_LIST, List(sessions=False))


@pytest.mark.llmos(models={"prompts": {"step_seconds": 0.02, "max_batch": 4, "pages": 256, "end_after": 5}})
@pytest.mark.parametrize(("signal", "reason", "code"), ENDS)
def test_ending_a_process_in_the_middle_of_its_prompt(client, signal, reason, code):
    pid = spawn(client, "x" * 2000)
    retry_until(lambda: next(iter(client.stream(PROC_FOLLOW, Follow(pid)))).prefill)
    kill(client, pid, signal)
    assert wait(client, pid).reason is reason


@pytest.mark.llmos(models={"endless": ENDLESS})
def test_stop_and_continue(client):
    pid = spawn(client, sampling={"max_tokens": 200, "seed": 3})
    wait_for_tokens(client, pid, 3)
    kill(client, pid, Signal.STOP)
    wait_for_state(client, pid, State.STOPPED)
    kill(client, pid, Signal.STOP)
    resident = info(client, pid).resident_pages
    assert resident > 0
    other = spawn(client, "another", sampling={"max_tokens": 50})
    wait(client, other)
    assert info(client, pid).state is State.STOPPED
    kill(client, pid, Signal.CONT)
    text = text_of(client, pid)
    assert len(text) == 200 and info(client, pid).recomputed_tokens == 0
    assert text == text_of(client, spawn(client, sampling={"max_tokens": 200, "seed": 3}))


@pytest.mark.llmos(models={"endless": ENDLESS})
@pytest.mark.parametrize(("signal", "reason", "code"), ENDS)
def test_ending_a_stopped_process(client, signal, reason, code):
    pid = spawn(client)
    wait_for_tokens(client, pid)
    kill(client, pid, Signal.STOP)
    kill(client, pid, signal)
    assert wait(client, pid).reason is reason


def test_signals_to_a_sleeping_chat(client):
    pid = spawn(client, chat=True)
    kill(client, pid, Signal.INT)
    assert info(client, pid).state is State.SLEEPING
    kill(client, pid, Signal.STOP)
    assert info(client, pid).state is State.STOPPED
    kill(client, pid, Signal.CONT)
    assert info(client, pid).state is State.SLEEPING
    assert say(client, pid, "hello")
    kill(client, pid, Signal.TERM)
    assert wait(client, pid).reason is Reason.TERM


@pytest.mark.llmos(models={"endless": ENDLESS})
def test_interrupting_a_chat_ends_its_turn_and_not_the_chat(client):
    pid = client.call(PROC_SPAWN, Spawn(messages=(Message("user", "talk"),), chat=True, sampling={"seed": 1})).pid
    wait_for_tokens(client, pid, 5)
    kill(client, pid, Signal.INT)
    wait_for_state(client, pid, State.SLEEPING)
    said = client.call(PROC_TRANSCRIPT, Pid(pid)).turns[-1]
    assert said.reason is Reason.INTERRUPT and said.tokens >= 5
    assert said.text == text_of(client, pid, until="idle")
    client.call(PROC_INPUT, Input(pid, "go on"))
    wait_for_tokens(client, pid, said.tokens + 5)
    kill(client, pid, Signal.INT)
    wait_for_state(client, pid, State.SLEEPING)
    turns = client.call(PROC_TRANSCRIPT, Pid(pid)).turns
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant"]
    assert info(client, pid).recomputed_tokens == 0


@pytest.mark.llmos(models={"endless": ENDLESS})
def test_a_stopped_chat_takes_input_when_it_continues(client):
    pid = spawn(client, chat=True, sampling={"max_tokens": 10})
    kill(client, pid, Signal.STOP)
    client.call(PROC_INPUT, Input(pid, "hello"))
    assert info(client, pid).state is State.STOPPED and not info(client, pid).generated_tokens
    kill(client, pid, Signal.CONT)
    assert len(text_of(client, pid, until="idle")) == 10


@pytest.mark.llmos(models={"endless": ENDLESS})
def test_the_tree(client):
    parent = spawn(client)
    child = spawn(client, parent=parent)
    assert info(client, child).ppid == parent
    kill(client, parent, Signal.TERM, tree=True)
    assert wait(client, child).reason is Reason.TERM and wait(client, parent).reason is Reason.TERM


@pytest.mark.llmos(models={"endless": ENDLESS})
def test_orphans_are_adopted(client):
    parent = spawn(client)
    child = spawn(client, parent=parent)
    kill(client, parent)
    wait(client, parent)
    assert info(client, child).ppid == client.session
    kill(client, child)
    assert wait(client, child).reason is Reason.TERM


def test_the_daemon_cannot_be_killed(client):
    assert code_of(client, PROC_KILL, Kill(1, Signal.KILL)) == Code.EPERM
    assert code_of(client, PROC_KILL, Kill(999)) == Code.ESRCH
    assert code_of(client, PROC_KILL, Kill(client.session, Signal.STOP)) == Code.EINVAL


@pytest.mark.llmos(models={"endless": ENDLESS})
def test_signalling_a_session_hangs_it_up(client, daemon):
    with daemon.connect() as other:
        pid = spawn(other)
        kill(client, other.session, Signal.HUP)
        assert wait(client, pid).reason is Reason.HUP
