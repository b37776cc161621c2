"""Gives a loaded model another KV pool, and carries its processes across: their KV goes to images and comes back.

The worker keeps the weights. Meanwhile nobody of the model runs; processes keep their tokens whatever happens. One
resize of a model at a time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import Code, LlmosError

if TYPE_CHECKING:
    from llmos_shell.daemon.memory.pager import Pager
    from llmos_shell.daemon.models.conductor import Conductor


FIRST_SECONDS_PER_BYTE = 1e-9
"""What making a pool takes before that was measured: its memory is new to the worker, and is cleared."""


class Resizer:
    """Resizes of one model's pool."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._seconds_per_byte = FIRST_SECONDS_PER_BYTE
        self._answer: asyncio.Future[abi.Resized | None] | None = None
        self.busy = False
        """Another pool is on its way: memory for it is sought, or it is being made. Set by who begins that."""
        self.shape: abi.Resize | None = None
        """The pool that the model was given, and is given again by a fresh worker; None: that of its entry."""

    def seconds_for(self, pool_bytes: int) -> float:
        """How long everybody would have to wait for a pool of this size."""
        return pool_bytes * self._seconds_per_byte

    def check(self) -> abi.ModelInfo:
        """What the worker has now. Raises EBUSY while another pool is on its way, and what `resize` does at once."""
        if self.busy:
            raise LlmosError(Code.EBUSY, f"the pool of {self._conductor.entry.name} is just being changed")
        return self._present()

    def _present(self) -> abi.ModelInfo:
        conductor, info = self._conductor, self._conductor.workshop.info
        if conductor.workshop.pager is None or info is None:
            raise LlmosError(Code.EAGAIN, f"{conductor.entry.name} is just being loaded", hint="try again")
        if not info.can_resize:
            raise LlmosError(Code.ENOSYS, f"kernel {conductor.entry.kernel} cannot change the size of a KV pool")
        return info

    async def resize(self, shape: abi.Resize) -> abi.ModelInfo:
        """What the worker has then.

        Raises EAGAIN without a worker, ENOSYS for a kernel that cannot, EIO when the worker died, and what it refuses
        with. Then the pool is as it was before, and processes go on in it.
        """
        conductor, core = self._conductor, self._conductor.core
        self._present()
        pager = conductor.workshop.pager
        assert pager is not None
        begun = time.monotonic()
        self._answer = core.loop.create_future()
        try:
            conductor.planner.halt()
            carried = pager.clear()
            await conductor.tokenizer.settled()  # all images are written
            self._check(pager)
            conductor.send(shape)
            conductor.tokenizer.fence(lambda: None)  # a worker that does not come to it hangs, and is replaced
            answer = await self._answer
            self._check(pager)
            assert answer is not None
        finally:
            self._answer = None
            if conductor.workshop.pager is pager:
                pager.frozen = False
                conductor.wake_all()
        if answer.error:
            raise LlmosError(Code(answer.code), answer.error)
        self.shape = shape
        conductor.workshop.resized(answer.info)
        info, seconds = answer.info, time.monotonic() - begun
        self._seconds_per_byte = seconds / max(1, info.pages * info.page_bytes)
        text = f"the pool of {conductor.entry.name} has {info.pages * info.page_tokens} tokens now"
        text += f" ({info.layout}, {info.slots} slots): {carried} processes were carried across in {seconds:.2f} s"
        core.events.info("memory", text)
        conductor.wake_all()
        return info

    def _check(self, pager: Pager) -> None:
        """Raises EIO when the worker is no longer the one whose pool this is."""
        if self._conductor.workshop.pager is not pager:
            name = self._conductor.entry.name
            raise LlmosError(Code.EIO, f"the worker of {name} ended while its pool was changed")

    def answered(self, message: abi.Resized) -> None:
        """The worker has another pool, or says why not."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    def lost(self) -> None:
        """The worker has gone: there will be no answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
