"""Memory before a model is loaded: estimates, refusals, eviction."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon import residency
from llmos_shell.daemon.events import EventLog
from llmos_shell.daemon.host import Memory
from llmos_shell.daemon.residency import Residency, check_memory
from llmos_shell.daemon.supervisor import load_message

ENTRY = ModelEntry("big", "/big.gguf", pool_tokens=1000)
MIB = 1 << 20


class Loaded:
    """A loaded model that occupies 100 MiB."""

    def __init__(self, name, used, busy=False):
        self.entry, self.used, self.busy = ModelEntry(name, f"/{name}.gguf"), used, busy
        self.workshop = SimpleNamespace(pager=None, close=self.close, rss=lambda: 100 * MIB)
        self.tokenizer = SimpleNamespace(fail=lambda error: None)
        self.loaded = True

    async def close(self):
        self.loaded = False


def core():
    async def read(query):
        return query()

    return SimpleNamespace(
        scheduling=SimpleNamespace(dropped=lambda one: None), events=EventLog(), now=lambda: 0.0, read=read
    )


@pytest.fixture
def machine(monkeypatch):
    """A machine with 50 MiB free besides the models given to it."""
    models: list[Loaded] = []
    info = SimpleNamespace(context=2048, kv_bytes_per_token=lambda kind: 1000)
    monkeypatch.setattr(residency, "read_gguf", lambda path: info)
    free = lambda: 50 * MIB + sum(100 * MIB for one in models if not one.loaded)  # noqa: E731
    monkeypatch.setattr(residency.host, "memory", lambda: Memory(10_000 * MIB, free()))
    return models


def test_the_estimate_is_weights_and_kv_and_a_tenth(machine):
    check_memory(ENTRY, 44 * MIB, gguf(2048, 1000))
    with pytest.raises(LlmosError, match=r"big needs about 55 MiB, 50 MiB of memory are available") as error:
        check_memory(ENTRY, 50 * MIB, gguf(2048, 1000))
    assert error.value.code == Code.ENOMEM


async def test_idle_models_make_room_least_recently_used_first(machine):
    machine += [Loaded("new", 3.0), Loaded("busy", 1.0, busy=True), Loaded("old", 2.0)]
    models = Residency(core())
    models._conductors = {one.entry.name: one for one in machine}
    await models._make_memory(ENTRY, 100 * MIB)
    assert [one.entry.name for one in machine if one.loaded] == ["new", "busy"]
    with pytest.raises(LlmosError) as error:
        await models._make_memory(ENTRY, 1000 * MIB)
    assert error.value.code == Code.ENOMEM
    assert [one.entry.name for one in machine if one.loaded] == ["new", "busy"]


def gguf(context, per_token=131072):
    return SimpleNamespace(context=context, kv_bytes_per_token=lambda kind: per_token)


@pytest.mark.parametrize("fields", [{}, {"context": 8192}, {"layout": "split", "slots": 4}, {"pool_tokens": 20000}])
def test_the_estimate_is_the_plan_of_the_kernel(monkeypatch, fields):
    from llmos_kernel_llamacpp.planning import plan_kv

    entry = ModelEntry("big", "/big.gguf", **fields)
    monkeypatch.setattr(residency.host, "memory", lambda: Memory(1 << 40, 16 << 30))
    cells = plan_kv(load_message(entry), 8192, 131072, 15 << 30).cells
    check_memory(entry, 1 << 30, gguf(8192))
    needed = int(((1 << 30) + cells * 131072) * residency.OVERHEAD)
    monkeypatch.setattr(residency.kernels, "pool_bytes", lambda *_: cells * 131072)
    monkeypatch.setattr(residency.host, "memory", lambda: Memory(1 << 40, needed))
    check_memory(entry, 1 << 30, gguf(8192))
    monkeypatch.setattr(residency.host, "memory", lambda: Memory(1 << 40, needed - 1))
    with pytest.raises(LlmosError, match="needs about"):
        check_memory(entry, 1 << 30, gguf(8192))


async def test_a_model_that_became_busy_meanwhile_is_not_unloaded(machine):
    first, second = Loaded("first", 1.0), Loaded("second", 2.0)
    machine += [first, second]

    async def close():
        first.loaded, second.busy = False, True

    first.workshop.close = close
    models = Residency(core())
    models._conductors = {one.entry.name: one for one in machine}
    with pytest.raises(LlmosError):
        await models._make_memory(ENTRY, 200 * MIB)
    assert second.loaded
