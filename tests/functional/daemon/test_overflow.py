"""A context that is full: the process stops, fails, or forgets and goes on, as its user chose; always said."""

from __future__ import annotations

import signal
from itertools import pairwise

import pytest

from llmos_shell.abi.syscalls import PROC_FORK, PROC_TRANSCRIPT, SYS_DMESG, SYS_STATUS, Dmesg, Fork, Nothing, Pid
from llmos_shell.abi.types import Message, Overflow, Reason
from llmos_shell.testing.clients import info, kill, run, say, spawn, text_of, wait
from llmos_shell.testing.retry import retry_until

SMALL = {"pages": 32, "page_tokens": 8, "slots": 4, "context": 64}
pytestmark = pytest.mark.llmos(
    models={
        "small": {**SMALL, "end_after": 30},
        "endless": SMALL,
        "rigid": {**SMALL, "can_shift": False},
    }
)


def talk(client, prompt="hello <x>", **options):
    pid = spawn(client, prompt, overflow=Overflow.SHIFT, sampling={"max_tokens": 200, "seed": 3}, **options)
    return pid, text_of(client, pid)


def said(client):
    return [event.text for event in client.stream(SYS_DMESG, Dmesg())]


@pytest.mark.parametrize("model", ["endless", "rigid"])
def test_an_answer_longer_than_the_context(client, model):
    pid, text = talk(client, model=model)
    row = info(client, pid)
    assert len(text) == row.generated_tokens == 200 and wait(client, pid).reason is Reason.LENGTH
    assert row.forgotten_tokens > 0 and row.context_tokens <= 64
    assert any("were forgotten" in line for line in said(client))
    assert row.recomputed_tokens == 0 if model == "endless" else row.recomputed_tokens > 0
    assert talk(client, model=model)[1] == text


def test_stopping_and_failing(client):
    pid = spawn(client, "hello <x>", model="endless", sampling={"max_tokens": 200})
    assert len(text_of(client, pid)) < 64 and wait(client, pid).reason is Reason.CONTEXT
    pid = spawn(client, "hello <x>", model="endless", overflow=Overflow.ERROR, sampling={"max_tokens": 200})
    assert len(text_of(client, pid)) < 64
    ended = wait(client, pid)
    assert ended.reason is Reason.ERROR and ended.code == 1 and "64 tokens is full" in ended.message


def test_a_conversation_longer_than_the_context(client):
    pid = spawn(client, chat=True, overflow=Overflow.SHIFT)
    for number in range(8):
        assert len(say(client, pid, f"message {number}")) == 30
    assert info(client, pid).forgotten_tokens > 0


@pytest.mark.llmos(models={"roomy": {**SMALL, "pages": 64, "context": 256}})
def test_answers_that_end_by_a_stop_string_forget_no_more_than_others(client):
    stop = list("etaoinshr")
    pid = spawn(client, chat=True, overflow=Overflow.SHIFT, sampling={"stop": stop, "seed": 1})
    counts, computed = [], []
    for number in range(24):
        say(client, pid, f"message {number}")
        assert client.call(PROC_TRANSCRIPT, Pid(pid)).turns[-1].reason is Reason.STOP
        row = info(client, pid)
        counts.append(row.forgotten_tokens)
        computed.append(row.prompt_tokens)
    forgets = [after - before for before, after in pairwise(counts)]
    assert counts[-1] > 0 and forgets.count(0) >= len(forgets) // 3, counts
    quiet = [after - before for (before, after), forgot in zip(pairwise(computed), forgets, strict=True) if not forgot]
    assert max(quiet) < 64, "what is in the context is not read again"


def test_the_system_prompt_stays(client):
    prompt = (Message("system", "be brief"),)
    pid = spawn(client, None, messages=prompt, chat=True, overflow=Overflow.SHIFT)
    for number in range(6):
        say(client, pid, f"message {number}")
    assert info(client, pid).forgotten_tokens > 0
    kept = [line for line in said(client) if "were forgotten" in line]
    assert all("after the first " in line for line in kept)
    assert int(kept[-1].split("after the first ")[1].split()[0]) > len("<system>be brief")


def test_others_do_not_notice_and_share_nothing(client):
    beginning = "a beginning that fills pages <x>"
    alone = run(client, beginning, model="endless", sampling={"max_tokens": 30, "seed": 1})
    text = talk(client, beginning, model="endless")[1]
    assert run(client, beginning, model="endless", sampling={"max_tokens": 30, "seed": 1}) == alone
    assert talk(client, beginning, model="endless")[1] == text


def test_forks_of_what_forgot(client):
    pid = spawn(client, chat=True, overflow=Overflow.SHIFT)
    for number in range(5):
        say(client, pid, f"message {number}")
    child = client.call(PROC_FORK, Fork(pid)).pids[0]
    assert len(say(client, child, "and you?")) == 30
    assert info(client, child).overflow is Overflow.SHIFT


@pytest.mark.llmos(models={"endless": {**SMALL, "step_seconds": 0.002}})
def test_a_crash_costs_computing_only(client):
    import os

    pid = spawn(client, "hello <x>", overflow=Overflow.SHIFT, sampling={"max_tokens": 300, "seed": 3})
    retry_until(lambda: info(client, pid).forgotten_tokens > 60)
    os.kill(client.call(SYS_STATUS, Nothing()).workers[0].pid, signal.SIGKILL)
    assert len(text_of(client, pid)) == 300 and wait(client, pid).reason is Reason.LENGTH


@pytest.mark.llmos(models={"endless": {**SMALL, "pages": 12, "step_seconds": 0.001}})
def test_in_a_pool_that_is_too_small(client):
    pids = [
        spawn(client, f"hello {n} <x>", overflow=Overflow.SHIFT, sampling={"max_tokens": 150, "seed": n})
        for n in range(4)
    ]
    assert [len(text_of(client, pid)) for pid in pids] == [150] * 4
    kill_all = [pid for pid in pids if info(client, pid).exit is None]
    for pid in kill_all:
        kill(client, pid)
