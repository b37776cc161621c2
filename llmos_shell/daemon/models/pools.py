"""Another KV pool for a loaded model, and the memory for it: claimed before, and given back when it comes to nothing.

`resizing` has the worker make the pool and carries the processes across; what size is wanted is decided by `sizer`,
by hand, or by who waits for memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.worker import Resize
from llmos_shell.daemon.memory.sizing import Chosen, Layout, Pool, squeeze
from llmos_shell.daemon.models.budget import RAM
from llmos_shell.daemon.models.claims import Claims

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor


class _Spare(NamedTuple):
    """A smaller pool that would do for a model, in tokens too, and the RAM that comes free with it."""

    conductor: Conductor
    pool: Pool
    tokens: int
    ram: int


class Pools:
    """Pools of loaded models."""

    def __init__(
        self,
        core: Core,
        claims: Claims,
        conductors: Mapping[str, Conductor],
        make_way: Callable[[Sequence[str], str], Awaitable[None]],
    ) -> None:
        """`make_way` unloads models, by key, as far as nobody runs on them, for whom the text says."""
        self._core = core
        self._claims = claims
        self._conductors = conductors
        self._make_way = make_way

    async def resize(
        self,
        conductor: Conductor,
        pool_tokens: int | None,
        slots: int | None,
        layout: Layout | None,
        *,
        by_hand: bool = False,
    ) -> None:
        """Gives a model another pool; what is None stays.

        For one that is given `by_hand` idle models make way, and it is kept until the model is unloaded.

        Raises ENOMEM or EBUSY when the budget has no room for a larger pool, and what `Resizer.resize` does. It is
        carried to its end even if whoever asked for it gives up: else the worker would have another pool than is known
        here.
        """
        info = conductor.resizer.check()
        chosen = Chosen(pool_tokens is not None or slots is not None, layout is not None) if by_hand else None
        layout, slots = layout or info.layout, slots or info.slots
        before = info.pages * info.page_tokens
        pool = pool_tokens or (max(before, slots * info.context) if layout == "split" else before)
        more = max(0, (pool - before) * info.kv_bytes_per_token)
        conductor.resizer.busy = True
        work = self._resize(conductor, Resize(pool, slots, layout), more, chosen)
        error = await asyncio.shield(self._core.spawn_task(work))
        if error is not None:
            raise error

    def forget(self, conductor: Conductor) -> None:
        """The next worker of a model is to have the pool of its entry: perhaps there is no memory for another one."""
        conductor.resizer.shape = None
        conductor.sizer.anew()
        conductor.claim.plan(conductor.claim.planned)

    async def squeeze(self, keys: Sequence[str], needed: int) -> bool:
        """Whether RAM that was missing for `needed` came free: busy models got smaller pools, enough for who runs."""
        found = {key: spare for key in keys if (spare := self._spare(key)) is not None}
        chosen = squeeze(needed - self._claims.free_bytes(), {key: spare.ram for key, spare in found.items()})
        for key in chosen:
            conductor, small, tokens, _ = found[key]
            try:
                await self.resize(conductor, tokens, small.slots, small.layout)
            except LlmosError:
                return False
        return bool(chosen)

    # -- private -------------------------------------------------------------------------------------------------------

    async def _resize(self, conductor: Conductor, shape: Resize, more: int, chosen: Chosen | None) -> LlmosError | None:
        """Claims `more` bytes of KV meanwhile, and in the end what the pool has."""
        claim = conductor.claim
        try:
            if more:
                await self._reserve(conductor, more, evict=chosen is not None)
            info = await conductor.resizer.resize(shape)
            claim.has(info.pages * info.page_bytes)
            if chosen is not None:
                conductor.sizer.keep(chosen)
        except LlmosError as error:
            return error
        finally:
            claim.reserved = 0
            conductor.resizer.busy = False
        return None

    async def _reserve(self, conductor: Conductor, more: int, *, evict: bool) -> None:
        """Claims so many bytes more for a loaded model: unloads idle ones if it may, waits for nobody."""
        key, name = conductor.key, conductor.entry.name
        if conductor.claim.need.gpus:
            await self._claims.look()
        parts = conductor.claim.parts(more)
        try:
            verdict = self._claims.verdict_on_pool(key, parts)
        except LlmosError as error:
            raise LlmosError(error.code, f"the pool of {name} cannot grow: {error.message}") from None
        if verdict.wait or (verdict.evict and not evict):
            names = ", ".join(one for one in (*verdict.evict, *verdict.blockers) if one != key)
            sizes = " and ".join(
                f"{size / 2**20:,.0f} MiB{'' if device == RAM else f' of {device}'}"
                for device, size in parts.items()
                if device in verdict.short
            )
            text = f"the pool of {name} needs {sizes} more, which {names or 'others'} have in use"
            raise LlmosError(Code.EBUSY, text, hint="unload other models first")
        conductor.claim.reserved = more
        await self._make_way(verdict.evict, f"the pool of {name}")

    def _spare(self, key: str) -> _Spare | None:
        conductor = self._conductors.get(key)
        small = conductor.sizer.spare() if conductor is not None else None
        info = conductor.workshop.info if conductor is not None else None
        if conductor is None or small is None or info is None:
            return None
        freed = (info.pages - small.pages) * info.page_bytes
        return _Spare(conductor, small, small.pages * info.page_tokens, conductor.claim.parts(freed)[RAM])
