"""Limits, priorities, policies."""

from __future__ import annotations

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    KERNEL_LIST,
    MEM_INFO,
    MODEL_LIST,
    MODEL_LOAD,
    MODEL_TOKENIZE,
    MODEL_UNLOAD,
    PROC_LIMITS,
    PROC_NICE,
    PROC_SPAWN,
    SCHED_SET,
    SCHED_SHOW,
    ModelName,
    Nice,
    Nothing,
    PolicyName,
    SetLimits,
    Spawn,
    Tokenize,
)  # fmt: skip
from llmos_shell.abi.types import KvState, Limits, Reason
from llmos_shell.testing.clients import code_of, info, run, say, spawn, text_of, wait, wait_for_tokens
from llmos_shell.testing.retry import retry_until

ENDLESS = {"endless": {"step_seconds": 0.002, "pages": 4096}}


@pytest.mark.llmos(models=ENDLESS)
def test_token_limits_are_exact(client):
    pid = spawn(client, limits=Limits(tokens=33))
    assert len(text_of(client, pid)) == 33
    ended = wait(client, pid)
    assert (ended.reason, ended.code) == (Reason.LIMIT, 124) and "33" in ended.message


@pytest.mark.llmos(models=ENDLESS)
def test_context_limits(client):
    pid = spawn(client, "12345", limits=Limits(kv_tokens=50))
    assert len(text_of(client, pid)) == 44
    assert wait(client, pid).reason is Reason.LIMIT
    assert code_of(client, PROC_SPAWN, Spawn(prompt="x" * 60, limits=Limits(kv_tokens=50))) == Code.E2BIG


@pytest.mark.llmos(models=ENDLESS)
def test_time_limits(client):
    pid = spawn(client, limits=Limits(seconds=0.2))
    assert wait(client, pid).reason is Reason.LIMIT
    sleeper = spawn(client, chat=True, limits=Limits(seconds=0.2))
    assert wait(client, sleeper).code == 124


@pytest.mark.llmos(models=ENDLESS)
def test_limits_can_be_set_later(client):
    pid = spawn(client)
    wait_for_tokens(client, pid)
    client.call(PROC_LIMITS, SetLimits(pid, Limits(tokens=1)))
    assert wait(client, pid).reason is Reason.LIMIT
    assert code_of(client, PROC_SPAWN, Spawn(prompt="x", limits=Limits(tokens=0))) == Code.EINVAL


def test_a_limit_over_several_turns(client):
    pid = spawn(client, chat=True, limits=Limits(tokens=30))
    assert len(say(client, pid, "one")) == 20
    assert len(say(client, pid, "two")) == 10
    assert wait(client, pid).reason is Reason.LIMIT


@pytest.mark.llmos(models=ENDLESS)
def test_nice(client):
    pid = spawn(client, nice=5)
    client.call(PROC_NICE, Nice(pid, -3))
    assert info(client, pid).nice == -3
    assert code_of(client, PROC_NICE, Nice(pid, -21)) == Code.EINVAL
    assert code_of(client, PROC_NICE, Nice(999, 0)) == Code.ESRCH


@pytest.mark.parametrize("policy", ["fair", "fifo"])
@pytest.mark.llmos(models={"narrow": {"slots": 3, "end_after": 30}})
def test_every_policy_finishes_everybody(client, policy):
    assert client.call(SCHED_SET, PolicyName(policy)).policy == policy
    alone = [run(client, f"number {n} <x>", sampling={"seed": n}) for n in range(10)]
    pids = [spawn(client, f"number {n} <x>", sampling={"seed": n}) for n in range(10)]
    assert [text_of(client, pid) for pid in pids] == alone


def test_policies(client):
    shown = client.call(SCHED_SHOW, Nothing())
    assert shown.policy == "fair" and "fifo" in shown.policies
    assert code_of(client, SCHED_SET, PolicyName("lottery")) == Code.ENOENT


@pytest.mark.llmos(models={"narrow": {"slots": 1, "step_seconds": 0.002, "pages": 64}})
def test_a_conversation_preempts_the_background(client):
    background = spawn(client, detached=True, limits=Limits(tokens=900), sampling={"seed": 1})
    wait_for_tokens(client, background)
    chat = spawn(client, chat=True, sampling={"max_tokens": 20})
    assert len(say(client, chat, "are you there?")) == 20
    row = info(client, background)
    assert row.exit is None and row.preemptions > 0
    wait_for_tokens(client, background, row.generated_tokens + 10)
    assert info(client, background).recomputed_tokens == 0


# -- models ------------------------------------------------------------------------------------------------------------


def test_loading_and_unloading(client):
    assert client.call(MODEL_LOAD, ModelName("scripted")).worker
    pid = spawn(client, chat=True, sampling={"seed": 1})
    first = say(client, pid, "one")
    client.call(MODEL_UNLOAD, ModelName("scripted"))
    assert info(client, pid).kv is KvState.PARKED
    assert code_of(client, MODEL_UNLOAD, ModelName("scripted")) == Code.ENOENT
    second = say(client, pid, "two")
    assert first and second and info(client, pid).recomputed_tokens == 0


@pytest.mark.llmos(models=ENDLESS)
def test_a_busy_model_is_not_unloaded(client):
    pid = spawn(client)
    wait_for_tokens(client, pid)
    assert code_of(client, MODEL_UNLOAD, ModelName("endless")) == Code.EBUSY


@pytest.mark.llmos(models={"broken": {"fail_load": "no such tensor"}})
def test_a_model_that_cannot_be_loaded(client):
    assert code_of(client, PROC_SPAWN, Spawn(prompt="x")) == Code.ENOEXEC
    assert code_of(client, MODEL_LOAD, ModelName("broken")) == Code.ENOEXEC


@pytest.mark.llmos(models={"partial": {"fail_load": "No module named 'tensors.parts'"}})
def test_a_worker_that_lacks_a_module_says_what_to_install(client):
    with pytest.raises(LlmosError, match=r"kernel scripted needs tensors.parts: install tensors.parts$") as error:
        client.call(MODEL_LOAD, ModelName("partial"))
    assert error.value.code is Code.ENOEXEC


@pytest.mark.llmos(models={"stuck": {"hang_load": True}}, env={"LLMOS_WORKER_STALL_SECONDS": "0.3"})
def test_a_model_that_never_finishes_loading(client):
    assert code_of(client, MODEL_LOAD, ModelName("stuck")) == Code.EIO


def test_tokenize_kernels_and_memory(client):
    assert client.call(MODEL_TOKENIZE, Tokenize("abc")).tokens == (97, 98, 99)
    kernels = {kernel.name: kernel for kernel in client.call(KERNEL_LIST, Nothing())}
    assert kernels["scripted"].available
    memory = client.call(MEM_INFO, Nothing())
    assert memory.pools[0].model == "scripted" and memory.park_limit > 0


@pytest.mark.llmos(env={"LLMOS_KEEP_SECONDS": "0.05"})
def test_a_model_nobody_uses_is_unloaded(client):
    pid = spawn(client, chat=True, sampling={"seed": 1})
    assert say(client, pid, "one")
    retry_until(lambda: client.call(MODEL_LIST, Nothing())[0].worker is None)
    retry_until(lambda: info(client, pid).kv is KvState.PARKED)
    assert say(client, pid, "two") and info(client, pid).recomputed_tokens == 0


@pytest.mark.llmos(models={"one": {"end_after": 20}, "two": {"end_after": 30}})
def test_two_models_at_once(client):
    pids = [spawn(client, f"number {n} <x>", model=("one", "two")[n % 2]) for n in range(6)]
    assert [len(text_of(client, pid)) for pid in pids] == [20, 30] * 3
    assert {pool.model for pool in client.call(MEM_INFO, Nothing()).pools} == {"one", "two"}
