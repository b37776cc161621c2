"""Several models in a budget that holds one: nobody fails, nothing is loaded more often than it must be."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event

import pytest

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Message, Reason, Signal, State
from llmos_shell.testing.clients import run, say, spawn
from llmos_shell.testing.daemon import DaemonProcess
from llmos_shell.testing.random_gguf import Shape, write_random_model
from llmos_shell.testing.retry import retry_until

MIB = 1 << 20
ONE = {"memory_bytes": 100 * MIB, "end_after": 20, "pages": 256, "slots": 32}
SLOW = {**ONE, "end_after": 100000, "step_seconds": 0.005}
BUDGET = {"LLMOS_MEMORY_BYTES": str(150 * MIB)}


def status(client, name):
    return next(one for one in client.call(abi.MODEL_LIST, abi.Nothing()) if one.entry.name == name)


@contextmanager
def loading(daemon, name):
    """A client that waits for a model; gives how to make it give up, which it does at the end in any case."""

    def load():
        with suppress(LlmosError):
            client.call(abi.MODEL_LOAD, abi.ModelName(name))

    with ThreadPoolExecutor(1) as pool:
        client = daemon.connect()
        pool.submit(load)
        try:
            yield client.close
        finally:
            client.close()


def told(client):
    """What was said of residency."""
    return [event.text for event in client.stream(abi.SYS_DMESG, abi.Dmesg()) if event.source == "residency"]


def loads(client):
    return sum(text.startswith("loading ") for text in told(client))


@pytest.mark.llmos(models={"a": ONE, "b": ONE, "c": ONE}, env=BUDGET)
def test_thirty_interleaved_conversations_of_three_models(daemon, client):
    def converse(number):
        with daemon.connect() as own:
            pid = own.call(abi.PROC_SPAWN, abi.Spawn(model="abc"[number % 3], chat=True)).pid
            for turn in range(3):
                own.call(abi.PROC_INPUT, abi.Input(pid, f"turn {turn}"))
                list(own.stream(abi.PROC_FOLLOW, abi.Follow(pid, until="idle")))
            own.call(abi.PROC_INPUT, abi.Input(pid, end=True))
            said = own.call(abi.PROC_TRANSCRIPT, abi.Pid(pid)).turns
            return [turn.reason for turn in said if turn.role == "assistant"]

    with ThreadPoolExecutor(30) as pool:
        for reasons in pool.map(converse, range(30)):
            assert reasons == [Reason.EOS] * 3
    assert 3 <= loads(client) <= 6


@pytest.mark.llmos(models={"a": {**ONE, "memory_bytes": 200 * MIB}}, env=BUDGET)
def test_a_model_larger_than_the_budget_is_refused_with_the_numbers(client):
    with pytest.raises(LlmosError, match=r"a cannot be loaded: it needs about 200 MiB, there are 150 MiB") as error:
        client.call(abi.PROC_SPAWN, abi.Spawn(prompt="x"))
    assert error.value.code is Code.ENOMEM
    chat = client.call(abi.PROC_SPAWN, abi.Spawn(chat=True)).pid
    with pytest.raises(LlmosError, match="cannot be loaded"):
        client.call(abi.PROC_INPUT, abi.Input(chat, "hello"))
    assert client.call(abi.PROC_INFO, abi.Pid(chat)).state is State.SLEEPING


@pytest.mark.llmos(models={"a": SLOW, "b": ONE}, env=BUDGET)
def test_a_busy_model_is_not_evicted_but_a_stopped_process_makes_way_and_goes_on(client):
    first = client.call(abi.PROC_SPAWN, abi.Spawn(model="a", prompt="x")).pid
    plan = client.call(abi.MODEL_PLAN, abi.ModelName("b"))
    assert (plan.needed // MIB, plan.evict, plan.wait_for) == (100, (), ("a",))
    client.call(abi.PROC_KILL, abi.Kill(first, Signal.STOP))
    before = client.call(abi.PROC_INFO, abi.Pid(first)).generated_tokens
    second = client.call(abi.PROC_SPAWN, abi.Spawn(model="b", prompt="y")).pid
    assert client.call(abi.PROC_WAIT, abi.Wait(second)).reason is Reason.EOS
    assert status(client, "a").worker is None
    client.call(abi.PROC_KILL, abi.Kill(first, Signal.CONT))
    retry_until(lambda: client.call(abi.PROC_INFO, abi.Pid(first)).generated_tokens > before + 5)
    assert status(client, "b").worker is None


@pytest.mark.llmos(models={"a": ONE, "b": ONE}, env={**BUDGET, "LLMOS_KEEP_SECONDS": "0.05"})
def test_a_pinned_model_stays_also_after_a_restart(daemon, client):
    client.call(abi.MODEL_PIN, abi.Pin("a"))
    client.call(abi.MODEL_LOAD, abi.ModelName("a"))
    with pytest.raises(LlmosError, match=r"pinned models have 100 MiB: unpin one of a"):
        client.call(abi.MODEL_LOAD, abi.ModelName("b"))
    with pytest.raises(LlmosError, match="a is pinned"):
        client.call(abi.MODEL_UNLOAD, abi.ModelName("a"))
    daemon.stop()
    daemon.start()
    with daemon.connect() as again:
        assert status(again, "a").pinned
        again.call(abi.MODEL_PIN, abi.Pin("a", False))
        again.call(abi.MODEL_LOAD, abi.ModelName("a"))
        retry_until(lambda: status(again, "a").worker is None)


@pytest.mark.llmos(env={"LLMOS_KEEP_SECONDS": "0"})
def test_a_model_that_is_not_kept_at_all_is_there_for_who_asked_for_it(client):
    chat = spawn(client, chat=True)
    for _ in range(3):
        assert len(run(client)) == len(say(client, chat, "hello")) == 20
        assert client.call(abi.MODEL_LOAD, abi.ModelName("scripted")).worker is not None
    retry_until(lambda: status(client, "scripted").worker is None)


@pytest.mark.llmos(env={"LLMOS_IDLE_SECONDS": "0.01", "LLMOS_KEEP_SECONDS": "0.2"})
def test_a_daemon_started_on_first_use_stays_for_a_loaded_model(daemon):
    daemon.stop()
    daemon.start("--auto")
    with daemon.connect() as client:
        client.call(abi.MODEL_PIN, abi.Pin("scripted"))
        client.call(abi.MODEL_LOAD, abi.ModelName("scripted"))
    with daemon.connect() as client:
        assert status(client, "scripted").worker is not None
        client.call(abi.MODEL_PIN, abi.Pin("scripted", False))
    assert daemon.process.wait(20) == 0
    log = daemon.log()
    assert 0 < log.index("unloaded scripted") < log.index("idle for")


@pytest.mark.llmos(models={"a": SLOW})
def test_a_budget_that_shrank_keeps_the_process(daemon, client):
    pid = client.call(abi.PROC_SPAWN, abi.Spawn(prompt="x", detached=True)).pid
    daemon.stop()
    daemon.env.update({"LLMOS_MEMORY_BYTES": str(50 * MIB)})
    daemon.start()
    with daemon.connect() as again:
        retry_until(lambda: again.call(abi.PROC_INFO, abi.Pid(pid)).state is State.STOPPED)
    daemon.stop()
    del daemon.env["LLMOS_MEMORY_BYTES"]
    daemon.start()
    with daemon.connect() as again:
        before = again.call(abi.PROC_INFO, abi.Pid(pid)).generated_tokens
        again.call(abi.PROC_KILL, abi.Kill(pid, Signal.CONT))
        retry_until(lambda: again.call(abi.PROC_INFO, abi.Pid(pid)).generated_tokens > before)


def test_a_model_that_was_to_run_on_a_gpu_says_where_it_landed(llmos_home, daemon, client):
    file = llmos_home / "config" / "models.toml"
    file.write_text(file.read_text().replace('kernel = "scripted"', 'kernel = "scripted"\ngpu_layers = 5'))
    text = "scripted was to run on a GPU (gpu_layers = 5) and runs on the CPU"
    for words in (["load", "scripted"], ["run", "x"]):
        done = subprocess.run([sys.executable, "-P", "-m", "llmos_shell", *words], capture_output=True, text=True)
        assert done.returncode == 0 and text in done.stderr
    said = [event for event in client.stream(abi.SYS_DMESG, abi.Dmesg()) if event.text == text]
    assert [event.level for event in said] == ["warning"]


def turn(client, pid, text):
    """A chat's answer, and how it ended."""
    client.call(abi.PROC_INPUT, abi.Input(pid, text))
    list(client.stream(abi.PROC_FOLLOW, abi.Follow(pid, until="idle")))
    return client.call(abi.PROC_TRANSCRIPT, abi.Pid(pid)).turns[-1].reason


@contextmanager
def never_idle(daemon, model):
    """Two chats whose turns overlap, so that their model always has something to do; gives their ends of turns."""
    stop, reasons = Event(), []

    def talk(phase):
        with daemon.connect() as own:
            pid = own.call(abi.PROC_SPAWN, abi.Spawn(model=model, chat=True)).pid
            if phase:
                turn(own, pid, "a short one" * 30)
            while not stop.is_set():
                reasons.append(turn(own, pid, "and?"))

    with ThreadPoolExecutor(2) as pool:
        try:
            talking = [pool.submit(talk, phase) for phase in (0, 1)]
            retry_until(lambda: len(reasons) > 4)
            yield reasons
        finally:
            stop.set()
        for each in talking:
            each.result()


TURNS = {**ONE, "end_after": 40, "step_seconds": 0.005, "pages": 4096}
IMPATIENT = {**BUDGET, "LLMOS_PATIENCE_SECONDS": "0.2"}


@pytest.mark.llmos(models={"a": TURNS, "b": ONE}, env=IMPATIENT)
def test_a_model_that_waits_for_one_that_is_never_idle_gets_its_turn_and_so_does_the_other(daemon, client):
    with never_idle(daemon, "a") as reasons:
        pid = client.call(abi.PROC_SPAWN, abi.Spawn(model="b", chat=True)).pid
        assert turn(client, pid, "hello") is Reason.EOS
        done = len(reasons)
        retry_until(lambda: len(reasons) > done + 4)
        assert turn(client, pid, "again") is Reason.EOS
    assert set(reasons) == {Reason.EOS}


@pytest.mark.llmos(models={"a": SLOW, "b": ONE}, env=IMPATIENT)
def test_turns_that_wait_for_another_model_go_on_when_nobody_waits_for_that_any_more(daemon, client):
    long = client.call(abi.PROC_SPAWN, abi.Spawn(model="a", prompt="x")).pid
    chat = client.call(abi.PROC_SPAWN, abi.Spawn(model="a", chat=True, sampling={"max_tokens": 5})).pid
    with ThreadPoolExecutor(1) as pool, daemon.connect() as own:
        with loading(daemon, "b"):
            retry_until(lambda: "a begins no further turns until b has had its memory" in told(client))
            said = pool.submit(turn, own, chat, "hello")
            retry_until(lambda: "until b, which waits" in client.call(abi.PROC_WHY, abi.Pid(chat)).text)
            assert not said.done()
        assert said.result() is Reason.LENGTH
    assert client.call(abi.PROC_INFO, abi.Pid(long)).exit is None and loads(client) == 1


@pytest.mark.llmos(models={"a": SLOW})
def test_a_model_in_use_is_not_unloaded_and_says_by_whom(client):
    pid = client.call(abi.PROC_SPAWN, abi.Spawn(prompt="x")).pid
    with pytest.raises(LlmosError, match=f"a is in use by {pid}") as error:
        client.call(abi.MODEL_UNLOAD, abi.ModelName("a"))
    assert error.value.code is Code.EBUSY
    client.call(abi.PROC_KILL, abi.Kill(pid))
    client.call(abi.MODEL_UNLOAD, abi.ModelName("a"))
    assert status(client, "a").worker is None


SLOW_TO_LOAD = {"slow": {**ONE, "load_seconds": 30.0}, "other": ONE}


@pytest.mark.llmos(models=SLOW_TO_LOAD)
def test_a_load_tells_how_far_it_is_and_ends_with_the_last_who_waits_for_it(daemon, client):
    def progress(one=client, **awaited):
        return one.call(abi.MODEL_PROGRESS, abi.Awaited(**awaited))

    assert progress(model="slow") is None
    with loading(daemon, "slow") as give_up_second:
        with loading(daemon, "slow") as give_up_first:
            retry_until(lambda: (load := progress(model="slow")) is not None and load.read > 0)
            load = progress(model="slow")
            assert load.model == "slow" and load.read < load.total == 100 * MIB and not load.waits_for
            assert 0 < status(client, "slow").loading < 1
            give_up_first()
        pid = client.call(abi.PROC_SPAWN, abi.Spawn(model="slow", chat=True)).pid
        assert progress(pid=pid).total == 100 * MIB
        give_up_second()
    retry_until(lambda: progress(model="slow") is None)
    assert status(client, "slow").worker is None
    said = [event.text for event in client.stream(abi.SYS_DMESG, abi.Dmesg())]
    assert "nobody waits for slow any more: not loaded" in said
    assert client.call(abi.MODEL_PLAN, abi.ModelName("other")).evict == ()


@pytest.mark.llmos(models=SLOW_TO_LOAD)
@pytest.mark.parametrize("chat", [False, True])
def test_a_process_that_ends_or_is_interrupted_does_not_keep_its_load_going(daemon, client, chat):
    messages = (Message("user", "hello"),)
    with ThreadPoolExecutor(1) as pool, daemon.connect() as other:
        call = pool.submit(other.call, abi.PROC_SPAWN, abi.Spawn(model="slow", chat=chat, messages=messages))
        retry_until(lambda: status(client, "slow").loading is not None)
        pid = next(one.pid for one in client.call(abi.PROC_LIST, abi.List()) if one.model == "slow")
        client.call(abi.PROC_KILL, abi.Kill(pid, Signal.INT))
        retry_until(lambda: status(client, "slow").loading is None)
        with suppress(LlmosError):
            call.result()
    assert status(client, "slow").worker is None


@pytest.mark.llmos(models={"a": SLOW, "b": ONE}, env=BUDGET)
def test_a_load_that_waits_for_memory_says_for_whose(daemon, client):
    client.call(abi.PROC_SPAWN, abi.Spawn(model="a", prompt="x"))
    with loading(daemon, "b"):
        retry_until(lambda: getattr(client.call(abi.MODEL_PROGRESS, abi.Awaited("b")), "waits_for", ()) == ("a",))
    retry_until(lambda: client.call(abi.MODEL_PROGRESS, abi.Awaited("b")) is None)


def test_a_pool_is_planned_in_the_budget_and_not_in_what_the_machine_has(llmos_home):
    config = llmos_home / "config"
    config.mkdir(parents=True, exist_ok=True)
    write_random_model(config / "m.gguf", Shape(embedding=256, layers=4, heads=4, kv_heads=4, context=1 << 17))
    (config / "models.toml").write_text('[models.m]\npath = "m.gguf"\n')
    daemon = DaemonProcess(llmos_home, {"LLMOS_MEMORY_BYTES": str(300 * MIB)})
    daemon.start()
    try:
        with daemon.connect() as client:
            needed = client.call(abi.MODEL_PLAN, abi.ModelName("m")).needed
            loaded = client.call(abi.MODEL_LOAD, abi.ModelName("m"))
            pool = loaded.pages * loaded.page_tokens * loaded.kv_bytes_per_token
            assert loaded.estimated_bytes == pytest.approx(needed, rel=0.02)
            assert 60 * MIB < pool < needed <= 300 * MIB
    finally:
        daemon.stop()
