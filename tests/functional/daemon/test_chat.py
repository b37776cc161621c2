"""Conversations: turns, what is computed, forks."""

from __future__ import annotations

import pytest

from llmos_shell.abi.errors import Code
from llmos_shell.abi.syscalls import (
    PROC_FOLLOW,
    PROC_FORK,
    PROC_INPUT,
    PROC_SPAWN,
    PROC_TRANSCRIPT,
    Follow,
    Fork,
    Input,
    Pid,
    Spawn,
)  # fmt: skip
from llmos_shell.abi.types import KvState, Message, Reason, State
from llmos_shell.testing.clients import code_of, info, run, say, spawn, text_of, wait, wait_for_tokens
from llmos_shell.testing.scripted import computed


def chat(client, *messages, **options):
    options.setdefault("sampling", {"seed": 1})
    return client.call(
        PROC_SPAWN, Spawn(messages=tuple(Message("user", m) for m in messages) or None, chat=True, **options)
    ).pid


@pytest.fixture
def counter(tmp_path, llmos_home):
    from llmos_shell.testing.daemon import write_models

    path = str(tmp_path / "counter")
    write_models(llmos_home, talk={"end_after": 12, "counter": path})
    return path


def test_turns_keep_the_kv(counter, client):
    pid = chat(client, "one")
    first = text_of(client, pid, until="idle")
    answers = [first, *(say(client, pid, text) for text in ("two", "three", "four"))]
    assert all(len(answer) == 12 for answer in answers)
    row = info(client, pid)
    assert row.recomputed_tokens == 0 and row.state is State.SLEEPING and row.kv is KvState.RESIDENT
    total = sum(step.tokens for step in computed(counter))
    assert total == row.context_tokens
    turns = client.call(PROC_TRANSCRIPT, Pid(pid)).turns
    assert [turn.text for turn in turns if turn.role == "assistant"] == answers


def test_a_chat_without_messages_sleeps(client):
    pid = chat(client)
    assert info(client, pid).state is State.SLEEPING
    assert len(say(client, pid, "hello")) == 20


def test_ends_of_turns_are_told(client):
    pid = chat(client, "one")
    text_of(client, pid, until="idle")
    say(client, pid, "two")
    items = list(client.stream(PROC_FOLLOW, Follow(pid, until="idle")))
    assert [(item.offset, item.turn) for item in items if item.turn] == [(20, Reason.EOS), (40, Reason.EOS)]
    late = list(client.stream(PROC_FOLLOW, Follow(pid, offset=40, until="idle")))
    assert [item.turn for item in late if item.turn] == [Reason.EOS]


def test_input_is_refused_where_it_makes_no_sense(client):
    pid = spawn(client)
    wait(client, pid)
    assert code_of(client, PROC_INPUT, Input(pid, "x")) == Code.ESRCH
    pid = chat(client)
    assert code_of(client, PROC_INPUT, Input(pid, "x" * 5000)) == Code.E2BIG
    assert info(client, pid).state is State.SLEEPING
    assert len(say(client, pid, "short")) == 20
    assert [turn.text[:5] for turn in client.call(PROC_TRANSCRIPT, Pid(pid)).turns if turn.role == "user"] == ["short"]


def test_closing_a_chats_input_ends_it(client):
    pid = chat(client, "one")
    text_of(client, pid, until="idle")
    client.call(PROC_INPUT, Input(pid, end=True))
    assert (wait(client, pid).reason, wait(client, pid).code) == (Reason.END, 0)


@pytest.mark.llmos(models={"endless": {"step_seconds": 0.002, "pages": 4096}})
def test_a_generating_chat_takes_no_input(client):
    pid = chat(client, "one")
    wait_for_tokens(client, pid)
    assert code_of(client, PROC_INPUT, Input(pid, "x")) == Code.EBUSY


def test_forking_a_sleeping_chat(counter, client):
    pid = chat(client, "one")
    text_of(client, pid, until="idle")
    before = sum(step.tokens for step in computed(counter))
    context = info(client, pid).context_tokens
    left, right = client.call(PROC_FORK, Fork(pid, 2, keep_seed=True)).pids
    assert info(client, left).state is State.SLEEPING and info(client, left).shared_pages > 0
    assert say(client, left, "two") == say(client, right, "two") == say(client, pid, "two")
    each = info(client, pid).context_tokens - context
    assert sum(step.tokens for step in computed(counter)) == before + 3 * each
    assert info(client, left).recomputed_tokens == 0 and info(client, left).reused_tokens == context


@pytest.mark.llmos(models={"endless": {"step_seconds": 0.002, "pages": 4096}})
def test_forking_a_generating_process(client):
    pid = spawn(client, sampling={"seed": 5, "max_tokens": 150, "temperature": 1.5})
    wait_for_tokens(client, pid, 20)
    same = client.call(PROC_FORK, Fork(pid, keep_seed=True)).pids[0]
    different = client.call(PROC_FORK, Fork(pid)).pids[0]
    text = text_of(client, pid)
    assert text_of(client, same) == text
    other = text_of(client, different)
    assert other != text and other[:20] == text[:20] and len(other) == 150


def test_a_fork_of_an_ended_process_is_a_chat(client):
    pid = spawn(client)
    text = text_of(client, pid)
    wait(client, pid)
    child = client.call(PROC_FORK, Fork(pid)).pids[0]
    assert info(client, child).state is State.SLEEPING
    assert text_of(client, child, until="idle") == text
    assert len(say(client, child, "more <x>")) == 20


@pytest.mark.llmos(models={"talk": {"end_after": 12, "context": 80}})
def test_a_full_context_ends_the_turn_and_refuses_the_next(client):
    pid = client.call(PROC_SPAWN, Spawn(messages=(Message("user", "x" * 55),), chat=True)).pid
    text = text_of(client, pid, until="idle")
    turn = client.call(PROC_TRANSCRIPT, Pid(pid)).turns[-1]
    assert turn.reason is Reason.CONTEXT and 0 < len(text) < 12
    assert code_of(client, PROC_INPUT, Input(pid, "x")) == Code.E2BIG


def test_private_processes_share_nothing(counter, client):
    prompt = "a prompt of some length, which fills a page or two <x>"
    run(client, prompt)
    before = len(computed(counter))
    pid = spawn(client, prompt, private=True)
    text_of(client, pid)
    assert info(client, pid).reused_tokens == 0
    pid = spawn(client, prompt)
    text_of(client, pid)
    assert info(client, pid).reused_tokens >= 48
    assert len(computed(counter)) > before
