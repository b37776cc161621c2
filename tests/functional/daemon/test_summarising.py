"""A context that is full, of a process that has it summarised: what stays, what is said, and that nothing is lost."""

from __future__ import annotations

import os
import signal

import pytest

from llmos_shell.abi.syscalls import (
    PROC_FORK,
    PROC_INPUT,
    PROC_KILL,
    PROC_LIST,
    PROC_TRANSCRIPT,
    PROC_WHY,
    SYS_DMESG,
    SYS_STATUS,
    Dmesg,
    Fork,
    Input,
    Kill,
    List,
    Nothing,
    Pid,
)
from llmos_shell.abi.types import Message, Overflow, Reason, Signal, State
from llmos_shell.testing.clients import info, kill, run, say, spawn, text_of, wait, wait_for_tokens
from llmos_shell.testing.hurry import begin_to_hurry, hurry
from llmos_shell.testing.retry import retry_until

CONTEXT = 800
ENDLESS = {"pages": 256, "page_tokens": 16, "slots": 6, "context": CONTEXT}
MODEL = {**ENDLESS, "end_after": 60}
pytestmark = pytest.mark.llmos(
    models={
        "brief": MODEL,
        "endless": ENDLESS,
        "mute": {**MODEL, "reply": ""},
        "slow": {**ENDLESS, "step_seconds": 0.004},
    }
)


def chat(client, **options):
    return spawn(client, chat=True, overflow=Overflow.SUMMARISE, sampling={"seed": 3}, **options)


def said(client):
    return [event.text for event in client.stream(SYS_DMESG, Dmesg())]


def summaries(client):
    return [row for row in client.call(PROC_LIST, List(all=True)) if row.name.startswith("summary of")]


def talk(client, pid, messages, start=0):
    return [say(client, pid, f"message {number}") for number in range(start, start + messages)]


def test_a_conversation_longer_than_its_context(client):
    pid = chat(client)
    answers = talk(client, pid, 14)
    assert all(len(answer) == 60 for answer in answers)
    row = info(client, pid)
    assert row.forgotten_tokens > 0 and row.context_tokens < CONTEXT
    assert any("a summary of" in line and "stands for the beginning now" in line for line in said(client))
    assert not any("is forgotten instead" in line for line in said(client))
    turns = client.call(PROC_TRANSCRIPT, Pid(pid)).turns
    assert [turn.text for turn in turns if turn.role == "assistant"] == answers
    assert [turn.text for turn in turns if turn.role == "user"] == [f"message {number}" for number in range(14)]
    again = chat(client)
    assert talk(client, again, 14) == answers


def test_an_answer_longer_than_the_context(client):
    pid = spawn(
        client, None, messages=(Message("system", "be brief"), Message("user", "tell me")), model="endless",
        overflow=Overflow.SUMMARISE, sampling={"max_tokens": 1500, "seed": 3},
    )  # fmt: skip
    text = text_of(client, pid)
    row = info(client, pid)
    assert len(text) == row.generated_tokens == 1500 and wait(client, pid).reason is Reason.LENGTH
    assert row.forgotten_tokens > 0 and not any("is forgotten instead" in line for line in said(client))


def test_a_text_that_is_completed(client):
    pid = spawn(client, model="endless", overflow=Overflow.SUMMARISE, sampling={"max_tokens": 1500, "seed": 3})
    text = text_of(client, pid)
    assert len(text) == 1500 and wait(client, pid).reason is Reason.LENGTH
    assert info(client, pid).forgotten_tokens > 0
    assert run(
        client, model="endless", overflow=Overflow.SUMMARISE, sampling={"max_tokens": 1500, "seed": 3}
    ) == text  # fmt: skip


def test_its_beginning_and_its_end_stay_word_for_word(client):
    pid = spawn(client, None, messages=(Message("system", "be brief"),), chat=True, overflow=Overflow.SUMMARISE)
    number = 0
    while not info(client, pid).forgotten_tokens:
        last = say(client, pid, f"message {number}")
        number += 1
    before = info(client, pid)
    assert before.context_tokens < CONTEXT * 3 // 4
    child = client.call(PROC_FORK, Fork(pid)).pids[0]  # has the same in mind
    assert info(client, child).context_tokens == before.context_tokens
    assert len(say(client, child, "and you?")) == 60 and last


def test_where_no_summary_helps_the_older_half_is_forgotten(client):
    pid = chat(client, model="mute")
    for number in range(30):
        say(client, pid, f"{number} " + "x" * 40)
    assert info(client, pid).forgotten_tokens > 0
    assert any("is forgotten instead" in line for line in said(client))
    assert any("were forgotten" in line for line in said(client))


FULL = "x" * 580 + "<y>"


def begun(client, **options):
    """A process whose context is about to be full."""
    sampling = {"max_tokens": 150, "seed": 3}
    return spawn(client, FULL, model="slow", overflow=Overflow.SUMMARISE, sampling=sampling, **options)


def waiting(client, **options):
    """A process that waits for its summary, and the one that writes it, in a second or two."""
    pid = begun(client, **options)
    child = retry_until(lambda: next((row for row in summaries(client) if row.ppid == pid and not row.exit), None))
    return pid, child.pid


def test_who_waits_for_a_summary_says_so(client):
    pid, child = waiting(client)
    assert info(client, pid).state is State.SYSCALL
    text = client.call(PROC_WHY, Pid(pid)).text
    assert text == f"its context is full: it waits for a summary of its beginning, which {child} writes"
    assert info(client, child).group == info(client, pid).group


def test_killing_the_conversation_ends_the_summary(client):
    pid, child = waiting(client)
    kill(client, pid)
    assert wait(client, pid).reason is Reason.TERM
    retry_until(lambda: info(client, child).exit is not None)


def test_killing_the_summary_forgets_the_older_half(client):
    pid, child = waiting(client)
    kill(client, child)
    retry_until(lambda: any("is forgotten instead" in line for line in said(client)))
    assert info(client, pid).forgotten_tokens > 0 and info(client, pid).exit is None


def test_the_summary_stops_with_the_conversation(client):
    pid, child = waiting(client)
    client.call(PROC_KILL, Kill(pid, Signal.STOP))
    retry_until(lambda: info(client, child).state is State.STOPPED)
    begin_to_hurry()
    client.call(PROC_KILL, Kill(pid, Signal.CONT))
    retry_until(lambda: info(client, pid).forgotten_tokens > 0)


def test_a_question_waits_for_the_summary_and_can_be_taken_back(client):
    pid = chat(client, model="slow")
    client.call(PROC_INPUT, Input(pid, "x" * 480))
    wait_for_tokens(client, pid, 5)
    client.call(PROC_KILL, Kill(pid, Signal.INT))
    retry_until(lambda: info(client, pid).state is State.SLEEPING)
    client.call(PROC_INPUT, Input(pid, "and now?"))
    child = retry_until(lambda: next((row for row in summaries(client) if not row.exit), None))
    assert info(client, pid).state is State.SYSCALL
    client.call(PROC_KILL, Kill(pid, Signal.INT))
    retry_until(lambda: info(client, child.pid).exit is not None)
    retry_until(lambda: info(client, pid).state is State.SLEEPING)
    client.call(PROC_INPUT, Input(pid, "again"))
    retry_until(lambda: info(client, pid).forgotten_tokens > 0)
    told = [line for line in said(client) if "stands for the beginning" in line or "is forgotten instead" in line]
    assert "stands for the beginning" in told[0]  # an endless answer fills the context again soon after that


def test_a_crash_of_the_worker_costs_no_token(client):
    with hurry():
        undisturbed = text_of(client, begun(client))
    pid, _ = waiting(client)
    os.kill(client.call(SYS_STATUS, Nothing()).workers[0].pid, signal.SIGKILL)
    begin_to_hurry()
    assert text_of(client, pid) == undisturbed


def test_a_crash_of_the_daemon_costs_no_token(daemon):
    with daemon.connect() as client:
        with hurry():
            undisturbed = text_of(client, begun(client))
        pid, child = waiting(client, detached=True)
    daemon.kill()
    begin_to_hurry()
    daemon.start()
    with daemon.connect() as client:
        assert text_of(client, pid) == undisturbed
        assert [row.pid for row in summaries(client) if row.pid > child + 2] == []
        turns = client.call(PROC_TRANSCRIPT, Pid(pid)).turns
        assert turns[-1].text == undisturbed


def test_a_restart_after_a_summary_goes_on_from_it(daemon):
    with daemon.connect() as client:
        pid = chat(client, detached=True)
        answers = talk(client, pid, 12)
        assert info(client, pid).forgotten_tokens > 0
        other = chat(client)
        expected = talk(client, other, 16)
    daemon.kill()
    daemon.start()
    with daemon.connect() as client:
        assert [*answers, *talk(client, pid, 4, start=12)] == expected
