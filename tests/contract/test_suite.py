"""The conformance suite notices what it is there for: engines with one thing broken fail it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from msgspec.structs import replace

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.engine import Chunk, Engine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.worker import Load
from llmos_shell.engine.conformance import EngineConformance
from llmos_shell.testing.scripted import ScriptedEngine


class CopyOneShort(ScriptedEngine):
    def copy(self, source: int, target: int, tokens: int) -> None:
        super().copy(source, target, tokens)
        cells = self._slots[target]
        cells[-1] = cells[-1]._replace(digest=cells[-1].digest ^ 1)


class TruncateLazily(ScriptedEngine):
    def truncate(self, slot: int, tokens: int) -> None:
        last = self._slots[slot][-1:]
        super().truncate(slot, tokens)
        if tokens and last:
            self._slots[slot][-1] = last[0]


class RestoreFlipped(ScriptedEngine):
    def restore(self, slot: int, blob: bytes | memoryview, tokens: int) -> None:
        data = bytearray(blob)
        data[-1] ^= 4
        super().restore(slot, bytes(data), tokens)


class FreeForgotten(ScriptedEngine):
    def free(self, slot: int) -> None:
        if slot != 1:
            super().free(slot)


class RowsMixedUp(ScriptedEngine):
    def step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        return super().step(chunks)[::-1]


class LeakWhenFull(ScriptedEngine):
    def step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        if len(self._users) + 16 > self._capacity:
            self._take(0, 1)
        return super().step(chunks)


class ResizeKeepsCells(ScriptedEngine):
    def _empty(self) -> None:
        if not hasattr(self, "_slots"):
            super()._empty()


class ResizeRefusesLate(ScriptedEngine):
    def resize(self, pool_tokens: int, slots: int, layout: Literal["shared", "split"]) -> None:
        before = self.info
        self.info = replace(before, slots=slots, layout=layout)
        if pool_tokens < before.context:
            raise LlmosError(Code.EINVAL, "too few")
        super().resize(pool_tokens, slots, layout)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (CopyOneShort, EngineConformance.test_copy),
        (TruncateLazily, EngineConformance.test_truncate),
        (RestoreFlipped, EngineConformance.test_export_and_restore),
        (RestoreFlipped, EngineConformance.test_restoring_is_exact),
        (FreeForgotten, EngineConformance.test_copy),
        (RowsMixedUp, EngineConformance.test_logits_come_in_the_order_of_the_chunks),
        (RowsMixedUp, EngineConformance.test_order_within_a_step_changes_nothing),
        (RowsMixedUp, EngineConformance.test_together_as_alone),
        (LeakWhenFull, EngineConformance.test_a_full_pool_changes_nothing),
        (ResizeKeepsCells, EngineConformance.test_another_pool_reads_the_images_of_the_former),
        (ResizeRefusesLate, EngineConformance.test_another_pool_reads_the_images_of_the_former),
    ],
)
def test_broken_engines_fail(broken: type[ScriptedEngine], test: Callable[[EngineConformance], None]) -> None:
    class Suite(EngineConformance):
        tolerance = 0.0

        def load(self, **spec: Any) -> Engine:
            options = {"can_resize": True}
            return broken(Load(PROTOCOL, "scripted:", slots=5, pool_tokens=960, options=options, **spec))

    with pytest.raises(Exception):  # noqa: B017
        test(Suite())
