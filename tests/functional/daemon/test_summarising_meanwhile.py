"""What else may happen while a conversation waits for its summary: what it says is as if that had not been."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.memory import MEM_STAT, PROC_CHECKPOINT, PROC_RESTORE, SYS_HIBERNATE, Checkpoint, Restore
from llmos_shell.abi.types import Message, Overflow, Reason, Signal, State
from llmos_shell.testing.clients import info, kill, run, say, spawn, text_of, wait, wait_for_state
from llmos_shell.testing.hurry import begin_to_hurry, hurry
from llmos_shell.testing.retry import retry_until

MIB = 1 << 20
CONTEXT = 800
SLOW = {"pages": 256, "page_tokens": 16, "slots": 6, "context": CONTEXT, "step_seconds": 0.004}
LARGE = {"memory_bytes": 100 * MIB}
BUDGET = {"LLMOS_MEMORY_BYTES": str(150 * MIB)}
IMPATIENT = {**BUDGET, "LLMOS_PATIENCE_SECONDS": "0.1"}
FULL = "x" * 580 + "<y>"
SAMPLING = {"max_tokens": 150, "seed": 3}
pytestmark = pytest.mark.llmos(models={"slow": SLOW, "other": {**SLOW, "step_seconds": 0}})
two_models = pytest.mark.llmos(
    models={"slow": {**SLOW, **LARGE}, "other": {**SLOW, **LARGE, "step_seconds": 0, "end_after": 20}}, env=BUDGET
)


def begun(client, **options):
    """A process whose context is about to be full."""
    return spawn(client, FULL, model="slow", overflow=Overflow.SUMMARISE, sampling=SAMPLING, **options)


def says_undisturbed(client):
    with hurry():
        return text_of(client, begun(client))


def summary_of(client, pid):
    """The process that writes its summary."""

    def found():
        rows = client.call(abi.PROC_LIST, abi.List(all=True))
        return next((one for one in rows if one.name == f"summary of {pid}" and not one.exit), None)

    return retry_until(found).pid


def said(client):
    return [event.text for event in client.stream(abi.SYS_DMESG, abi.Dmesg())]


def was_summarised(client):
    return not any("is forgotten instead" in line for line in said(client))


@two_models
def test_its_model_makes_way_for_another_one(client):
    undisturbed = says_undisturbed(client)
    pid = begun(client)
    child = summary_of(client, pid)
    kill(client, pid, Signal.STOP)
    wait_for_state(client, child, State.STOPPED)
    run(client, model="other", sampling={"max_tokens": 5})
    begin_to_hurry()
    kill(client, pid, Signal.CONT)
    retry_until(lambda: info(client, pid).exit is not None)
    assert text_of(client, pid) == undisturbed and was_summarised(client)


@pytest.mark.llmos(
    models={"slow": {**SLOW, **LARGE}, "other": {**SLOW, **LARGE, "step_seconds": 0, "end_after": 20}}, env=IMPATIENT
)
def test_it_is_part_of_a_turn_that_had_begun_before_another_model_waited(daemon, client):
    pid = spawn(client, model="slow", overflow=Overflow.SUMMARISE, sampling={"max_tokens": 2000, "seed": 3})
    with ThreadPoolExecutor(1) as pool, daemon.connect() as own:
        waiting = pool.submit(run, own, model="other", sampling={"max_tokens": 5})
        retry_until(lambda: any("begins no further turns" in line for line in said(client)))
        before = info(client, pid).forgotten_tokens
        begin_to_hurry()
        retry_until(lambda: info(client, pid).exit is not None)
        assert len(waiting.result(30)) == 5
    assert info(client, pid).forgotten_tokens > before and was_summarised(client)


def test_a_checkpoint_of_the_tree(client, tmp_path):
    undisturbed = says_undisturbed(client)
    pid = begun(client)
    summary_of(client, pid)
    client.call(PROC_CHECKPOINT, Checkpoint(pid, str(tmp_path / "file.ck"), tree=True))
    rows = {row.former_pid: row.pid for row in client.call(PROC_RESTORE, Restore(str(tmp_path / "file.ck"))).processes}
    begin_to_hurry()
    assert text_of(client, rows.pop(pid)) == text_of(client, pid) == undisturbed
    (summary,) = rows.values()
    assert max(row.pid for row in client.call(abi.PROC_LIST, abi.List(all=True))) == summary, "it is not written twice"


def test_it_is_disowned_and_its_session_ends(daemon, client):
    undisturbed = says_undisturbed(client)
    with daemon.connect(interactive=True) as own:
        pid = begun(own)
        summary_of(client, pid)
        own.call(abi.PROC_DETACH, abi.Pid(pid))
    begin_to_hurry()
    assert text_of(client, pid) == undisturbed and was_summarised(client)


def test_it_is_made_nicer(client):
    pid = begun(client)
    child = summary_of(client, pid)
    client.call(abi.PROC_NICE, abi.Nice(pid, 7))
    retry_until(lambda: info(client, child).nice == 7 or info(client, child).exit)
    assert info(client, child).nice == 7


def test_it_is_interrupted(client):
    pid = begun(client)
    child = summary_of(client, pid)
    kill(client, pid, Signal.INT)
    assert wait(client, pid).reason is Reason.INTERRUPT
    retry_until(lambda: info(client, child).exit is not None)


def test_it_is_copied(client):
    undisturbed = says_undisturbed(client)
    pid = begun(client)
    summary_of(client, pid)
    copy = client.call(abi.PROC_FORK, abi.Fork(pid, keep_seed=True)).pids[0]
    begin_to_hurry()
    assert text_of(client, pid) == text_of(client, copy) == undisturbed


@pytest.mark.parametrize("overflow", [Overflow.SHIFT, Overflow.SUMMARISE])
def test_an_answer_whose_beginning_is_no_longer_in_the_context_is_given_again_from_the_question(client, overflow):
    messages = (Message("system", "be brief"), Message("user", "tell me"))
    sampling = {"max_tokens": 900, "seed": 3}
    pid = spawn(client, None, messages=messages, model="slow", overflow=overflow, sampling=sampling)
    asked = info(client, pid).prompt_tokens
    retry_until(lambda: info(client, pid).forgotten_tokens > 0)
    again = client.call(abi.PROC_FORK, abi.Fork(pid, again=True, keep_seed=True)).pids[0]
    retry_until(lambda: info(client, again).generated_tokens)
    assert info(client, again).prompt_tokens == asked
    begin_to_hurry()
    assert text_of(client, again) == text_of(client, pid)


def asked(client, **options):
    """A chat whose next question has to wait for a summary."""
    sampling = {**SAMPLING, "max_tokens": 40}
    pid = spawn(client, chat=True, model="slow", overflow=Overflow.SUMMARISE, sampling=sampling, **options)
    client.call(abi.PROC_INPUT, abi.Input(pid, "x" * 480))
    wait_for_state(client, pid, State.SLEEPING)
    return pid


def input_later(own, pid):
    return text_of(own, pid, offset=own.call(abi.PROC_INPUT, abi.Input(pid, "and now?")).offset, until="idle")


def test_the_worker_crashes_before_an_answer(daemon, client):
    with hurry():
        first, second = asked(client), asked(client)
        undisturbed = input_later(client, first)
    with ThreadPoolExecutor(1) as pool, daemon.connect() as own:
        answer = pool.submit(input_later, own, second)
        summary_of(client, second)
        os.kill(client.call(abi.SYS_STATUS, abi.Nothing()).workers[0].pid, signal.SIGKILL)
        begin_to_hurry()
        assert answer.result(30) == undisturbed
    assert was_summarised(client)


def test_the_daemon_crashes_before_an_answer(daemon):
    with daemon.connect() as client:
        with hurry():
            undisturbed = input_later(client, asked(client))
            pid = asked(client, detached=True)
        with ThreadPoolExecutor(1) as pool, daemon.connect() as own:
            lost = pool.submit(input_later, own, pid)
            summary_of(client, pid)
            daemon.kill()
            assert lost.exception(30)
    begin_to_hurry()
    daemon.start()
    with daemon.connect() as client:
        wait_for_state(client, pid, State.SLEEPING)
        turns = client.call(abi.PROC_TRANSCRIPT, abi.Pid(pid)).turns
        assert turns[-1].text == undisturbed


def taken_back(client, pid):
    """Has a chat forget its last question and answer."""
    count = len(client.call(abi.PROC_TRANSCRIPT, abi.Pid(pid)).turns)
    client.call(abi.PROC_REWRITE, abi.Rewrite(pid, keep=count - 2))


def test_a_question_is_taken_back_whose_answer_was_summed_up(client):
    begin_to_hurry()
    pid = spawn(client, chat=True, model="slow", overflow=Overflow.SUMMARISE, sampling={"max_tokens": 900, "seed": 3})
    assert len(say(client, pid, "a long one, please")) == 900
    assert info(client, pid).forgotten_tokens > 0
    taken_back(client, pid)
    offset = client.call(abi.PROC_INPUT, abi.Input(pid, "hi", sampling={"max_tokens": 60})).offset
    os.kill(client.call(abi.SYS_STATUS, abi.Nothing()).workers[0].pid, signal.SIGKILL)
    assert len(text_of(client, pid, offset=offset, until="idle")) == 60
    assert info(client, pid).forgotten_tokens == 0


def test_the_last_question_is_taken_back_and_the_summary_stays(client):
    sampling = {**SAMPLING, "max_tokens": 40}
    pid = spawn(client, chat=True, model="other", overflow=Overflow.SUMMARISE, sampling=sampling)
    number = 0
    while (before := info(client, pid).forgotten_tokens) < CONTEXT:
        say(client, pid, f"message {number}")
        number += 1
    taken_back(client, pid)
    say(client, pid, "another one")
    assert info(client, pid).forgotten_tokens == before and was_summarised(client)


@pytest.mark.llmos(
    models={"slow": {**SLOW, "pages": 64, "step_seconds": 0.001}},
    env={"LLMOS_PARK_BYTES": "0", "LLMOS_SWAP_BYTES": "10000000"},
)
def test_they_swap_each_other_out(client):
    def started(number):
        prompt = f"{number}" * 580 + "<y>"
        return spawn(client, prompt, overflow=Overflow.SUMMARISE, sampling={"max_tokens": 150, "seed": number})

    with hurry():
        alone = [text_of(client, started(number)) for number in range(4)]
    pids = [started(number) for number in range(4)]
    assert [text_of(client, pid) for pid in pids] == alone
    assert was_summarised(client) and client.call(MEM_STAT, abi.Nothing()).swapped_out > 0


def test_everything_hibernates(daemon):
    with daemon.connect() as client:
        undisturbed = says_undisturbed(client)
        pid = begun(client, detached=True)
        summary_of(client, pid)
        client.call(SYS_HIBERNATE, abi.Nothing())
    daemon.process.wait(30)
    begin_to_hurry()
    daemon.start()
    with daemon.connect() as client:
        assert text_of(client, pid) == undisturbed and was_summarised(client)


@two_models
def test_its_model_makes_way_for_another_one_before_an_answer(daemon, client):
    with hurry():
        undisturbed = input_later(client, asked(client))
        pid = asked(client)
    with ThreadPoolExecutor(1) as pool, daemon.connect() as own:
        answer = pool.submit(input_later, own, pid)
        child = summary_of(client, pid)
        kill(client, pid, Signal.STOP)
        wait_for_state(client, child, State.STOPPED)
        run(client, model="other", sampling={"max_tokens": 5})
        begin_to_hurry()
        kill(client, pid, Signal.CONT)
        assert answer.result(30) == undisturbed
    assert was_summarised(client)
