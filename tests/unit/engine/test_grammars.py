"""Turns that follow a grammar."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from msgspec.structs import replace

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Constraint
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Sampling
from llmos_shell.testing.scripted import END, ScriptedEngine
from tests.unit.engine.conftest import BenchMaker as Maker


class OnlyLetters:
    """A constraint: `count` capital letters, then the end."""

    closed = 0

    def __init__(self, count: int) -> None:
        self.left = count

    def allows(self, token: int) -> bool:
        return token == END if not self.left else 65 <= token <= 90

    def mask(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        allowed = [token for token in range(len(logits)) if self.allows(token)]
        masked = np.full_like(logits, -np.inf)
        masked[allowed] = logits[allowed]
        return masked

    def accept(self, token: int) -> None:
        if not self.allows(token):
            raise LlmosError(Code.EINVAL, "does not fit")
        self.left -= 1

    def close(self) -> None:
        OnlyLetters.closed += 1


class Constrained(ScriptedEngine):
    def __init__(self, spec: abi.Load) -> None:
        super().__init__(spec)
        self.info = replace(self.info, can_constrain=True)

    def constraint(self, kind: Literal["gbnf", "json-schema"], text: str) -> Constraint:
        return OnlyLetters(int(text))


@pytest.mark.parametrize("sampling", [Sampling(temperature=0, grammar="6"), Sampling(seed=2, grammar="6")])
def test_grammars_are_followed_to_their_end_and_resumed(bench: Maker, sampling: Sampling) -> None:
    closed = OnlyLetters.closed
    whole, parted = (bench.of(Constrained(abi.Load(PROTOCOL, "scripted:"))) for _ in range(2))
    whole.open(1, "abc", sampling)
    whole.run((1, 50))
    assert len(whole.text[1]) == 6 and whole.text[1].isupper() and whole.reasons[1] == "eos"
    parted.open(1, "abc", sampling)
    parted.run((1, 7))
    parted.open(2, tuple(parted.tokens[1]), sampling, turn=4)
    parted.free(1)
    parted.run((2, 50))
    assert parted.text[1] + parted.text[2] == whole.text[1]
    assert OnlyLetters.closed == closed + 3
    answer = parted.open(3, "abcd", sampling, turn=4)
    assert isinstance(answer, abi.Failed) and answer.code == "EINVAL"


def test_a_grammar_without_a_way_on_ends_the_turn(bench: Maker) -> None:
    b = bench.of(Constrained(abi.Load(PROTOCOL, "scripted:")))
    b.open(1, "abc", Sampling(temperature=0, grammar="2", ignore_eos=True))
    b.run((1, 50))
    assert len(b.text[1]) == 2 and b.reasons[1] == "eos"
