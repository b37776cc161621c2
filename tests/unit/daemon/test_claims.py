"""What one model is counted to have, whatever becomes of its pool and its place."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.daemon.machine import host
from llmos_shell.daemon.memory.offload import Offload
from llmos_shell.daemon.models.budget import RAM
from llmos_shell.daemon.models.claims import Claim, Claims
from llmos_shell.daemon.models.needs import OVERHEAD, Need

MIB = 1 << 20
POOL = 100 * MIB
OFFLOAD = Offload(
    9, 10, (5, 4), {"gpu0": 700 * MIB, "gpu1": 600 * MIB}, 200 * MIB, "", gpu_kv={"gpu0": POOL // 2, "gpu1": POOL // 4}
)
SPLIT = Need(300 * MIB, OFFLOAD.gpu_bytes, OFFLOAD, without_gpus=900 * MIB, pool=POOL)
ALONE = Need(900 * MIB)


@given(st.lists(st.integers(0, 10 * POOL), max_size=8), st.sampled_from([SPLIT, ALONE]), st.booleans())
def test_a_pool_that_is_as_it_was_takes_what_it_took(sizes, need, on_gpu):
    claim = Claim(need)
    claim.landed(POOL, on_gpu=on_gpu)
    before = claim.bytes
    for size in sizes:
        claim.has(size)
        assert all(held >= 0 for held in claim.bytes.values())
    claim.has(POOL)
    assert claim.bytes == before


def test_a_pool_grows_where_its_kv_is():
    claim = Claim(SPLIT)
    claim.landed(POOL, on_gpu=True)
    claim.has(2 * POOL)
    host = int(POOL // 4 * OVERHEAD)
    assert claim.bytes == {RAM: 300 * MIB + host, "gpu0": 750 * MIB, "gpu1": 625 * MIB}
    claim.landed(2 * POOL, on_gpu=False)
    assert claim.bytes == {RAM: 900 * MIB + int(POOL * OVERHEAD)}
    claim.landed(POOL, on_gpu=True)
    claim.reserved = POOL
    assert claim.bytes["gpu0"] == 750 * MIB


def test_who_waits_for_one_that_is_being_loaded_is_not_refused_for_what_that_has_already(monkeypatch):
    """The machine has less available then, but not for long; the same holds for one that is just ending."""
    monkeypatch.setenv("LLMOS_MEMORY_BYTES", str(14 << 30))
    claims = Claims(SimpleNamespace(), {}, set())
    claims.claim("a", Need(10 << 30)).workshop = SimpleNamespace(rss=lambda: 9 << 30, occupant=1, host_pid=None)
    monkeypatch.setattr(host, "memory", lambda: host.Memory(16 << 30, (16 - 9) << 30))
    verdict = claims.verdict("b", Need(10 << 30))
    assert verdict.wait and verdict.blockers == ("a",)
    assert claims.free_bytes() == 4 << 30


@pytest.mark.parametrize("need", [SPLIT, ALONE])
def test_a_new_plan_has_the_pool_of_the_entry(need):
    claim = Claim(SPLIT)
    claim.landed(POOL, on_gpu=False)
    claim.has(3 * POOL)
    claim.plan(need)
    assert claim.bytes == need.bytes
    claim.landed(2 * POOL, on_gpu=True)
    assert claim.bytes == need.bytes
