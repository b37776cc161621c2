"""Processes to a file and back: on this daemon, on another, beside other models; and the whole system to the disk."""

from __future__ import annotations

import os
import shutil

import pytest

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.memory import PROC_CHECKPOINT, PROC_RESTORE, SYS_HIBERNATE, Checkpoint, Restore
from llmos_shell.abi.syscall import Nothing
from llmos_shell.abi.syscalls import MODEL_UNLOAD, PROC_FORK, PROC_TRANSCRIPT, Fork, ModelName, Pid
from llmos_shell.abi.types import KvState, Signal, State
from llmos_shell.testing.clients import (
    code_of,
    info,
    kill,
    run,
    say,
    spawn,
    text_of,
    wait_for_state,
    wait_for_tokens,
)
from llmos_shell.testing.daemon import write_models
from llmos_shell.testing.hurry import begin_to_hurry, hurry
from llmos_shell.testing.retry import retry_until

MODEL = {"pages": 64, "page_tokens": 16, "slots": 8, "end_after": 40}
SLOW = {**MODEL, "end_after": 300, "step_seconds": 0.004}
pytestmark = pytest.mark.llmos(models={"m": MODEL, "slow": SLOW, "other": {**MODEL, "end_after": 41}})


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "file.ck")


def save(client, pid, path, **options):
    return client.call(PROC_CHECKPOINT, Checkpoint(pid, path, **options))


def load(client, path, **options):
    return client.call(PROC_RESTORE, Restore(path, **options))


def chat(client, *texts, **options):
    pid = spawn(client, chat=True, sampling={"seed": 5, "temperature": 1.2}, **options)
    for text in texts:
        say(client, pid, text)
    return pid


def test_a_chat_goes_on(client, file):
    pid = chat(client, "one", "two")
    done = save(client, pid, file)
    assert done.kv_tokens == done.tokens - 1 or done.kv_tokens == done.tokens
    assert done.pids == (pid,) and done.bytes == os.path.getsize(file)
    assert not os.listdir(paths.park_dir())
    there = load(client, file).processes[0]
    assert there.former_pid == pid and there.recomputed_tokens <= 1 and there.reused_tokens == done.kv_tokens
    before = client.call(PROC_TRANSCRIPT, Pid(pid)).turns
    assert client.call(PROC_TRANSCRIPT, Pid(there.pid)).turns == before
    assert say(client, there.pid, "three") == say(client, pid, "three")
    assert info(client, there.pid).recomputed_tokens == 0


@pytest.mark.llmos(models={"slow": SLOW})
def test_an_answer_goes_on_with_a_model_that_is_in_use_as_its_entry_no_longer_says(client, file, llmos_home):
    options = {"sampling": {"seed": 5, "temperature": 1.2}}
    with hurry():
        alone = run(client, "hello <x>", **options)
    spawn(client, "keep it busy ")
    pid = spawn(client, "hello <x>", **options)
    wait_for_tokens(client, pid, 20)
    save(client, pid, file)
    write_models(llmos_home, slow={**SLOW, "step_seconds": 0.005})
    there = load(client, file).processes[0].pid
    begin_to_hurry()
    assert text_of(client, there) == alone and info(client, there).model == "slow"


def test_an_answer_goes_on_in_the_middle(client, file):
    options = {"model": "slow", "sampling": {"seed": 5, "temperature": 1.2}}
    with hurry():
        alone = run(client, "hello <x>", **options)
    pid = spawn(client, "hello <x>", **options)
    wait_for_tokens(client, pid, 20)
    save(client, pid, file)
    assert info(client, pid).state in (State.RUNNING, State.RUNNABLE)
    kill(client, pid, Signal.KILL)
    back = load(client, file).processes[0]
    begin_to_hurry()
    assert text_of(client, back.pid) == alone
    assert info(client, back.pid).generated_tokens == 300


def test_what_was_stopped_is_stopped(client, file):
    pid = spawn(client, "hello <x>", model="slow")
    wait_for_tokens(client, pid, 5)
    kill(client, pid, Signal.STOP)
    wait_for_state(client, pid, State.STOPPED)
    save(client, pid, file)
    back = load(client, file).processes[0].pid
    assert info(client, back).state is State.STOPPED
    begin_to_hurry()
    kill(client, back, Signal.CONT)
    kill(client, pid, Signal.CONT)
    assert text_of(client, back) == text_of(client, pid)


def test_a_second_checkpoint_is_small(client, file):
    pid = chat(client, "a long beginning " * 40)
    first = save(client, pid, file)
    say(client, pid, "more")
    second = save(client, pid, file)
    assert second.tokens > first.tokens and second.written < first.written
    assert load(client, file).processes[0].tokens == second.tokens


def test_a_tree_keeps_its_shape(client, file):
    pid = chat(client, "one")
    children = [spawn(client, chat=True, parent=pid) for _ in range(2)]
    assert save(client, pid, file, tree=True).pids == (pid, *children)
    back = load(client, file).processes
    assert [one.former_pid for one in back] == [pid, *children]
    assert [info(client, one.pid).ppid for one in back[1:]] == [back[0].pid] * 2


def test_a_model_that_is_not_loaded(client, file):
    pid = chat(client, "one")
    client.call(MODEL_UNLOAD, ModelName("m"))
    retry_until(lambda: info(client, pid).kv is KvState.PARKED)
    assert save(client, pid, file).kv_tokens > 0
    client.call(MODEL_UNLOAD, ModelName("m"))
    assert load(client, file).processes[0].recomputed_tokens <= 1


def test_another_model_is_refused_with_both_fingerprints(client, file):
    pid = chat(client, "one")
    save(client, pid, file)
    with pytest.raises(LlmosError) as refused:
        load(client, file, model="other")
    assert refused.value.code == Code.EINVAL
    assert "scripted:None:40" in str(refused.value) and "scripted:None:41" in str(refused.value)
    back = load(client, file, model="other", reread=True).processes[0]
    assert back.reused_tokens == 0
    assert len(say(client, back.pid, "two")) == 41
    assert len(client.call(PROC_TRANSCRIPT, Pid(back.pid)).turns) == 4


def test_another_daemon_and_another_kv_type(daemon, file, llmos_home):
    with daemon.connect() as client:
        pid = chat(client, "one")
        save(client, pid, file)
        expected = say(client, pid, "two")
    daemon.stop()
    shutil.rmtree(llmos_home / "state")
    daemon.start()
    with daemon.connect() as client:
        assert say(client, load(client, file).processes[0].pid, "two") == expected
    config = llmos_home / "config" / "models.toml"
    config.write_text(config.read_text().replace('kernel = "scripted"', 'kernel = "scripted"\nkv_type = "q8_0"', 1))
    daemon.stop()
    daemon.start()
    with daemon.connect() as client:
        back = load(client, file).processes[0]
        assert back.reused_tokens == 0 and "q8_0" in back.note
        assert say(client, back.pid, "two") == expected


def test_bad_files_and_bad_pids(client, file, tmp_path):
    pid = chat(client, "one")
    assert code_of(client, PROC_CHECKPOINT, Checkpoint(9999, file)) == Code.ESRCH
    assert code_of(client, PROC_CHECKPOINT, Checkpoint(pid, "relative")) == Code.EINVAL
    assert code_of(client, PROC_CHECKPOINT, Checkpoint(pid, "/proc/nowhere/x")) == Code.EIO
    assert code_of(client, PROC_RESTORE, Restore(file)) == Code.ENOENT
    assert code_of(client, PROC_RESTORE, Restore(str(tmp_path))) == Code.EIO
    save(client, pid, file)
    os.truncate(file, os.path.getsize(file) - 1)
    assert code_of(client, PROC_RESTORE, Restore(file)) == Code.EIO
    assert len(say(client, pid, "and?")) == 40
    assert not os.listdir(paths.park_dir())


def test_children_of_private_processes_stay_private(client, file):
    pid = chat(client, "a secret that is longer than a page of the pool", private=True)
    save(client, pid, file)
    back = load(client, file).processes[0].pid
    say(client, back, "x")
    other = chat(client, "a secret that is longer than a page of the pool")
    assert info(client, other).reused_tokens == 0


@pytest.mark.llmos(models={"slow": SLOW})
def test_hibernating_and_coming_back(daemon):
    def options(n):
        return {"sampling": {"seed": n, "temperature": 1.2}, "detached": True}

    with daemon.connect() as client:
        with hurry():
            alone = [run(client, f"number {n} <x>", **options(n)) for n in range(2)]
            sleeper = spawn(client, chat=True, detached=True)
            say(client, sleeper, "good night")
        pids = [spawn(client, f"number {n} <x>", **options(n)) for n in range(2)]
        for pid in pids:
            wait_for_tokens(client, pid, 10)
        done = client.call(SYS_HIBERNATE, Nothing())
        assert (done.processes, done.images, done.problems) == (3, 3, ())
    daemon.process.wait(20)
    daemon.process = None
    shutil.rmtree(paths.park_dir(), ignore_errors=True)
    begin_to_hurry()
    daemon.start()
    with daemon.connect() as client:
        assert info(client, sleeper).kv is KvState.SWAPPED
        assert [text_of(client, pid) for pid in pids] == alone
        assert [info(client, pid).recomputed_tokens for pid in pids] == [0, 0]
        assert len(say(client, sleeper, "good morning")) == 300
        assert info(client, sleeper).recomputed_tokens == 0


def test_forks_of_what_was_restored(client, file):
    pid = chat(client, "one")
    save(client, pid, file)
    back = load(client, file).processes[0].pid
    child = client.call(PROC_FORK, Fork(back, keep_seed=True)).pids[0]
    assert say(client, child, "two") == say(client, back, "two")
