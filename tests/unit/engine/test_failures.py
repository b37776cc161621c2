"""What the loop refuses, and engines that fail: nobody else is hurt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Chunk
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Sampling
from llmos_shell.engine.loop import Loop
from llmos_shell.testing.scripted import ScriptedEngine
from tests.unit.engine.conftest import GREEDY, opened
from tests.unit.engine.conftest import BenchMaker as Maker


def test_senseless_messages_are_answered(bench: Maker) -> None:
    b = bench(slots=2, context=32)
    assert opened(b.open(1, "a")) == (1, 0, "")
    for answer, code in (
        (b.open(1, "a"), "EINVAL"),
        (b.open(2, "x" * 40), "E2BIG"),
        (b.open(2, ()), "EINVAL"),
        (b.open(2, (5, 300)), "EINVAL"),
        (b.open(2, (5, 6), turn=3), "EINVAL"),
        (b.open(2, "a", Sampling(grammar='root ::= "a"')), "ENOSYS"),
        (b.open(2, "a", Sampling(grammar="x", json_schema="{}")), "EINVAL"),
    ):
        assert isinstance(answer, abi.Failed) and answer.code == code
    b.open(2, "a")
    assert b.open(3, "a").code == "EAGAIN"
    (failed,) = b.loop.handle(abi.Feed(9, (1,), GREEDY))
    assert failed.code == "ESRCH"
    (failed,) = b.loop.handle(abi.Feed(1, (1,), GREEDY, keep=77))
    assert failed.code == "EINVAL"
    assert b.loop.handle(abi.Free(77)) == [] and b.loop.handle(abi.Truncate(77, 1)) == []
    (exported,) = b.loop.handle(abi.Export(77, "/nowhere"))
    assert exported.error
    b.feed(1, "b")
    b.run((77, 10), (1, 10))
    assert len(b.tokens[1]) == 10


def test_a_fence_is_answered_in_its_turn(bench: Maker) -> None:
    assert bench().loop.handle(abi.Fence(3)) == [abi.Fenced(3)]


class Breaking(ScriptedEngine):
    """Fails, or gives logits that are not numbers, when told to."""

    error: LlmosError | None = None
    nan_row: int | None = None

    def step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        if self.error is not None:
            raise self.error
        logits = super().step(chunks)
        if self.nan_row is not None:
            logits[self.nan_row] = np.nan
        return logits


def test_one_bad_row_fails_one_sequence(bench: Maker) -> None:
    engine = Breaking(abi.Load(PROTOCOL, "scripted:"))
    b = bench.of(engine)
    for seq in (1, 2, 3):
        b.open(seq, "abc", Sampling(temperature=0.5, seed=1) if seq == 3 else GREEDY)
    b.run((1, 50), (2, 50), (3, 50), steps=3)
    for row in (1, 1):
        engine.nan_row = row
        b.run(steps=1)
        engine.nan_row = None
    b.run(steps=3)
    assert [(failed.seq, failed.code) for failed in b.others] == [(2, "EIO"), (3, "EIO")]
    assert len(b.tokens[1]) == 4 + 8


def test_engine_failure_is_everyones() -> None:
    engine = Breaking(abi.Load(PROTOCOL, "scripted:"))
    loop = Loop(engine)
    loop.handle(abi.Open(1, (1, 2), 2, GREEDY))
    loop.handle(abi.Run((abi.Grant(1, 9),), 9))
    engine.error = LlmosError(Code.EIO, "broken")
    with pytest.raises(LlmosError):
        loop.step()


class Uncuttable(ScriptedEngine):
    """Like a recurrent model: state cannot be cut."""

    def truncate(self, slot: int, tokens: int) -> None:
        if tokens:
            raise LlmosError(Code.ENOSYS, "cannot be cut")
        super().truncate(slot, tokens)


def test_engines_that_cannot_cut_compute_again(bench: Maker) -> None:
    b, plain = bench.of(Uncuttable(abi.Load(PROTOCOL, "scripted:"))), bench()
    for each in (b, plain):
        each.open(1, "abc")
        each.run((1, 20))
        each.feed(1, "xyz", keep=10)
        each.run((1, 30))
    assert b.tokens[1] == plain.tokens[1]
