"""Processes: states, records, rates; the table; suspects; the park budget."""

from __future__ import annotations

import os

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ExitInfo, Kind, KvState, Limits, Reason, Sampling, State, Turn
from llmos_shell.daemon.models.suspects import Suspects
from llmos_shell.daemon.processes.output import Output
from llmos_shell.daemon.processes.process import Figures, Phase, Process
from llmos_shell.daemon.processes.record import decode_record, encode_record, from_record
from llmos_shell.daemon.processes.table import INIT, KEEP_ENDED, KEEP_TOKENS, LEAST_ENDED, MAX_ZOMBIES, ProcessTable


def model_process(pid=7, **fields):
    return Process(pid, "story", Kind.MODEL, model="tiny", **fields)


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, State.NEW),
        ({"tokens": [1]}, State.RUNNABLE),
        ({"phase": Phase.READY}, State.RUNNABLE),
        ({"phase": Phase.READY, "running": True}, State.RUNNING),
        ({"phase": Phase.READY, "stopped": True}, State.STOPPED),
        ({"phase": Phase.IDLE}, State.SLEEPING),
        ({"phase": Phase.IDLE, "stopped": True}, State.STOPPED),
        ({"phase": Phase.ENDED}, State.ZOMBIE),
        ({"phase": Phase.ENDED, "reaped": True}, State.GONE),
    ],
)
def test_states(fields, state):
    process = model_process(**fields)
    assert process.state is state
    assert process.wants_to_run == (state in (State.RUNNABLE, State.RUNNING) and process.phase is Phase.READY)


def test_a_record_brings_everything_back():
    process = model_process(
        nice=3, chat=True, scope="p7", tty="pts/1", sampling=Sampling(seed=5, stop=("x",)), limits=Limits(tokens=9),
        phase=Phase.IDLE, turns=[Turn("user", "hi", 2), Turn("assistant", "ho", 3, Reason.EOS)], known=2,
        tokens=[1, 2, 3], turn_start=2, turn_offset=1, prompt_tokens=2, generated_tokens=3, device_seconds=0.5,
        first_token_seconds=0.1, preemptions=4, image="/dev/shm/7.kv", image_bytes=10,
    )  # fmt: skip
    process.output.append("ho")
    process.output.mark(Reason.EOS)
    back = from_record(decode_record(encode_record(process)), [1, 2, 3], "ho")
    assert back.info(Figures()) == process_info_after_restart(process)
    assert back.output.marks == [Reason.EOS] and back.turns == process.turns and back.known == 2
    assert (back.turn_start, back.turn_offset, back.scope, back.image) == (2, 1, "p7", "/dev/shm/7.kv")
    assert back.known_computed == 3


def process_info_after_restart(process):
    process.kv = KvState.DROPPED
    return process.info(Figures())


def test_tokens_written_after_the_record_count():
    process = model_process(phase=Phase.READY, tokens=[1, 2], turn_start=2, generated_tokens=10)
    back = from_record(decode_record(encode_record(process)), [1, 2, 3, 4], "ab")
    assert back.generated_tokens == 12


def test_an_ended_process_comes_back_ended():
    process = model_process(phase=Phase.ENDED, exit=ExitInfo(7, 0, Reason.EOS), ended=5.0)
    back = from_record(decode_record(encode_record(process)), [], "text")
    assert back.state is State.GONE and back.exit == process.exit


def test_transcript_of_a_turn_in_progress():
    process = model_process(raw=True, turns=[Turn("prompt", "once")], phase=Phase.READY, tokens=[1, 2, 3], turn_start=1)
    process.output = Output("upon")
    turns = [(turn.role, turn.text, turn.tokens) for turn in process.transcript()]
    assert turns == [("prompt", "once", 0), ("completion", "upon", 2)]


def test_tokens_per_second():
    process = model_process(phase=Phase.READY)
    for tenth in range(31):
        process.count_tokens(1, 100 + tenth / 10)
    assert 9 < process.tokens_per_second(103.1) < 12
    assert process.tokens_per_second(110.0) == 0.0


# -- the table ---------------------------------------------------------------------------------------------------------


def test_pids_go_on_where_they_ended():
    table = ProcessTable(41)
    assert [table.next_pid(), table.next_pid()] == [42, 43]
    assert table.get(INIT).name == "llmosd"


def test_who_is_not_there():
    table = ProcessTable()
    process = model_process(table.next_pid())
    table.add(process)
    assert table.living(process.pid) is process
    process.phase, process.exit = Phase.ENDED, ExitInfo(process.pid, 0, Reason.EOS)
    for pid, text in ((99, "no process 99"), (process.pid, "already ended")):
        with pytest.raises(LlmosError, match=text) as error:
            table.living(pid)
        assert error.value.code == Code.ESRCH


def test_the_tree():
    table = ProcessTable()
    for pid, ppid in ((2, 1), (3, 2), (4, 3), (5, 2)):
        table.add(model_process(pid, ppid=ppid))
    assert [process.pid for process in table.descendants(2)] == [3, 5, 4]


def test_ended_processes_are_forgotten_unless_somebody_may_wait():
    table = ProcessTable()
    for pid in range(2, KEEP_ENDED + 12):
        process = model_process(pid, phase=Phase.ENDED, reaped=pid != 2)
        table.add(process)
    assert table.find(2) is not None and table.find(3) is None
    assert len(list(table)) == KEEP_ENDED + 2


def test_fewer_of_those_that_ended_are_kept_when_they_are_long():
    table = ProcessTable()
    for pid in range(2, 102):
        table.add(model_process(pid, phase=Phase.ENDED, reaped=True, tokens=[5] * 10_000))
    kept = [process.pid for process in table if process.pid != INIT]
    assert kept == list(range(102 - KEEP_TOKENS // 10_000, 102))
    for pid in range(102, 202):
        table.add(model_process(pid, phase=Phase.ENDED, reaped=True, tokens=[5] * 1_000_000))
    assert len(list(table)) == LEAST_ENDED + 1
    for pid in range(202, 502):
        table.add(model_process(pid, phase=Phase.ENDED, reaped=True, tokens=[5]))
    assert len(list(table)) == KEEP_ENDED + 1


def test_those_nobody_waited_for_are_forgotten_like_others_once_their_session_has_ended():
    table = ProcessTable()
    processes = [model_process(pid, phase=Phase.ENDED, session=7) for pid in range(2, MAX_ZOMBIES + 3)]
    for process in processes:
        table.add(process)
    assert table.excess_zombie() is processes[0]
    for process in processes:
        process.reaped = True
        table.note_ended(process)
    assert table.excess_zombie() is None and len(list(table)) == KEEP_ENDED + 1
    table.note_ended(processes[0])
    assert len(list(table)) == KEEP_ENDED + 1


# -- suspects ----------------------------------------------------------------------------------------------------------


def test_who_crashes_the_worker_alone_is_to_blame():
    suspects, good, bad = Suspects(), model_process(2), model_process(3)
    assert suspects.crashed([good, bad]) == [] and suspects.may_run(2)
    assert suspects.crashed([good, bad]) == []
    assert suspects.may_run(2) and not suspects.may_run(3) and not suspects.may_run(99)
    good.crashes = 0
    assert suspects.clear(2) and suspects.may_run(3)
    assert suspects.crashed([bad]) == [bad]
    assert suspects.may_run(99) and not suspects.clear(3)


def test_one_crash_alone_is_no_proof():
    suspects, process = Suspects(), model_process()
    assert suspects.crashed([process]) == [] and suspects.crashed([process]) == []
    assert suspects.crashed([process]) == [process]


def test_nobody_ran():
    assert Suspects().crashed([]) == []


# -- where images are --------------------------------------------------------------------------------------------------


def test_the_limit_can_be_set(monkeypatch):
    from llmos_shell.daemon.memory.park import ram_limit

    monkeypatch.delenv("LLMOS_PARK_BYTES", raising=False)
    assert ram_limit(1000) == 250
    monkeypatch.setenv("LLMOS_PARK_BYTES", "7")
    assert ram_limit(1000) == 7


def test_images_nobody_refers_to_are_removed(monkeypatch, tmp_path):
    from llmos_shell.daemon.memory import park

    monkeypatch.setattr("llmos_shell.paths.park_dir", lambda: str(tmp_path))
    for name in ("1.kv", "2.kv"):
        (tmp_path / name).write_text("x")
    park.clean({str(tmp_path / "1.kv")})
    assert os.listdir(tmp_path) == ["1.kv"]
