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

ENTRY = ModelEntry("big", "/big.gguf", pool_tokens=1000)
MIB = 1 << 20


class Loaded:
    """A loaded model that occupies 100 MiB."""

    def __init__(self, name, used, busy=False):
        self.entry, self.used, self.busy = ModelEntry(name, f"/{name}.gguf"), used, busy
        self.workshop = SimpleNamespace(pager=None, close=self.close, rss=lambda: 100 * MIB)
        self.loaded = True

    async def close(self):
        self.loaded = False


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
    check_memory(ENTRY, 44 * MIB)
    with pytest.raises(LlmosError, match=r"big needs about 56 MiB, 50 MiB of memory are available") as error:
        check_memory(ENTRY, 50 * MIB)
    assert error.value.code == Code.ENOMEM


async def test_idle_models_make_room_least_recently_used_first(machine):
    machine += [Loaded("new", 3.0), Loaded("busy", 1.0, busy=True), Loaded("old", 2.0)]
    models = Residency(SimpleNamespace(events=EventLog(), now=lambda: 0.0))
    models._conductors = {one.entry.name: one for one in machine}
    await models._make_memory(ENTRY, 100 * MIB)
    assert [one.entry.name for one in machine if one.loaded] == ["new", "busy"]
    with pytest.raises(LlmosError) as error:
        await models._make_memory(ENTRY, 1000 * MIB)
    assert error.value.code == Code.ENOMEM
    assert [one.entry.name for one in machine if one.loaded] == ["new", "busy"]
