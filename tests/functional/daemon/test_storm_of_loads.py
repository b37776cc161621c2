"""Loads, unloads, other pools, changed entries and dying workers, all at once: in the end the claims come out even."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.errors import LlmosError
from llmos_shell.testing.clients import code_of, run
from llmos_shell.testing.daemon import write_models
from llmos_shell.testing.retry import retry_until

SOAK = int(os.environ.get("LLMOS_SOAK", "2"))
ACTORS, ACTIONS = 4, 20
BUDGET = 2_500_000
NAMES = ("a", "b", "c")
TOKENS = 512
ONE = {"pages": TOKENS // 16, "page_tokens": 16, "slots": 4, "context": 256, "can_resize": True, "end_after": 20}


def describe(home, traps, **changes):
    """Three models in a budget for two, each with a trap for its next load, and one that needs all of it."""
    models = {name: {**ONE, "memory_bytes": 1_000_000, "trap": str(traps / name)} for name in NAMES}
    models["a"] |= changes
    draft = Path(mkdtemp(dir=traps))
    write_models(draft, **models, whole={**ONE, "memory_bytes": BUDGET - 1000})
    for file in (draft / "config").iterdir():
        file.replace(home / "config" / file.name)  # at no moment is one of them half written


def act(daemon, client, home, traps, chance):
    """Something that may fail, and must leave nothing behind."""
    model = chance.choice(NAMES)
    pool = chance.choice([TOKENS, 1024, 5000, 20_000, 50_000])

    def kill():
        workers = psutil.Process(daemon.pid).children()
        if workers:
            chance.choice(workers).kill()

    def give_up():
        with ThreadPoolExecutor(1) as other, daemon.connect() as impatient:
            other.submit(code_of, impatient, abi.MODEL_LOAD, abi.ModelName(model))
            client.call(abi.MODEL_LIST, abi.Nothing())

    actions = [
        lambda: client.call(abi.MODEL_LOAD, abi.ModelName(model)),
        lambda: client.call(abi.MODEL_LOAD, abi.ModelName(model)),
        lambda: client.call(abi.MODEL_UNLOAD, abi.ModelName(model)),
        lambda: client.call(abi.MODEL_RESIZE, abi.ResizePool(model, pool)),
        lambda: run(client, f"{chance.random()} <x>", model=model),
        lambda: describe(home, traps, max_batch=chance.randrange(500, 510)),
        lambda: (traps / model).touch(),
        kill,
        give_up,
    ]
    with suppress(LlmosError, psutil.NoSuchProcess):
        chance.choice(actions)()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 1 + max(1, SOAK // 10)))
@pytest.mark.llmos(env={"LLMOS_MEMORY_BYTES": str(BUDGET), "LLMOS_PATIENCE_SECONDS": "0.5"})
def test_claims_come_out_even(daemon, client, llmos_home, tmp_path, seed):
    describe(llmos_home, tmp_path)
    first = client.call(abi.MODEL_LOAD, abi.ModelName("a")).estimated_bytes

    def play(number):
        chance = random.Random(f"{seed} {number}")
        with daemon.connect() as own:
            for _ in range(ACTIONS):
                act(daemon, own, llmos_home, tmp_path, chance)

    with ThreadPoolExecutor(ACTORS) as pool:
        list(pool.map(play, range(ACTORS)))

    def plan():
        return client.call(abi.MODEL_PLAN, abi.ModelName("whole"))

    def settled():
        """Those that are loaded, and no others, have memory; whoever made way may still be leaving."""
        loaded = {one.entry.name for one in client.call(abi.MODEL_LIST, abi.Nothing()) if one.worker}
        return set(plan().evict) == loaded and len(psutil.Process(daemon.pid).children()) == len(loaded)

    retry_until(settled)
    for one in client.call(abi.MODEL_LIST, abi.Nothing()):
        if one.worker:
            pool = client.call(abi.MODEL_RESIZE, abi.ResizePool(one.entry.name, TOKENS))
            assert pool.estimated_bytes == first
            client.call(abi.MODEL_UNLOAD, abi.ModelName(one.entry.name))
    assert not plan().evict and not plan().wait_for and not psutil.Process(daemon.pid).children()
