"""Policies, groups, deadlines, the foreground, several models: end to end on the scripted engine."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    GROUP_LIST,
    GROUP_SET,
    MODEL_LOAD,
    PROC_ADOPT,
    PROC_DETACH,
    PROC_FORK,
    PROC_NICE,
    PROC_SPAWN,
    PROC_WHY,
    SCHED_GANG,
    SCHED_SET,
    SCHED_SHOW,
    SCHED_TRACE,
    SYS_DMESG,
    SYS_STATUS,
    Adopt,
    Dmesg,
    Follow,
    Fork,
    Gang,
    ModelName,
    Nice,
    Nothing,
    Pid,
    PolicyName,
    SetGroup,
    Spawn,
    Trace,
)
from llmos_shell.abi.types import Limits, Reason, Signal, State
from llmos_shell.shell.traces import trace_events
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
)
from llmos_shell.testing.daemon import DaemonProcess, write_models
from llmos_shell.testing.hurry import begin_to_hurry, hurry
from llmos_shell.testing.retry import retry_until
from llmos_shell.testing.scripted import computed

NARROW = {"narrow": {"slots": 1, "step_seconds": 0.002, "pages": 64}}
PREEMPTING = {
    "fair": {"min_run": 0.02, "lead": 0.005},
    "fifo": {},
    "rr": {"quantum": 0.02},
    "priority": {},
    "deadline": {},
}


def dmesg(client) -> str:
    return "\n".join(event.text for event in client.stream(SYS_DMESG, Dmesg(1000)))


@pytest.fixture
def counter(llmos_home, tmp_path) -> Path:
    """A narrow model whose engine writes down every token it computes."""
    path = tmp_path / "counter"
    write_models(llmos_home, narrow={**NARROW["narrow"], "counter": str(path)})
    return path


@pytest.mark.parametrize("policy", PREEMPTING)
def test_preempted_and_resumed_token_for_token(counter, daemon, policy):
    with daemon.connect() as client:
        client.call(SCHED_SET, PolicyName(policy, PREEMPTING[policy]))
        limits = Limits(tokens=150)
        with hurry():
            alone = [
                text_of(client, spawn(client, f"{n} and then", sampling={"seed": n}, private=True, limits=limits))
                for n in (1, 2)
            ]
        counter.unlink()
        first = spawn(client, "1 and then", sampling={"seed": 1}, nice=5, private=True, limits=limits)
        wait_for_tokens(client, first, 20)
        second = spawn(client, "2 and then", sampling={"seed": 2}, deadline=60.0, private=True, limits=limits)
        if policy == "fifo":  # preempts nobody: whoever is stopped makes way
            kill(client, first, Signal.STOP)
            wait_for_tokens(client, second, 20)
            kill(client, first, Signal.CONT)
        assert [text_of(client, first), text_of(client, second)] == alone
        rows = [info(client, pid) for pid in (first, second)]
        assert policy == "fifo" or sum(row.preemptions for row in rows) > 0
        assert sum(row.recomputed_tokens for row in rows) == 0


@pytest.mark.parametrize("policy", PREEMPTING)
def test_no_token_is_computed_twice(counter, daemon, policy):
    with daemon.connect() as client:
        client.call(SCHED_SET, PolicyName(policy, PREEMPTING[policy]))
        pids = []
        for n in (4, 3, 2, 1):
            options = {"nice": n, "deadline": 30.0 + n, "private": True, "limits": Limits(tokens=60)}
            pids.append(spawn(client, f"{n} and then", **options))
            wait_for_tokens(client, pids[0] if policy == "fifo" else pids[-1], 3)
        for pid in pids:
            text_of(client, pid)
        rows = computed(str(counter))
        assert len({row.digest for row in rows}) == len(rows)
        prompts = sum(info(client, pid).prompt_tokens for pid in pids)
        assert sum(row.tokens for row in rows) == prompts + 4 * 59


def test_what_was_copied_for_a_process_preempted_before_it_began_is_not_computed_again(llmos_home, tmp_path, daemon):
    counter = tmp_path / "counter"
    write_models(llmos_home, pair={"slots": 2, "step_seconds": 0.2, "pages": 64, "counter": str(counter)})
    context = "what all of them begin with, and that is rather a lot of words to read "
    with daemon.connect() as client:
        client.call(SCHED_SET, PolicyName("priority"))
        first = spawn(client, context + "first", nice=5, limits=Limits(tokens=8))
        wait_for_tokens(client, first, 2)
        pids = [
            spawn(client, prompt, nice=nice, limits=Limits(tokens=2))
            for prompt, nice in ((context + "second", 6), ("third", -5), ("fourth", -5))
        ]
        for pid in (first, *pids):
            text_of(client, pid)
        rows = computed(str(counter))
        assert len({row.digest for row in rows}) == len(rows)
        assert info(client, pids[0]).reused_tokens >= 64


def test_a_long_prompt_nobody_waits_for_is_interrupted_for_one_that_somebody_waits_for(llmos_home, tmp_path, daemon):
    counter = tmp_path / "counter"
    write_models(llmos_home, slow={"token_seconds": 0.05, "context": 1000, "counter": str(counter)})
    with daemon.connect() as client:
        long = spawn(client, "x" * 127, limits=Limits(tokens=1))
        wait_for_state(client, long, State.RUNNING)
        short = spawn(client, "hi", foreground=True, limits=Limits(tokens=1))
        text_of(client, short)
        begin_to_hurry()
        text_of(client, long)
        rows = computed(str(counter))
        assert (rows[0].position, rows[0].tokens) == (0, 3)
        assert sum(row.tokens for row in rows) == 3 + 128
        assert info(client, long).recomputed_tokens == 0


@pytest.mark.llmos(models=NARROW)
def test_parameters_are_checked_shown_and_kept(client, daemon):
    shown = client.call(SCHED_SET, PolicyName("rr", {"quantum": 2.5}))
    assert [(one.name, one.value, one.default) for one in shown.parameters] == [("quantum", 2.5, 1.0)]
    assert code_of(client, SCHED_SET, PolicyName("rr", {"quantum": 0.0})) == Code.EINVAL
    assert code_of(client, SCHED_SET, PolicyName("rr", {"quantum": math.nan})) == Code.EINVAL
    assert code_of(client, SCHED_SET, PolicyName("rr", {"lead": 1.0})) == Code.EINVAL
    assert code_of(client, SCHED_SET, PolicyName("fifo", {"quantum": 1.0})) == Code.EINVAL
    daemon.kill()
    daemon.start()
    with daemon.connect() as again:
        shown = again.call(SCHED_SHOW, Nothing())
        assert (shown.policy, shown.parameters[0].value) == ("rr", 2.5)


# -- deadlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.llmos(models=NARROW)
def test_the_earliest_deadline_first_and_a_missed_one_is_said(client):
    client.call(SCHED_SET, PolicyName("deadline"))
    plain = spawn(client, "plain")
    wait_for_tokens(client, plain)
    late = spawn(client, "late", deadline=1000.0)
    wait_for_tokens(client, late, 5)
    early = spawn(client, "early", deadline=0.2)
    wait_for_tokens(client, early, 5)
    retry_until(lambda: info(client, early).missed_deadline)
    assert "missed its deadline" in dmesg(client)
    assert "its deadline missed" in client.call(PROC_WHY, Pid(early)).text
    wait_for_state(client, late, State.RUNNING)
    assert not info(client, late).missed_deadline
    assert code_of(client, PROC_SPAWN, Spawn(prompt="x", deadline=0.0)) == Code.EINVAL


# -- groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.llmos(models={"wide": {"slots": 2, "step_seconds": 0.002, "pages": 256}})
def test_many_jobs_of_one_group_do_not_drown_the_one_of_another(client):
    client.call(SCHED_SET, PolicyName("fair", {"min_run": 0.01, "lead": 0.002}))
    many = [spawn(client, f"job {n}", group="many") for n in range(12)]
    wait_for_tokens(client, many[0])
    one = spawn(client, "single", group="one", limits=Limits(tokens=300))
    text_of(client, one)
    groups = {group.name: group for group in client.call(GROUP_LIST, Nothing())}
    rows = [info(client, pid) for pid in many]
    assert info(client, one).waiting_seconds < sum(row.waiting_seconds for row in rows) / len(rows)
    assert groups["many"].processes == 12 and groups["many"].tokens > 0


@pytest.mark.llmos(models=NARROW)
def test_a_group_that_is_full_refuses(client):
    client.call(GROUP_SET, SetGroup("few", {"processes": 2}))
    pids = [spawn(client, chat=True, group="few") for _ in range(2)]
    with pytest.raises(LlmosError, match="group few has 2 processes, and 2 are its limit") as error:
        spawn(client, group="few")
    assert error.value.code is Code.EAGAIN
    assert code_of(client, PROC_FORK, Fork(pids[0])) == Code.EAGAIN
    kill(client, pids[0])
    assert spawn(client, chat=True, group="few")


@pytest.mark.llmos(models=NARROW)
def test_a_group_that_used_up_its_tokens_pauses_and_says_so(client):
    client.call(GROUP_SET, SetGroup("slow", {"tokens_per_second": 40}))
    pid = spawn(client, group="slow", limits=Limits(tokens=60))
    retry_until(lambda: "40 tokens per second, is reached" in client.call(PROC_WHY, Pid(pid)).text)
    begun = time.monotonic()
    assert wait(client, pid).reason is Reason.LIMIT
    assert time.monotonic() - begun < 30
    assert client.call(GROUP_LIST, Nothing())


@pytest.mark.llmos(models=NARROW)
def test_a_group_with_a_share_of_the_device_leaves_the_rest_to_others(client):
    client.call(GROUP_SET, SetGroup("little", {"device_share": 0.05}))
    little = spawn(client, "little", group="little")
    retry_until(lambda: "5 % of the device's time, is reached" in client.call(PROC_WHY, Pid(little)).text)
    other = spawn(client, "other", limits=Limits(tokens=100))
    assert wait(client, other).reason is Reason.LIMIT
    row = info(client, little)
    wait_for_tokens(client, little, row.generated_tokens + 1)


@pytest.mark.llmos(models={"wide": {"slots": 4, "step_seconds": 0.002, "pages": 64}})
def test_a_group_holds_no_more_kv_than_it_may(client):
    client.call(GROUP_SET, SetGroup("small", {"kv_tokens": 64}))
    assert code_of(client, PROC_SPAWN, Spawn(prompt="x" * 80, group="small")) == Code.E2BIG
    pids = [spawn(client, "y" * 30, group="small") for _ in range(3)]
    ended = [wait(client, pid) for pid in pids]
    assert {one.reason for one in ended} == {Reason.LIMIT} and "group small" in ended[0].message
    assert all(info(client, pid).generated_tokens == 64 - 31 for pid in pids)


@pytest.mark.llmos(models=NARROW)
def test_settings_of_groups_outlast_the_daemon(client, daemon):
    client.call(GROUP_SET, SetGroup("night", {"weight": 0.5, "processes": 3}))
    pid = spawn(client, chat=True, group="night", detached=True)
    daemon.kill()
    daemon.start()
    with daemon.connect() as again:
        group = next(group for group in again.call(GROUP_LIST, Nothing()) if group.name == "night")
        assert (group.settings.weight, group.settings.processes, group.processes) == (0.5, 3, 1)
        assert info(again, pid).group == "night"
        again.call(GROUP_SET, SetGroup("night", {}, reset=True))
        kill(again, pid)
        retry_until(lambda: "night" not in {group.name for group in again.call(GROUP_LIST, Nothing())})


@pytest.mark.llmos(shared=True)
@pytest.mark.parametrize(
    "changes",
    [{"weight": 0}, {"weight": math.nan}, {"processes": 0}, {"device_share": 2}, {"tokens": 5}, {"kv_tokens": "many"}],
)
def test_settings_that_make_no_sense_are_refused(client, changes):
    assert code_of(client, GROUP_SET, SetGroup("g", changes)) == Code.EINVAL
    assert code_of(client, GROUP_SET, SetGroup("a/b", {"weight": 1})) == Code.EINVAL
    assert code_of(client, PROC_SPAWN, Spawn(prompt="x", group="a b")) == Code.EINVAL


# -- the foreground ----------------------------------------------------------------------------------------------------


@pytest.mark.llmos(models=NARROW)
def test_the_foreground_follows_detach_and_adopt(client):
    pid = spawn(client, chat=True)
    assert info(client, pid).foreground
    client.call(PROC_DETACH, Pid(pid))
    assert not info(client, pid).foreground
    client.call(PROC_ADOPT, Adopt(pid))
    assert info(client, pid).foreground


@pytest.mark.llmos(models=NARROW)
def test_the_foreground_follows_who_watches(client, daemon):
    from llmos_shell.abi.syscalls import PROC_FOLLOW

    pid = spawn(client, "story", foreground=True)
    assert info(client, pid).foreground
    with daemon.connect() as other:
        stream = other.stream(PROC_FOLLOW, Follow(pid, foreground=True))
        next(iter(stream))
        assert info(client, pid).foreground
    retry_until(lambda: not info(client, pid).foreground)
    assert not info(client, spawn(client, "in the background")).foreground


@pytest.mark.llmos(models=NARROW)
def test_a_foreground_run_goes_before_the_background(client):
    background = spawn(client, "background", detached=True)
    wait_for_tokens(client, background)
    assert len(text_of(client, spawn(client, "now", foreground=True, limits=Limits(tokens=20)))) == 20
    assert info(client, background).preemptions > 0


# -- several models ----------------------------------------------------------------------------------------------------

TWO = {"one": {"step_seconds": 0.002, "pages": 256}, "two": {"step_seconds": 0.002, "pages": 256}}


@pytest.mark.llmos(models=TWO, env={"LLMOS_WORKER_STALL_SECONDS": "1"})
def test_models_take_turns_when_told_to(client):
    client.call(SCHED_GANG, Gang("on"))
    pids = [spawn(client, "story", model=model, limits=Limits(tokens=400)) for model in ("one", "two")]
    devices = retry_until(lambda: next((d for d in client.call(SCHED_SHOW, Nothing()).devices if d.holder), None))
    assert (devices.mode, set(devices.models)) == ("gang", {"one", "two"})
    retry_until(lambda: any("another model has its turn" in client.call(PROC_WHY, Pid(pid)).text for pid in pids))
    assert [wait(client, pid).reason for pid in pids] == [Reason.LIMIT] * 2
    assert client.call(SCHED_SHOW, Nothing()).devices[0].mode == "alone"
    assert all(worker.restarts == 0 for worker in client.call(SYS_STATUS, Nothing()).workers)


@pytest.mark.parametrize("crowded", [True, False])
@pytest.mark.llmos(env={"LLMOS_GANG_SECONDS": "0.4"})
def test_models_take_turns_when_that_is_measured_to_be_quicker(llmos_home, tmp_path, request, crowded):
    crowd = {"crowd": str(tmp_path / "crowd")} if crowded else {}
    write_models(llmos_home, **{name: {**options, "pages": 4096, **crowd} for name, options in TWO.items()})
    client = request.getfixturevalue("client")
    for model in TWO:
        client.call(MODEL_LOAD, ModelName(model))
    pids = [spawn(client, "story", model=model) for model in TWO]
    shown = retry_until(
        lambda: next((d for d in client.call(SCHED_SHOW, Nothing()).devices if not d.measuring and d.gang_rate), None)
    )
    assert (shown.setting, shown.mode) == ("auto", "gang" if crowded else "free")
    assert (shown.gang_rate > shown.free_rate) == crowded
    for pid in pids:
        kill(client, pid)


@pytest.mark.llmos(models=TWO)
def test_a_foreground_wakeup_cuts_a_turn_short(client):
    client.call(SCHED_GANG, Gang("on"))
    background = spawn(client, "story", model="one", detached=True)
    wait_for_tokens(client, background)
    chat = spawn(client, chat=True, model="two", sampling={"max_tokens": 5})
    assert len(say(client, chat, "hello")) == 5
    assert info(client, background).exit is None


# -- told --------------------------------------------------------------------------------------------------------------


@pytest.mark.llmos(models=NARROW)
def test_why(client):
    first = spawn(client, "first", name="the first")
    wait_for_tokens(client, first)
    second = spawn(client, "second", name="the second")
    told = retry_until(lambda: (one := client.call(PROC_WHY, Pid(second))).place and one)
    assert told.behind == (first,) and f"{first} (the first)" in told.text and "1. of 1 in line" in told.text
    assert "it runs since" in client.call(PROC_WHY, Pid(first)).text
    kill(client, first, Signal.STOP)
    assert "stopped" in client.call(PROC_WHY, Pid(first)).text
    kill(client, first)
    assert "ended" in client.call(PROC_WHY, Pid(first)).text
    assert "sleeps" in client.call(PROC_WHY, Pid(spawn(client, chat=True))).text
    assert "session" in client.call(PROC_WHY, Pid(client.session)).text
    assert code_of(client, PROC_WHY, Pid(99999)) == Code.ESRCH


@pytest.mark.llmos(models=NARROW)
def test_a_trace_holds_every_state_and_decision(client):
    client.call(SCHED_SET, PolicyName("rr", {"quantum": 0.02}))
    client.call(SCHED_TRACE, Trace("start"))
    pids = [spawn(client, f"{n} story", limits=Limits(tokens=60)) for n in range(2)]
    for pid in pids:
        wait(client, pid)
    record = client.call(SCHED_TRACE, Trace("stop"))
    kinds = {event.kind for event in record.events}
    assert kinds == {"spawn", "state", "decision", "preempt", "step", "exit"} and not record.dropped
    events = list(trace_events(record))
    json.dumps(events)
    for pid in pids:
        names = {event["name"] for event in events if event.get("ph") == "X" and event["tid"] == pid}
        assert "running" in names and names & {"waiting", "parked"}
    assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")
    assert client.call(SCHED_TRACE, Trace("stop")).events == ()


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_renice_of_the_dead(client):
    pid = spawn(client)
    text_of(client, pid)
    assert code_of(client, PROC_NICE, Nice(pid, 3)) == Code.ESRCH


@pytest.mark.llmos(env={"LLMOS_WORKER_STALL_SECONDS": "0.5"})
def test_a_worker_without_progress_is_replaced_and_processes_are_kept(llmos_home, tmp_path, daemon):
    marker = tmp_path / "hung"
    write_models(llmos_home, stuck={"hang_at_token": 30, "marker": str(marker)})
    with daemon.connect() as client:
        assert len(run(client, "hello", limits=Limits(tokens=50))) == 50
        assert marker.exists() and "made no progress" in dmesg(client)


BROKEN_POLICY = """
class Broken:
    name, strict = "broken", False
    def rank(self, entities, now):
        entities = list(entities)
        if len(entities) > 1:
            raise RuntimeError("no idea")
        return entities
    def should_preempt(self, waiting, running, now):
        return False
"""


def test_an_installed_policy_that_raises_is_quarantined(llmos_home, tmp_path):
    site = tmp_path / "site"
    (site / "broken-1.0.dist-info").mkdir(parents=True)
    (site / "broken-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    points = "[llmos.policies]\nbroken = broken_policy:Broken\nabsent = no_such_module:Policy\n"
    (site / "broken-1.0.dist-info" / "entry_points.txt").write_text(points)
    (site / "broken_policy.py").write_text(BROKEN_POLICY)
    write_models(llmos_home, **NARROW)
    daemon = DaemonProcess(llmos_home, {"PYTHONPATH": str(site)})
    daemon.start()
    try:
        with daemon.connect() as client:
            assert code_of(client, SCHED_SET, PolicyName("absent")) == Code.ENOEXEC
            assert client.call(SCHED_SET, PolicyName("broken")).policy == "broken"
            pids = [spawn(client, f"{n} story", limits=Limits(tokens=40)) for n in range(3)]
            assert [wait(client, pid).reason for pid in pids] == [Reason.LIMIT] * 3
            shown = client.call(SCHED_SHOW, Nothing())
            assert shown.policy == "fair" and "no idea" in shown.quarantined["broken"]
            assert "policy broken is quarantined, fair takes over" in dmesg(client)
    finally:
        daemon.stop()
