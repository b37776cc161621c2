"""Watches the KV pool of one model while it computes, and changes it when `memory.sizing` says so.

Owns the measurements. While nobody computes nothing is looked at.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import LlmosError
from llmos_shell.daemon.memory import sizing
from llmos_shell.daemon.memory.sizing import Bounds, Chosen, Look, Pool

if TYPE_CHECKING:
    from llmos_shell.daemon.models.conductor import Conductor

LOOK_SECONDS = float(os.environ.get("LLMOS_LOOK_SECONDS", sizing.LOOK_SECONDS))


TRIAL_SECONDS = 0.5
"""Nobody should wait longer than this for a layout that is only tried out."""


class Sizer:
    """The pool of one model, as it should be."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._state = sizing.Sizing()
        self._first: Pool | None = None  # as it was loaded
        self._changing = False
        self._chosen = Chosen()
        self._begin(0.0)

    def keep(self, chosen: Chosen) -> None:
        """The model was given another pool by hand: what was chosen stays, and what was being measured is in vain."""
        self._state = sizing.Sizing()
        self._chosen = Chosen(self._chosen.size or chosen.size, self._chosen.layout or chosen.layout)

    def anew(self) -> None:
        """The model has the pool of its entry again: what was chosen by hand could not be had any more."""
        self._state, self._chosen = sizing.Sizing(), Chosen()

    def note_step(self, decoded: int, prefilled: int, seconds: float) -> None:
        """The worker made a step; now and then that is an occasion to look."""
        now = self._conductor.core.now()
        if not self._begun:
            self._begin(now)
        if decoded and not prefilled:
            self._rows += decoded
            self._steps += 1
            self._seconds += seconds
        if now - self._begun >= LOOK_SECONDS and not self._changing:
            self._look()
            self._begin(now)

    def spare(self) -> Pool | None:
        """A smaller pool that would do for those who run, when another model needs memory; None if there is none."""
        conductor, pool = self._conductor, self._pool()
        bounds, pager = self._bounds(), conductor.workshop.pager
        if pool is None or bounds is None or pager is None or not bounds.sizes or self._changing:
            return None
        if self._state.before is not None:  # soon it will have its former pool again
            return None
        used = pager.ledger.used_pages - pager.ledger.cached_pages
        small = sizing.least(pool, used, bounds.context_pages)
        return small if small.pages < pool.pages else None

    # -- private -------------------------------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        self._begun = now
        self._rows = self._steps = 0
        self._seconds = 0.0

    def _look(self) -> None:
        pool, bounds, pager = self._pool(), self._bounds(), self._conductor.workshop.pager
        if pool is None or bounds is None or pager is None:
            return
        ledger = pager.ledger
        look = Look(
            pager.short_pages, pager.short_slots, ledger.used_pages - ledger.cached_pages, ledger.shared_pages,
            self._rows, self._steps, self._seconds,
        )  # fmt: skip
        pager.short_pages = pager.short_slots = 0
        trial = self._state.before is not None
        self._state, wanted = sizing.decide(self._state, pool, look, bounds)
        if wanted != pool:
            self._changing = True
            self._conductor.core.spawn_task(self._change(pool, wanted, look))
        elif trial and self._state.before is None:
            self._say(f"stays {pool.layout}, which is quicker for what it does")

    async def _change(self, pool: Pool, wanted: Pool, look: Look) -> None:
        conductor = self._conductor
        tokens = wanted.pages * self._page_tokens()
        try:
            self._say(_reason(pool, wanted, look, self._state.before))
            await conductor.core.residency.pools.resize(conductor, tokens, wanted.slots, wanted.layout)
        except LlmosError as error:
            self._state = sizing.refused(self._state, pool, wanted)
            self._say(f"cannot be changed: {error}")
        else:
            self._state = sizing.changed(self._state, pool, wanted)
        finally:
            self._changing = False
            self._begin(conductor.core.now())

    def _say(self, text: str) -> None:
        self._conductor.core.events.info("memory", f"the pool of {self._conductor.entry.name} {text}")

    def _info(self) -> abi.ModelInfo | None:
        info = self._conductor.workshop.info
        return info if info is not None and info.can_resize else None

    def _pool(self) -> Pool | None:
        info = self._info()
        if info is None:
            return None
        pool = Pool(info.pages, info.slots, info.layout)
        if self._first is None:
            self._first = pool
        return pool

    def _bounds(self) -> Bounds | None:
        info, entry = self._info(), self._conductor.entry
        if info is None or self._first is None:
            return None
        page_bytes = max(1, info.page_bytes)
        return Bounds(
            self._first,
            context_pages=-(-info.context // info.page_tokens),
            spare_pages=self._conductor.core.residency.claims.free_for_pool(self._conductor.claim) // 2 // page_bytes,
            sizes=not self._chosen.size and entry.pool_tokens is None and entry.slots is None,
            layouts=self._may_try(info, info.pages * page_bytes),
        )

    def _may_try(self, info: abi.ModelInfo, pool_bytes: int) -> bool:
        """Whether another layout may be tried out."""
        left_open = self._conductor.entry.layout == "auto" and not self._chosen.layout
        return left_open and info.any_layout and self._conductor.resizer.seconds_for(pool_bytes) <= TRIAL_SECONDS

    def _page_tokens(self) -> int:
        info = self._conductor.workshop.info
        return info.page_tokens if info is not None else 1


def _reason(pool: Pool, wanted: Pool, look: Look, before: Pool | None) -> str:
    """Why it changes, as the end of a sentence."""
    if wanted.layout != pool.layout:
        speed = f"{look.speed:.0f} tokens/s for {look.together:.0f} at a time"
        if before == pool:
            return f"is {pool.layout} ({speed}): whether {wanted.layout} is quicker is tried out"
        return f"was no quicker {pool.layout} ({speed}): it becomes {wanted.layout} again"
    if wanted.pages > pool.pages or wanted.slots > pool.slots:
        lacking = "slots" if look.short_slots > look.short_pages else "pages"
        return f"had too few {lacking} for those who want to run: it grows"
    return "was mostly empty: it shrinks"
