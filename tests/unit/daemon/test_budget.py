"""Budgets of several devices: who makes way, and what of a GPU may be had at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.memory.vram import Tenant, budgets, left
from llmos_shell.daemon.models.budget import RAM, Held, Verdict, decide

GIB = 1 << 30


def held(key: str, *, busy: bool = False, pinned: bool = False, **sizes: int) -> Held:
    """An idle one that may go."""
    return Held(key, sizes, busy, pinned, idle_seconds=60.0, load_seconds=1.0)


def test_only_who_has_some_of_the_device_that_is_short_makes_way() -> None:
    loaded = [held("a", ram=50), held("b", ram=10, gpu0=60), held("c", ram=10, gpu1=60)]
    budget = {RAM: 200, "gpu0": 100, "gpu1": 100}
    assert decide({RAM: 10, "gpu0": 50}, budget, loaded).evict == ("b",)
    assert decide({RAM: 10, "gpu1": 50}, budget, loaded).evict == ("c",)
    assert decide({RAM: 140}, budget, loaded).evict == ("a",)
    assert decide({RAM: 10, "gpu0": 40}, budget, loaded) == Verdict()


def test_one_that_covers_both_shortages_goes_rather_than_two() -> None:
    loaded = [held("ram", ram=50), held("gpu", gpu0=50), held("both", ram=50, gpu0=50)]
    assert decide({RAM: 50, "gpu0": 50}, {RAM: 100, "gpu0": 100}, loaded).evict == ("both",)


def test_only_busy_models_on_the_device_that_is_short_are_waited_for() -> None:
    loaded = [held("a", busy=True, ram=50), held("b", busy=True, ram=1, gpu0=60)]
    found = decide({RAM: 10, "gpu0": 50}, {RAM: 200, "gpu0": 100}, loaded)
    assert (found.wait, found.blockers, found.short) == (True, ("b",), ("gpu0",))


def test_a_gpu_that_is_too_small_is_named_with_the_numbers() -> None:
    loaded = [held("a", pinned=True, gpu0=3 * GIB)]
    with pytest.raises(LlmosError, match=r"about 6,144 MiB of gpu0, there are 8,192 MiB.*unpin one of a") as error:
        decide({RAM: 1, "gpu0": 6 * GIB}, {RAM: 10, "gpu0": 8 * GIB}, loaded)
    assert error.value.code is Code.ENOMEM


def test_a_gpu_that_nobody_can_tell_of_is_no_reason_to_unload() -> None:
    assert decide({RAM: 1, "gpu0": 6 * GIB}, {RAM: 10}, [held("a", gpu0=9 * GIB)]) == Verdict()


def test_nobody_makes_way_on_a_device_of_which_nothing_is_needed() -> None:
    loaded = [held("a", ram=50, gpu0=60)]
    assert decide({RAM: 10, "gpu0": 0}, {RAM: 100, "gpu0": 40}, loaded) == Verdict()


def test_one_that_came_last_may_spare_others() -> None:
    loaded = [held("a", ram=9), held("b", gpu0=9), Held("all", {RAM: 10, "gpu0": 10}, False, False, 60.0, 9.0)]
    assert decide({RAM: 10, "gpu0": 10}, {RAM: 19, "gpu0": 19}, loaded).evict == ("all",)


DEVICES = (RAM, "gpu0", "gpu1")
SIZES = st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 20))
OFTEN, SELDOM = st.sampled_from((True, True, True, False)), st.sampled_from((True, False, False, False))
ONE = st.tuples(
    SIZES, SELDOM, SELDOM, OFTEN.map(lambda idle: 60.0 if idle else 0.0), st.floats(0.0, 40.0), st.floats(0.01, 80.0)
)
LOADED = st.lists(ONE, min_size=2, max_size=6).map(lambda found: [Held(f"m{n}", *one) for n, one in enumerate(found)])
SLACK = st.dictionaries(st.sampled_from(DEVICES), st.integers(-3, 10), min_size=1)
"""What is free of each device; less than 0 where models took more than they were promised."""


def _fits(needed: Mapping[str, int], budget: Mapping[str, int], loaded: Sequence[Held]) -> bool:
    return all(
        size <= budget[device] - sum(one.bytes.get(device, 0) for one in loaded)
        for device, size in needed.items()
        if size and device in budget
    )


@given(st.dictionaries(st.sampled_from(DEVICES), st.floats(0.0, 1.2), min_size=1), SLACK, LOADED)
def test_every_verdict_is_sound_and_asks_for_nothing_needless(
    shares: dict[str, float], slack: dict[str, int], loaded: list[Held]
) -> None:
    """What is needed is a share of what could come free, so that most cases are neither trivial nor vain."""
    movable = {gpu: sum(one.bytes.get(gpu, 0) for one in loaded if not one.pinned) for gpu in DEVICES}
    needed = {gpu: int(max(0, slack.get(gpu, 0) + movable[gpu]) * share) for gpu, share in shares.items()}
    budget = {device: free + sum(one.bytes.get(device, 0) for one in loaded) for device, free in slack.items()}
    by_key = {one.key: one for one in loaded}
    try:
        found = decide(needed, budget, loaded)
    except LlmosError:
        assert not _fits(needed, budget, [one for one in loaded if one.pinned]), (
            "everybody's end would have been enough"
        )
        return
    gone = [by_key[key] for key in found.evict]
    rest = [one for one in loaded if one not in gone]
    for one in gone:
        assert not one.busy and not one.pinned and one.lingers <= 0
    if found.wait:
        movable = [one for one in loaded if not one.pinned and not one.busy and one.lingers <= 0]
        assert not gone and not _fits(needed, budget, [one for one in loaded if one not in movable])
        assert all(by_key[key].busy and not by_key[key].pinned for key in found.blockers)
        return
    assert _fits(needed, budget, rest), "never over budget on any device"
    for fewer in range(len(gone)):
        for some in combinations(gone, fewer):
            assert not _fits(needed, budget, [one for one in loaded if one not in some]), "some of them were enough"


def test_what_was_promised_is_not_free_though_the_driver_says_so() -> None:
    loading = Tenant("a", {"gpu0": 5 * GIB})
    assert left({"gpu0": 8 * GIB}, [loading]) == {"gpu0": 3 * GIB}
    assert budgets({"gpu0": 8 * GIB}, [loading]) == {"gpu0": 8 * GIB}
    there = Tenant("a", {"gpu0": 5 * GIB}, loaded=True)
    assert left({"gpu0": 3 * GIB}, [there]) == {"gpu0": 3 * GIB}
    half = Tenant("a", {"gpu0": 5 * GIB}, {"gpu0": 2 * GIB})
    assert left({"gpu0": 6 * GIB}, [half]) == {"gpu0": 3 * GIB}


def test_what_is_measured_counts_where_it_is_more_than_was_promised() -> None:
    large = Tenant("a", {"gpu0": 2 * GIB}, {"gpu0": 3 * GIB}, loaded=True)
    assert large.gpus == {"gpu0": 3 * GIB}
    assert left({"gpu0": 5 * GIB}, [large]) == {"gpu0": 5 * GIB}
    assert budgets({"gpu0": 5 * GIB}, [large]) == {"gpu0": 8 * GIB}


def test_what_cannot_be_told_is_missing_and_not_nothing() -> None:
    assert budgets({"gpu0": None, "gpu1": 0}, [Tenant("a", {"gpu0": 5})]) == {"gpu1": 0}


SMALL = st.dictionaries(st.sampled_from(("gpu0", "gpu1")), st.integers(0, 9))


@given(
    st.dictionaries(st.sampled_from(("gpu0", "gpu1")), st.one_of(st.none(), st.integers(0, 30))),
    st.lists(st.builds(Tenant, st.just("m"), SMALL, SMALL, st.booleans()), max_size=4),
)
def test_what_is_left_is_never_more_than_the_driver_has(free: dict[str, int | None], tenants: list[Tenant]) -> None:
    found = left(free, tenants)
    assert set(found) == {gpu for gpu, size in free.items() if size is not None}
    for gpu, size in found.items():
        promised = sum(one.claimed.get(gpu, 0) for one in tenants)
        assert 0 <= size <= (free[gpu] or 0)
        assert size + promised <= max(promised, budgets(free, tenants)[gpu])
