"""What models are counted to have of the memory, whatever becomes of their loads, their pools and their workers."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil
import pytest

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.errors import Code
from llmos_shell.testing.clients import code_of, run, spawn, wait_for_tokens
from llmos_shell.testing.daemon import write_models
from llmos_shell.testing.retry import retry_until

POOL = {"pages": 32, "page_tokens": 16, "slots": 4, "context": 256, "can_resize": True, "end_after": 20}
ONE = {**POOL, "memory_bytes": 1_000_000}


def row(client, model):
    return next(one for one in client.call(abi.MODEL_LIST, abi.Nothing()) if one.entry.name == model)


def load(client, model):
    return client.call(abi.MODEL_LOAD, abi.ModelName(model))


def unload(client, model):
    client.call(abi.MODEL_UNLOAD, abi.ModelName(model))


def resize(client, model, **changes):
    return client.call(abi.MODEL_RESIZE, abi.ResizePool(model, **changes))


def claimed(client, model):
    return row(client, model).estimated_bytes


def said(client, text):
    return [event.text for event in client.stream(abi.SYS_DMESG, abi.Dmesg()) if text in event.text]


@contextmanager
def calling(daemon, call, *args, **more):
    """Somebody else's call, under way; gives its future."""
    with daemon.connect() as client, ThreadPoolExecutor(1) as pool:
        yield pool.submit(call, client, *args, **more)


@contextmanager
def frozen(client, model):
    """Its worker hears nothing until it is thawed, which this gives, or the end."""
    worker = psutil.Process(row(client, model).worker)
    worker.suspend()
    try:
        yield worker.resume
    finally:
        with suppress(psutil.NoSuchProcess):
            worker.resume()


# -- pools -------------------------------------------------------------------------------------------------------------


FIELDS = """
[models.fields]
path = "fields.model"
kernel = "scripted"
slots = 4
pool_tokens = 512
context = 256
options = { can_resize = true, end_after = 20, trap = "TRAP" }
"""


@pytest.mark.parametrize("tokens", [1 << 16, 256])
def test_a_pool_that_cannot_be_had_again_is_not_counted(client, llmos_home, tmp_path, tokens):
    trap = tmp_path / "trap"
    (llmos_home / "config" / "fields.model").write_text("scripted")
    with (llmos_home / "config" / "models.toml").open("a") as file:
        file.write(FIELDS.replace("TRAP", str(trap)))
    load(client, "fields")
    before = claimed(client, "fields")
    resize(client, "fields", pool_tokens=tokens)
    assert claimed(client, "fields") != before
    trap.touch()
    os.kill(row(client, "fields").worker, signal.SIGKILL)
    run(client, model="fields")
    assert row(client, "fields").pages == 32 and claimed(client, "fields") == before


@pytest.mark.llmos(models={"a": POOL})
def test_what_is_counted_is_the_pool_that_a_fresh_worker_has(client):
    """Its kernel may see things its own way: here options say how large a pool is."""
    load(client, "a")
    before = claimed(client, "a")
    resize(client, "a", pool_tokens=1 << 16)
    os.kill(row(client, "a").worker, signal.SIGKILL)
    run(client)
    assert row(client, "a").pages == 32 and claimed(client, "a") == before


@pytest.mark.llmos(models={"a": {**POOL, "resize_seconds": 3600}})
def test_a_pool_whose_worker_died_over_it_is_not_counted(client, daemon):
    load(client, "a")
    before = claimed(client, "a")
    with calling(daemon, code_of, abi.MODEL_RESIZE, abi.ResizePool("a", 1 << 16)) as code:
        retry_until(lambda: claimed(client, "a") > before)
        os.kill(row(client, "a").worker, signal.SIGKILL)
        assert code.result() == Code.EIO
    run(client)
    assert claimed(client, "a") == before


@pytest.mark.llmos(models={"a": POOL})
def test_a_worker_that_died_before_it_heard_of_another_pool_is_no_fault_of_the_daemon(client, daemon):
    load(client, "a")
    before = claimed(client, "a")
    with frozen(client, "a"), calling(daemon, code_of, abi.MODEL_RESIZE, abi.ResizePool("a", 1 << 16)) as code:
        retry_until(lambda: claimed(client, "a") > before)
        os.kill(row(client, "a").worker, signal.SIGKILL)
        assert code.result() == Code.EIO
    run(client)
    assert claimed(client, "a") == before
    events = client.stream(abi.SYS_DMESG, abi.Dmesg())
    assert not [event.text for event in events if (event.source, event.level) == ("daemon", "error")]


@pytest.mark.llmos(
    models={"a": ONE, "b": ONE, "c": ONE, "large": {**POOL, "memory_bytes": 2_400_000}},
    env={"LLMOS_MEMORY_BYTES": "2500000"},
)
def test_a_model_whose_pool_is_being_changed_does_not_make_way(client, daemon):
    """It has to wait for the memory of one whose worker takes its time to end."""
    load(client, "a")
    load(client, "b")
    retry_until(lambda: client.call(abi.MODEL_PLAN, abi.ModelName("large")).evict)  # both linger no more
    with frozen(client, "b") as thaw, calling(daemon, resize, "a", pool_tokens=50_000) as resized:
        retry_until(lambda: row(client, "b").worker is None)
        with calling(daemon, load, "c") as loaded:
            retry_until(lambda: said(client, "c waits for memory that") or said(client, "a makes room for c"))
            thaw()
            assert resized.result().pages == 3125
            assert loaded.result().worker


# -- loads and workers -------------------------------------------------------------------------------------------------


@pytest.mark.llmos(models={"a": ONE, "b": ONE}, env={"LLMOS_MEMORY_BYTES": "1500000"})
def test_an_entry_that_changed_to_what_cannot_be_loaded_takes_no_memory(client, llmos_home):
    load(client, "a")
    write_models(llmos_home, a={**POOL, "memory_bytes": 9_000_000}, b=ONE)
    assert code_of(client, abi.MODEL_LOAD, abi.ModelName("a")) == Code.ENOMEM
    plan = client.call(abi.MODEL_PLAN, abi.ModelName("b"))
    assert (plan.evict, plan.wait_for) == ((), ())


@pytest.mark.llmos(models={"a": ONE, "b": ONE}, env={"LLMOS_MEMORY_BYTES": "1500000"})
def test_a_model_that_is_loaded_again_before_its_worker_has_gone_keeps_its_claim(client, daemon):
    load(client, "a")
    with frozen(client, "a") as thaw, calling(daemon, unload, "a") as unloaded:
        retry_until(lambda: row(client, "a").worker is None)
        with calling(daemon, load, "a") as loaded:
            retry_until(lambda: row(client, "a").worker or row(client, "a").loading is not None)
            thaw()
            unloaded.result()
            loaded.result()
    retry_until(lambda: client.call(abi.MODEL_PLAN, abi.ModelName("b")).evict == ("a",))


@pytest.mark.llmos(models={"a": {**POOL, "load_seconds": 0.3}})
def test_a_model_that_is_unloaded_while_it_is_loaded_again_leaves_nothing_behind(client, daemon):
    worker, workers = load(client, "a").worker, psutil.Process(daemon.pid).children
    argv = psutil.Process(worker).cmdline()[:-1]  # the last word is a descriptor
    os.kill(worker, signal.SIGKILL)
    fresh_ones = lambda: [one for one in workers() if one.pid != worker and one.cmdline()[:-1] == argv]  # noqa: E731
    (fresh,) = retry_until(fresh_ones)  # before it runs that, the daemon waits for it
    fresh.suspend()
    unload(client, "a")
    assert not workers()


# -- entries that change while somebody runs ---------------------------------------------------------------------------


@pytest.mark.llmos(models={"a": {"pages": 4096, "step_seconds": 0.005}})
def test_a_busy_model_whose_entry_has_changed_is_shown_as_it_is(client, llmos_home):
    wait_for_tokens(client, spawn(client, "x"))
    write_models(llmos_home, a={"end_after": 7})
    assert load(client, "a").worker == row(client, "a").worker is not None
