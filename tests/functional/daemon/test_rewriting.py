"""Conversations that are taken back, changed or answered anew: `proc.rewrite`, and `proc.fork` with `again`."""

from __future__ import annotations

from typing import Any

import pytest

from llmos_shell.abi.errors import Code
from llmos_shell.abi.syscalls import PROC_FORK, PROC_REWRITE, PROC_TRANSCRIPT, Fork, Pid, Rewrite
from llmos_shell.abi.types import Message, State
from llmos_shell.testing.clients import code_of, info, say, spawn, text_of, wait, wait_for_state, wait_for_tokens
from llmos_shell.testing.scripted import computed


def turns(client: Any, pid: int) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in client.call(PROC_TRANSCRIPT, Pid(pid)).turns]


@pytest.fixture
def talk(client: Any) -> int:
    pid = spawn(client, chat=True, messages=(Message("system", "Be brief."),), sampling={"temperature": 0})
    say(client, pid, "one")
    say(client, pid, "two")
    return pid


def test_turns_that_were_taken_back_leave_no_trace(client: Any, talk: int) -> None:
    before = turns(client, talk)
    second = say(client, talk, "three")
    client.call(PROC_REWRITE, Rewrite(talk, keep=4))
    assert turns(client, talk) == before
    assert say(client, talk, "three") == second


def test_what_was_said_stays_in_the_output(client: Any, talk: int) -> None:
    length = client.call(PROC_TRANSCRIPT, Pid(talk)).length
    client.call(PROC_REWRITE, Rewrite(talk, keep=0))
    assert client.call(PROC_TRANSCRIPT, Pid(talk)).length == length
    answer = say(client, talk, "anew")
    assert text_of(client, talk, offset=length, until="idle") == answer


def test_another_system_prompt_and_other_messages(client: Any, talk: int) -> None:
    client.call(
        PROC_REWRITE, Rewrite(talk, keep=0, system="Sing.", messages=(Message("user", "a"), Message("assistant", "b")))
    )
    assert turns(client, talk) == [("system", "Sing."), ("user", "a"), ("assistant", "b")]
    fresh = (Message("system", "Sing."), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    other = spawn(client, None, chat=True, messages=fresh, sampling={"temperature": 0})
    assert say(client, talk, "c") == text_of(client, other, until="idle")
    client.call(PROC_REWRITE, Rewrite(talk, system=""))
    assert turns(client, talk)[0] == ("user", "a")


def test_rewriting_survives_a_crash_of_the_daemon(daemon: Any, client: Any, talk: int) -> None:
    client.call(PROC_REWRITE, Rewrite(talk, keep=2))
    before = turns(client, talk)
    daemon.kill()
    daemon.start()
    with daemon.connect() as again:
        assert turns(again, talk) == before
        assert say(again, talk, "three")


def test_a_raw_text_is_taken_back(client: Any) -> None:
    pid = spawn(client, "hello <x>", sampling={"temperature": 0})
    wait(client, pid)
    (child,) = client.call(PROC_FORK, Fork(pid)).pids
    first = say(client, child, " more")
    client.call(PROC_REWRITE, Rewrite(child, keep=2))
    assert say(client, child, " more") == first
    assert code_of(client, PROC_REWRITE, Rewrite(child, system="x")) is Code.EINVAL


def test_what_cannot_be_rewritten(client: Any, talk: int) -> None:
    other = spawn(client)
    assert code_of(client, PROC_REWRITE, Rewrite(other, keep=0)) in (Code.EINVAL, Code.ESRCH)
    assert code_of(client, PROC_REWRITE, Rewrite(talk, keep=-1)) is Code.EINVAL
    assert code_of(client, PROC_REWRITE, Rewrite(talk, messages=(Message("cook", "x"),))) is Code.EINVAL


@pytest.mark.llmos(models={"scripted": {"step_seconds": 0.01}})
def test_nothing_is_rewritten_while_it_answers(client: Any) -> None:
    pid = spawn(client, None, chat=True, messages=(Message("user", "x"),))
    wait_for_state(client, pid, State.RUNNING)
    assert code_of(client, PROC_REWRITE, Rewrite(pid, keep=0)) is Code.EBUSY


@pytest.mark.parametrize("when", ["running", "ended"])
def test_answers_anew_share_one_prefill(llmos_home: Any, tmp_path: Any, when: str) -> None:
    from llmos_shell.testing.daemon import DaemonProcess, write_models

    counter = str(tmp_path / "counter")
    write_models(llmos_home, scripted={"end_after": 60, "step_seconds": 0.002, "counter": counter})
    daemon = DaemonProcess(llmos_home)
    daemon.start()
    try:
        with daemon.connect() as client:
            prompt = "p" * 100 + "<x>"
            pid = spawn(client, prompt)
            wait(client, pid) if when == "ended" else wait_for_tokens(client, pid, 3)
            pids = client.call(PROC_FORK, Fork(pid, count=3, again=True)).pids
            texts = [text_of(client, each) for each in (pid, *pids)]
            assert len(set(texts)) == 4
            assert {info(client, each).generated_tokens for each in pids} == {info(client, pid).generated_tokens}
            assert [turn.text for turn in client.call(PROC_TRANSCRIPT, Pid(pids[0])).turns] == [prompt, texts[1]]
            long_rows = [row for row in computed(counter) if row.tokens > 20]
            assert len(long_rows) == 1
    finally:
        daemon.stop()


def test_the_same_seed_gives_the_same_answer_anew(client: Any) -> None:
    pid = spawn(client, chat=True)
    say(client, pid, "one")
    answer = say(client, pid, "two")
    (child,) = client.call(PROC_FORK, Fork(pid, again=True, keep_seed=True)).pids
    offset = client.call(PROC_TRANSCRIPT, Pid(pid)).length - len(answer)
    assert text_of(client, child, offset=offset, until="idle") == answer
    assert turns(client, child) == turns(client, pid)


def test_nothing_to_answer_anew(client: Any) -> None:
    pid = spawn(client, chat=True)
    assert code_of(client, PROC_FORK, Fork(pid, again=True)) is Code.EINVAL
