"""How large a pool should be, and in which layout."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.daemon.memory.sizing import (
    FIRST_WAIT,
    LONGEST_WAIT,
    MOST_SLOTS,
    QUIET_LOOKS,
    SHORT_LOOKS,
    TRIAL_LOOKS,
    Bounds,
    Look,
    Pool,
    Sizing,
    changed,
    decide,
    least,
    refused,
    squeeze,
)

CONTEXT = 64
SHARED = Pool(256, 8, "shared")
SPLIT = Pool(8 * CONTEXT, 8, "split")


def bounds(first: Pool = SHARED, spare: int = 10_000, **more: bool) -> Bounds:
    return Bounds(first, CONTEXT, spare, **more)


def after(pool: Pool, looks: list[Look], limits: Bounds) -> tuple[Sizing, list[Pool]]:
    """The pools that these looks lead to, one after each."""
    state, pools = Sizing(), []
    for look in looks:
        state, pool = decide(state, pool, look, limits)
        pools.append(pool)
    return state, pools


POOLS = st.one_of(
    st.builds(lambda pages, slots: Pool(pages, slots, "shared"), st.integers(CONTEXT, 2000), st.integers(1, 64)),
    st.builds(lambda slots, more: Pool(slots * CONTEXT + more, slots, "split"), st.integers(1, 64), st.integers(0, 50)),
)
LOOKS = st.builds(
    Look, st.integers(0, 3), st.integers(0, 3), st.integers(0, 1500), st.integers(0, 200), st.integers(0, 900),
    st.integers(0, 90), st.floats(0, 2),
)  # fmt: skip


@given(POOLS, st.lists(LOOKS, max_size=300), st.integers(0, 3000), st.booleans(), st.booleans())
def test_every_pool_holds_a_context_and_fits_into_the_memory(
    first: Pool, looks: list[Look], spare: int, sizes: bool, layouts: bool
) -> None:
    state, pool, left = Sizing(), first, spare
    for look in looks:
        before = pool
        state, pool = decide(state, pool, look, Bounds(first, CONTEXT, left, sizes, layouts))
        assert pool.pages >= CONTEXT * (pool.slots if pool.layout == "split" else 1)
        assert pool.slots >= 1 and pool.pages - before.pages <= left
        assert sizes or pool.pages == first.pages
        assert layouts or pool.layout == first.layout
        left -= pool.pages - before.pages


def test_a_pool_that_is_short_for_a_while_grows() -> None:
    short = Look(short_pages=5, used_pages=256)
    _, pools = after(SHARED, [short] * SHORT_LOOKS, bounds())
    assert pools == [SHARED] * (SHORT_LOOKS - 1) + [Pool(512, 8, "shared")]
    assert after(SHARED, [short, short, Look(), short, short], bounds())[1] == [SHARED] * 5
    assert after(SHARED, [short] * 20, bounds(sizes=False))[1] == [SHARED] * 20
    assert after(SHARED, [short] * 20, bounds(spare=0))[1] == [SHARED] * 20


def test_slots_grow_where_slots_are_lacking() -> None:
    short = Look(short_slots=5, used_pages=100)
    assert after(SHARED, [short] * SHORT_LOOKS, bounds())[1][-1] == Pool(256, 16, "shared")
    assert after(SPLIT, [short] * SHORT_LOOKS, bounds(SPLIT))[1][-1] == Pool(16 * CONTEXT, 16, "split")
    assert after(SHARED, [short] * 100, bounds())[1][-1].slots == MOST_SLOTS


def test_what_has_grown_shrinks_when_it_is_quiet_for_long() -> None:
    quiet = Look(used_pages=10)
    grown = Pool(1024, 8, "shared")
    _, pools = after(grown, [quiet] * QUIET_LOOKS, bounds())
    assert pools[-2:] == [grown, Pool(512, 8, "shared")]
    assert after(grown, [quiet] * 10 * QUIET_LOOKS, bounds())[1][-1] == SHARED
    busy = Look(used_pages=900)
    assert after(grown, [*[quiet] * (QUIET_LOOKS - 1), busy, quiet], bounds())[1][-1] == grown


def run_trial(pool: Pool, speeds: dict[str, float], looks: int, **more: int) -> tuple[list[Pool], int]:
    """Pools over so many looks of 4 sequences at a time, where the layouts have these speeds; and how many changes."""
    state, pools = Sizing(), [pool]
    for _ in range(looks):
        look = Look(used_pages=100, rows=400, steps=100, seconds=400 / speeds[pools[-1].layout], **more)
        state, chosen = decide(state, pools[-1], look, bounds(pool))
        pools.append(chosen)
    return pools, sum(left != right for left, right in itertools.pairwise(pools))


def test_the_quicker_layout_is_found_and_kept() -> None:
    wide = Pool(8 * CONTEXT, 8, "shared")
    pools, changes = run_trial(wide, {"shared": 100, "split": 150}, 150)
    assert pools[FIRST_WAIT - 1].layout == "shared" and pools[-1].layout == "split" and changes == 1
    pools, changes = run_trial(SPLIT, {"shared": 150, "split": 100}, 150)
    assert pools[-1].layout == "shared" and changes == 1


def test_a_layout_that_is_no_quicker_is_left_again_and_tried_less_and_less() -> None:
    wide = Pool(8 * CONTEXT, 8, "shared")
    pools, changes = run_trial(wide, {"shared": 100, "split": 105}, LONGEST_WAIT)
    assert changes % 2 == 0 and 2 <= changes <= 16
    assert sum(pool.layout == "split" for pool in pools) <= changes // 2 * (TRIAL_LOOKS + 1)


def test_a_pool_of_shared_pages_is_not_split() -> None:
    wide = Pool(8 * CONTEXT, 8, "shared")
    assert run_trial(wide, {"shared": 100, "split": 150}, 200, shared_pages=50)[1] == 0
    narrow = Pool(2 * CONTEXT, 8, "shared")
    assert run_trial(narrow, {"shared": 100, "split": 150}, 200)[1] == 0, "it would not hold those who run"


def test_a_trial_ends_when_the_load_is_another_one() -> None:
    state, pool = Sizing(wait=0), Pool(8 * CONTEXT, 8, "shared")
    steady = Look(used_pages=100, rows=400, steps=100, seconds=4)
    for _ in range(TRIAL_LOOKS):
        state, pool = decide(state, pool, steady, bounds())
    assert pool.layout == "split"
    state, pool = decide(state, pool, Look(rows=100, steps=100, seconds=1), bounds())
    assert pool.layout == "shared" and state.wait == FIRST_WAIT


def test_after_a_refused_layout_it_waits() -> None:
    assert refused(Sizing(), SHARED, SPLIT).wait == 2 * FIRST_WAIT
    assert refused(Sizing(backoff=LONGEST_WAIT), SHARED, SPLIT).wait == LONGEST_WAIT


def attempts(looks: int, had_at: int | None = None) -> list[int]:
    """At which looks of a pool that is always short, and is refused but once, it was to grow."""
    state, pool, found = Sizing(), SHARED, []
    short = Look(short_pages=5, used_pages=256)
    for number in range(looks):
        state, wanted = decide(state, pool, short, bounds(layouts=False))
        if wanted != pool:
            had = len(found) == had_at
            state = changed(state, pool, wanted) if had else refused(state, pool, wanted)
            pool = wanted if had else pool
            found.append(number)
    return found


def test_a_refused_size_is_asked_for_less_and_less() -> None:
    times = attempts(4 * LONGEST_WAIT)
    pauses = [right - left for left, right in itertools.pairwise(times)]
    assert pauses == sorted(pauses) and pauses[0] >= FIRST_WAIT and pauses[-1] == LONGEST_WAIT


def test_refusals_are_forgotten_once_it_has_grown() -> None:
    times = attempts(4 * LONGEST_WAIT, had_at=3)
    assert times[4] - times[3] == SHORT_LOOKS, "it has grown: nothing was refused since"
    assert times[5] - times[4] == times[1] - times[0]


def test_a_trial_does_not_make_it_forget_what_was_refused() -> None:
    held = refused(Sizing(), SHARED, Pool(512, 8, "shared"))
    after_trial = refused(held, SHARED, SPLIT)
    assert (after_trial.hold, after_trial.refusals) == (held.hold, 1)


@given(POOLS, st.integers(0, 3000))
def test_the_least_pool_is_enough(pool: Pool, used: int) -> None:
    small = least(pool, min(used, pool.pages), CONTEXT)
    assert min(used, pool.pages) <= small.pages <= pool.pages
    assert small.pages >= CONTEXT * (small.slots if small.layout == "split" else 1)


def test_pools_are_squeezed_only_where_that_helps() -> None:
    spare = {"a": 10, "b": 30, "c": 20}
    assert squeeze(25, spare) == ("b",) and squeeze(45, spare) == ("b", "c")
    assert squeeze(61, spare) == () and squeeze(1, {}) == ()
    assert squeeze(0, spare) == () and squeeze(-5, spare) == (), "another device is short"
