"""Another KV pool for a loaded model: everybody goes on where they were, and nothing is computed again."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import MODEL_LIST, MODEL_RESIZE, SYS_DMESG, SYS_STATUS, Dmesg, Nothing, ResizePool
from llmos_shell.testing.clients import info, run, run_alone, say, spawn, text_of, wait, wait_for_tokens
from llmos_shell.testing.daemon import write_models
from llmos_shell.testing.retry import retry_until
from llmos_shell.testing.scripted import computed

POOL = {"pages": 32, "page_tokens": 16, "slots": 4, "context": 256, "can_resize": True}
pytestmark = pytest.mark.llmos(
    models={
        "quick": POOL,
        "slow": {**POOL, "step_seconds": 0.004},
        "rigid": {**POOL, "can_resize": False},
        "tight": {**POOL, "most_pages": 40},
    }
)
SAMPLING = {"max_tokens": 120, "seed": 5, "temperature": 0.8}


def resize(client, model, **changes):
    return client.call(MODEL_RESIZE, ResizePool(model, **changes))


def prompts(count):
    return [f"{number} tell me <x>" for number in range(count)]


def test_who_runs_goes_on_in_the_new_pool(client, tmp_path):
    alone = run_alone(client, prompts(3), model="slow", sampling=SAMPLING)
    pids = [spawn(client, prompt, model="slow", sampling=SAMPLING, private=True) for prompt in prompts(3)]
    for pid in pids:
        wait_for_tokens(client, pid, 20)
    for pool, slots, layout in ((2048, 8, "split"), (4096, 6, "shared"), (1024, 4, "split"), (256, 1, "shared")):
        status = resize(client, "slow", pool_tokens=pool, slots=slots, layout=layout)
        assert (status.pages * status.page_tokens, status.slots, status.layout) == (pool, slots, layout)
    assert [text_of(client, pid) for pid in pids] == alone
    assert [info(client, pid).recomputed_tokens for pid in pids] == [0, 0, 0]
    events = [event.text for event in client.stream(SYS_DMESG, Dmesg())]
    assert any("has 4096 tokens now (shared, 6 slots): 3 processes were carried across" in line for line in events)


def test_no_token_is_computed_twice(client, llmos_home, tmp_path):
    counter = str(tmp_path / "steps")
    write_models(llmos_home, counted={**POOL, "step_seconds": 0.004, "counter": counter})
    pids = [spawn(client, prompt, model="counted", sampling=SAMPLING, private=True) for prompt in prompts(3)]
    for pid in pids:
        wait_for_tokens(client, pid, 30)
    resize(client, "counted", pool_tokens=1024)
    for pid in pids:
        text_of(client, pid)
    contexts = [row.digest for row in computed(counter)]
    assert len(contexts) == len(set(contexts))


@pytest.mark.llmos(models={"slow": {**POOL, "step_seconds": 0.004, "resize_seconds": 0.3}})
def test_a_client_that_goes_away_meanwhile_hurts_nobody(client, daemon):
    """The worker has the new pool, or will have it: so must the daemon."""
    alone = run_alone(client, prompts(3), model="slow", sampling=SAMPLING)
    pids = [spawn(client, prompt, model="slow", sampling=SAMPLING, private=True) for prompt in prompts(3)]
    for pid in pids:
        wait_for_tokens(client, pid, 20)
    impatient = daemon.connect()

    def ask():
        with pytest.raises(LlmosError):
            resize(impatient, "slow", pool_tokens=256, slots=1)

    thread = threading.Thread(target=ask)
    thread.start()
    retry_until(lambda: all(info(client, pid).parked_bytes for pid in pids))
    impatient.close()
    thread.join()
    assert [text_of(client, pid) for pid in pids] == alone, [wait(client, pid) for pid in pids]
    assert pool_of(client, "slow") == (16, 1, "shared")


@pytest.mark.llmos(
    models={"slow": {**POOL, "step_seconds": 0.004, "resize_seconds": 3600}},
    env={"LLMOS_WORKER_STALL_SECONDS": "0.5"},
)
def test_a_worker_that_hangs_meanwhile_is_replaced(client):
    alone = run_alone(client, prompts(3), model="slow", sampling=SAMPLING)
    pids = [spawn(client, prompt, model="slow", sampling=SAMPLING, private=True) for prompt in prompts(3)]
    for pid in pids:
        wait_for_tokens(client, pid, 20)
    with pytest.raises(LlmosError) as caught:
        resize(client, "slow", slots=2)
    assert caught.value.code == Code.EIO
    assert [text_of(client, pid) for pid in pids] == alone
    assert pool_of(client, "slow") == (32, 4, "shared")


def test_sleeping_chats_come_back_too(client):
    pid, other = (spawn(client, chat=True, model="quick", sampling={**SAMPLING, "max_tokens": 40}) for _ in range(2))
    assert say(client, pid, "one") == say(client, other, "one")
    resize(client, "quick", slots=2, layout="split")
    assert info(client, pid).kv == "parked"
    assert say(client, pid, "two") == say(client, other, "two")
    assert info(client, pid).recomputed_tokens == 0


def test_refusals_leave_everything_as_it_was(client):
    pid = spawn(client, model="tight", chat=True, sampling={**SAMPLING, "max_tokens": 20})
    first = say(client, pid, "one")
    for code, model, changes in (
        (Code.ENOMEM, "tight", {"pool_tokens": 1 << 14}),
        (Code.EINVAL, "tight", {"pool_tokens": 128}),
        (Code.EINVAL, "tight", {"slots": 0}),
        (Code.EINVAL, "tight", {"layout": "split", "pool_tokens": 512}),
        (Code.ENOENT, "rigid", {"slots": 2}),
        (Code.ENOENT, "nowhere", {"slots": 2}),
        (Code.ENOMEM, "tight", {"pool_tokens": (1 << 31) - 1}),
    ):
        with pytest.raises(LlmosError) as caught:
            resize(client, model, **changes)
        assert caught.value.code == code, changes
    status = next(one for one in client.call(MODEL_LIST, Nothing()) if one.entry.name == "tight")
    assert (status.pages, status.slots, status.layout) == (32, 4, "shared")
    assert len(say(client, pid, "two")) == len(first) == 20
    assert info(client, pid).recomputed_tokens == 0
    assert len(run(client, model="rigid", sampling=SAMPLING)) == 120
    with pytest.raises(LlmosError) as caught:
        resize(client, "rigid", slots=2)
    assert caught.value.code == Code.ENOSYS


def test_what_it_takes_follows_the_pool(client):
    run(client, model="quick", sampling=SAMPLING)

    def claimed():
        return next(one for one in client.call(MODEL_LIST, Nothing()) if one.entry.name == "quick").estimated_bytes

    before = claimed()
    for odd in (1000, 2007, 300):  # which are not whole pages
        resize(client, "quick", pool_tokens=odd)
    resize(client, "quick", pool_tokens=512)
    assert claimed() == before
    resize(client, "quick", pool_tokens=1 << 16)
    grown = claimed()
    assert grown - before > 16 * ((1 << 16) - 512)
    resize(client, "quick", pool_tokens=512)
    assert claimed() == before


@pytest.mark.parametrize("moments", [(0,), (1, 2)])
def test_a_worker_that_dies_meanwhile_costs_no_token(client, daemon, moments):
    alone = run_alone(client, prompts(4), model="slow", sampling=SAMPLING)
    pids = [spawn(client, prompt, model="slow", sampling=SAMPLING, private=True) for prompt in prompts(4)]
    wait_for_tokens(client, pids[-1], 20)

    def change():
        with daemon.connect() as other:
            for slots in (3, 5, 2, 4):
                try:
                    resize(other, "slow", slots=slots)
                except LlmosError as error:
                    assert error.code in (Code.EIO, Code.EAGAIN, Code.EBUSY, Code.ENOENT)

    for _ in moments:
        thread = threading.Thread(target=change)
        thread.start()
        workers = retry_until(lambda: client.call(SYS_STATUS, Nothing()).workers)
        os.kill(workers[0].pid, signal.SIGKILL)
        thread.join()
    assert [text_of(client, pid) for pid in pids] == alone, [wait(client, pid) for pid in pids]


def test_a_fresh_worker_has_the_pool_that_was_chosen(client, llmos_home):
    (llmos_home / "config" / "fields.model").write_text("scripted")
    with (llmos_home / "config" / "models.toml").open("a") as file:
        file.write('[models.fields]\npath = "fields.model"\nkernel = "scripted"\nslots = 4\npool_tokens = 512\n')
        file.write("options = { can_resize = true }\n")
    run(client, model="fields", sampling=SAMPLING)
    resize(client, "fields", pool_tokens=2048, slots=3)
    os.kill(client.call(SYS_STATUS, Nothing()).workers[0].pid, signal.SIGKILL)
    run(client, "again <x>", model="fields", sampling=SAMPLING)
    status = next(one for one in client.call(MODEL_LIST, Nothing()) if one.entry.name == "fields")
    assert (status.pages, status.slots, status.context) == (128, 3, 512)


@pytest.mark.llmos(models={"rigid": {**POOL, "can_resize": False}}, env={"LLMOS_MEMORY_BYTES": "8000000"})
def test_what_a_kernel_cannot_do_at_all_needs_no_memory(client):
    """It is said before others would have to make way for it."""
    run(client, model="rigid", sampling=SAMPLING)
    with pytest.raises(LlmosError) as caught:
        resize(client, "rigid", pool_tokens=1 << 20)
    assert caught.value.code == Code.ENOSYS


# -- by itself ---------------------------------------------------------------------------------------------------------


def said(client):
    return [event.text for event in client.stream(SYS_DMESG, Dmesg())]


def pool_of(client, model):
    status = next(one for one in client.call(MODEL_LIST, Nothing()) if one.entry.name == model)
    return status.pages, status.slots, status.layout


@pytest.mark.llmos(models={"busy": {**POOL, "step_seconds": 0.002}}, env={"LLMOS_LOOK_SECONDS": "0.05"})
def test_a_pool_that_is_too_small_for_who_runs_grows(client):
    alone = run_alone(client, prompts(10), sampling=SAMPLING)
    pids = [spawn(client, prompt, sampling=SAMPLING, private=True) for prompt in prompts(10)]
    assert [text_of(client, pid) for pid in pids] == alone
    pages, slots, layout = pool_of(client, "busy")
    assert (pages > 32 or slots > 4) and layout == "shared"
    assert any("had too few" in line and "it grows" in line for line in said(client))


@pytest.mark.llmos(models={"busy": {**POOL, "step_seconds": 0.002}}, env={"LLMOS_LOOK_SECONDS": "0.05"})
def test_a_pool_whose_size_is_given_stays(client, llmos_home):
    (llmos_home / "config" / "given.model").write_text("scripted")
    with (llmos_home / "config" / "models.toml").open("a") as file:
        file.write('[models.given]\npath = "given.model"\nkernel = "scripted"\nslots = 4\npool_tokens = 512\n')
        file.write("options = { can_resize = true, context = 256, step_seconds = 0.002 }\n")
    pids = [spawn(client, prompt, model="given", sampling=SAMPLING, private=True) for prompt in prompts(10)]
    assert all(len(text_of(client, pid)) == 120 for pid in pids)
    assert pool_of(client, "given") == (32, 4, "shared")


@pytest.mark.llmos(
    models={"busy": {**POOL, "pages": 64, "step_seconds": 0.002}},
    env={"LLMOS_LOOK_SECONDS": "0.02"},
)
def test_a_layout_that_gains_nothing_is_tried_and_left(client):
    sampling = {**SAMPLING, "max_tokens": 220}
    alone = run_alone(client, prompts(3), sampling=sampling)
    for _ in range(3):
        pids = [spawn(client, prompt, sampling=sampling, private=True) for prompt in prompts(3)]
        assert [text_of(client, pid) for pid in pids] == alone
        assert sum(info(client, pid).recomputed_tokens for pid in pids) == 0
    lines = said(client)
    assert any("whether split is quicker is tried out" in line for line in lines)
    assert any("it becomes shared again" in line for line in lines)


@pytest.mark.llmos(
    models={
        "busy": {**POOL, "pages": 4096, "step_seconds": 0.002, "memory_bytes": 1_100_000},
        "other": {**POOL, "pages": 16, "memory_bytes": 500_000},
    },
    env={"LLMOS_MEMORY_BYTES": "1500000"},
)
def test_a_model_that_waits_for_memory_gets_what_a_busy_one_does_not_use(client):
    endless = {**SAMPLING, "max_tokens": 240}
    pid = spawn(client, model="busy", sampling=endless)
    wait_for_tokens(client, pid, 5)
    assert len(run(client, "hello <x>", model="other", sampling=SAMPLING)) == 120
    assert info(client, pid).exit is None or len(text_of(client, pid)) == 240
    assert pool_of(client, "busy")[0] < 4096 and len(text_of(client, pid)) == 240


@pytest.mark.llmos(
    models={"busy": {**POOL, "pages": 64, "step_seconds": 0.001}},
    env={"LLMOS_LOOK_SECONDS": "0.01"},
)
@pytest.mark.parametrize("changes", [{"pool_tokens": 1 << 14}, {"layout": "split", "slots": 4}])
def test_a_pool_that_was_chosen_by_hand_stays(client, changes):
    """It is mostly empty, then too small, and several run at a time: reasons enough to change another one."""
    run(client, sampling=SAMPLING)
    resize(client, "busy", **changes)
    chosen = pool_of(client, "busy")
    sampling = {**SAMPLING, "max_tokens": 230}
    for _ in range(8):
        run(client, sampling=sampling, private=True)
    pids = [spawn(client, prompt, sampling=sampling, private=True) for prompt in prompts(9)]
    assert all(len(text_of(client, pid)) == 230 for pid in pids)
    assert pool_of(client, "busy")[:2] == chosen[:2]
    assert "layout" not in changes or pool_of(client, "busy") == chosen


@pytest.mark.llmos(
    models={"busy": {**POOL, "most_pages": 32, "step_seconds": 0.002}},
    env={"LLMOS_LOOK_SECONDS": "0.02"},
)
def test_what_there_is_no_memory_for_is_not_asked_for_time_and_again(client):
    sampling = {**SAMPLING, "max_tokens": 230}
    alone = run_alone(client, prompts(16), sampling=sampling)
    pids = [spawn(client, prompt, sampling=sampling, private=True) for prompt in prompts(16)]
    assert [text_of(client, pid) for pid in pids] == alone
    assert 1 <= sum("cannot be changed: no memory for" in line for line in said(client)) <= 6
