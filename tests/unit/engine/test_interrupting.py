"""Steps of prompts that are given up for somebody who cannot wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Chunk
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.testing.scripted import ScriptedEngine
from tests.unit.engine.conftest import Bench
from tests.unit.engine.conftest import BenchMaker as Maker


class Hurried(ScriptedEngine):
    """In the middle of each of the next `times` steps `hurry` is called. `sizes` are the tokens of all steps begun."""

    times = 0
    hurry: Callable[[], None]

    def __init__(self) -> None:
        super().__init__(abi.Load(PROTOCOL, "scripted:", options={"mixes": False}))
        self.sizes: list[int] = []
        self._given_up = False

    def interrupt(self) -> None:
        self._given_up = True

    def step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        self.sizes.append(sum(len(chunk.tokens) for chunk in chunks))
        self._given_up = False
        if self.times:
            self.times -= 1
            self.hurry()
        if self._given_up:
            raise LlmosError(Code.EINTR, "the step was interrupted")
        return super().step(chunks)


def hurried(bench: Maker, times: int) -> tuple[Hurried, Bench]:
    engine = Hurried()
    made = bench.of(engine)
    engine.hurry, engine.times = made.loop.interrupt, times
    return engine, made


def test_a_prompt_that_is_interrupted_time_and_again_gets_on_with_smaller_chunks(bench: Maker) -> None:
    plain = bench(mixes=False)
    plain.open(1, "x" * 255)
    plain.run((1, 266), budget=128)
    engine, b = hurried(bench, 3)
    b.open(1, "x" * 255)
    b.run((1, 266), budget=128)
    assert engine.sizes[:7] == [128, 64, 32, 16, 32, 64, 128]
    assert b.text == plain.text and sum(part.tokens for step in b.steps for part in step.prefilled) == 256


def test_no_chunk_is_smaller_than_a_few_tokens(bench: Maker) -> None:
    engine, b = hurried(bench, 6)
    b.open(1, "x" * 255)
    b.run((1, 257), budget=64)
    assert engine.sizes[:7] == [64, 32, 16, 8, 8, 8, 8]


def test_steps_that_decode_are_not_given_up(bench: Maker) -> None:
    engine, b = hurried(bench, 0)
    b.open(1, "go")
    b.run((1, 900), steps=2)
    engine.times = 3
    assert all(step.rows for step in b.run(steps=3)) and engine.sizes[-3:] == [1, 1, 1]
    b.open(2, "x" * 255)
    assert b.run((1, 900), (2, 900), budget=128, steps=1)[0].prefilled[0].tokens == 128
