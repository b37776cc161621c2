"""How large a model's KV pool should be, and in which layout: from what was asked of it lately. Pure.

A pool grows when those who want to run lack room in it time and again, and shrinks to what it was when most of it was
not used for long. The other layout is tried out now and then while several sequences decode, and kept when tokens came
quicker; a trial that failed is repeated after twice the time. Counts are pages and slots; a *look* is one measurement,
`LOOK_SECONDS` of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

Layout = Literal["shared", "split"]

LOOK_SECONDS = 2.0
SHORT_LOOKS = 3
"""Looks in a row in which room was lacking, before a pool grows."""

QUIET_LOOKS = 150
"""Looks in a row in which a pool that has grown was mostly empty, before it shrinks."""

QUIET_SHARE = 0.3
"""What of the pool is used then, at most."""

TRIAL_LOOKS = 4
FIRST_WAIT = 30
LONGEST_WAIT = 1800
"""Looks before the other layout is tried (again), and before what was refused is asked for again."""

GAIN = 1.1
"""By which the other layout must be quicker."""

COMPARABLE = 1.3
"""Sequences per step of two measurements may differ by this factor."""

SHARED_SHARE = 0.1
"""With more of its pages shared a pool is not split: copies would take that much more."""

MOST_SLOTS = 128
"""A pool does not grow beyond this: more sequences in a step gain nothing, and each waits for all."""


class Pool(Struct, frozen=True):
    """A pool as it is, or should be."""

    pages: int
    slots: int
    layout: Layout


class Look(Struct, frozen=True):
    """What was seen of a pool since the last look."""

    short_pages: int = 0  # times that somebody who wants to run lacked pages, or made another one leave for them
    short_slots: int = 0  # the same for slots
    used_pages: int = 0  # the most that processes had
    shared_pages: int = 0  # of these, those that several have
    rows: int = 0  # sequences decoded in steps without prompts
    steps: int = 0  # of this kind
    seconds: float = 0.0  # that they took

    @property
    def together(self) -> float:
        """Sequences per step."""
        return self.rows / self.steps if self.steps else 0.0

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0


class Bounds(Struct, frozen=True):
    """What a model's pool may be."""

    first: Pool  # as it was loaded
    context_pages: int  # of the longest sequence
    spare_pages: int  # for which there is memory
    sizes: bool = True  # it may grow: models.toml does not say how large it is
    layouts: bool = True  # it may change its layout: models.toml leaves that open, and KV can be carried across


class Chosen(Struct, frozen=True):
    """What of a pool somebody has chosen by hand."""

    size: bool = False
    layout: bool = False


class Sizing(Struct, frozen=True):
    """What is remembered from look to look."""

    short: int = 0  # looks in a row
    quiet: int = 0
    wait: int = FIRST_WAIT  # looks until the other layout may be tried
    backoff: int = FIRST_WAIT
    hold: int = 0  # looks until the size may be changed: it was refused
    refusals: int = 0  # of sizes, in a row
    before: Pool | None = None  # during a trial: the pool to go back to
    measured: Look = Look()  # during a trial: with that pool; else with the present one
    looks: int = 0  # that make up `measured`
    trial: Look = Look()
    trial_looks: int = 0


def decide(state: Sizing, pool: Pool, look: Look, bounds: Bounds) -> tuple[Sizing, Pool]:
    """The pool to have after a look, which is the present one where nothing is to change."""
    if state.before is not None:
        return _judge(state, state.before, pool, look)
    short = look.short_pages + look.short_slots > 0
    used = look.used_pages <= QUIET_SHARE * pool.pages
    state = replace(
        state, short=state.short + 1 if short else 0, quiet=state.quiet + 1 if used and not short else 0,
        wait=max(0, state.wait - 1), hold=max(0, state.hold - 1),
    )  # fmt: skip
    sizes = bounds.sizes and not state.hold
    if sizes and state.short >= SHORT_LOOKS:
        return replace(state, short=0), _grown(pool, look, bounds)
    if sizes and state.quiet >= QUIET_LOOKS and pool.pages > bounds.first.pages:
        return replace(state, quiet=0), _shrunk(pool, look, bounds)
    state = _measure(state, look)
    other = _other(pool, look, bounds) if bounds.layouts and not state.wait else None
    if other is None or state.looks < TRIAL_LOOKS:
        return state, pool
    return replace(state, before=pool, trial=Look(), trial_looks=0), other


def refused(state: Sizing, pool: Pool, wanted: Pool) -> Sizing:
    """The pool that was decided for cannot be had: it is `pool` still. Everybody was moved out in vain."""
    if wanted.layout != pool.layout:
        return _after_trial(state, 2 * state.backoff)
    hold = min(FIRST_WAIT << min(state.refusals, 16), LONGEST_WAIT)
    return replace(state, short=0, quiet=0, hold=hold, refusals=state.refusals + 1)


def changed(state: Sizing, pool: Pool, wanted: Pool) -> Sizing:
    """The pool is the one that was decided for."""
    return state if wanted.layout != pool.layout else replace(state, refusals=0)


def squeeze(missing: int, spare: Mapping[str, int]) -> tuple[str, ...]:
    """Which pools to make smaller so that `missing` bytes come free, those first that have most to spare.

    None where nothing is missing, or all of them together have too little.
    """
    chosen: list[str] = []
    for key in sorted(spare, key=lambda key: -spare[key]):
        if missing <= 0:
            break
        chosen.append(key)
        missing -= spare[key]
    return tuple(chosen) if missing <= 0 else ()


def least(pool: Pool, used_pages: int, context_pages: int) -> Pool:
    """The smallest pool for which nobody who runs must leave: half as much again as they have, and a whole context."""
    if pool.layout == "split":
        return pool
    return replace(pool, pages=min(pool.pages, max(context_pages, used_pages + used_pages // 2)))


def _grown(pool: Pool, look: Look, bounds: Bounds) -> Pool:
    """Twice what is lacking, as far as there is memory."""
    most = pool.pages + bounds.spare_pages
    lacks_slots = look.short_slots > look.short_pages
    slots = max(pool.slots, min(2 * pool.slots, MOST_SLOTS)) if lacks_slots else pool.slots
    if pool.layout == "split":
        slots = max(pool.slots, min(slots, most // bounds.context_pages))
        return replace(pool, pages=max(pool.pages, slots * bounds.context_pages), slots=slots)
    return replace(pool, pages=pool.pages if lacks_slots else min(2 * pool.pages, most), slots=slots)


def _shrunk(pool: Pool, look: Look, bounds: Bounds) -> Pool:
    """Half of it, but no less than at first."""
    if pool.layout == "split":
        slots = max(bounds.first.slots, pool.slots // 2)
        return replace(pool, pages=max(bounds.first.pages, slots * bounds.context_pages), slots=slots)
    return replace(pool, pages=max(bounds.first.pages, pool.pages // 2, bounds.context_pages))


def _measure(state: Sizing, look: Look) -> Sizing:
    """Takes a look into what is known of the present layout; one of another kind of load begins anew."""
    if look.together < 2:
        return replace(state, measured=Look(), looks=0)
    if state.looks and not _comparable(state.measured, look):
        return replace(state, measured=look, looks=1)
    return replace(state, measured=_sum(state.measured, look), looks=min(state.looks + 1, TRIAL_LOOKS))


def _other(pool: Pool, look: Look, bounds: Bounds) -> Pool | None:
    """The pool in the other layout, if that would hold what is in it."""
    if pool.layout == "split":
        return replace(pool, layout="shared")
    slots = min(pool.slots, pool.pages // bounds.context_pages)
    if look.together > slots or look.shared_pages > SHARED_SHARE * max(1, look.used_pages):
        return None
    return Pool(pool.pages, slots, "split")


def _judge(state: Sizing, before: Pool, pool: Pool, look: Look) -> tuple[Sizing, Pool]:
    """Ends a trial when enough is known, or when the load is another one."""
    short = look.short_slots + look.short_pages > 0
    comparable = _comparable(state.measured, look) and not short
    if comparable:
        state = replace(state, trial=_sum(state.trial, look), trial_looks=state.trial_looks + 1)
        if state.trial_looks < TRIAL_LOOKS:
            return state, pool
        if state.trial.speed >= GAIN * state.measured.speed:
            return replace(_after_trial(state, 4 * FIRST_WAIT), measured=state.trial, looks=TRIAL_LOOKS), pool
    return _after_trial(state, 2 * state.backoff if comparable or short else state.backoff), before


def _after_trial(state: Sizing, wait: int) -> Sizing:
    wait = min(wait, LONGEST_WAIT)
    return Sizing(wait=wait, backoff=wait, hold=state.hold, refusals=state.refusals)


def _comparable(left: Look, right: Look) -> bool:
    low, high = sorted((left.together, right.together))
    return low > 0 and high <= COMPARABLE * low


def _sum(left: Look, right: Look) -> Look:
    return Look(rows=left.rows + right.rows, steps=left.steps + right.steps, seconds=left.seconds + right.seconds)
