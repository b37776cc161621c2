from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.engine import Chunk
from llmos_shell.engine import neighbours
from llmos_shell.testing.scripted import ScriptedEngine
from tests.unit.engine.conftest import BenchMaker as Maker

SLOTS = 24


def test_neighbours_stay_where_they_are() -> None:
    assert neighbours.next_move({3: 10, 4: 10, 5: 10}, {}, SLOTS) is None
    assert neighbours.next_move({7: 10}, {3: 5}, SLOTS) is None


def test_the_shortest_outside_moves_into_a_gap() -> None:
    assert neighbours.next_move({0: 50, 1: 50, 3: 50, 9: 20}, {}, SLOTS) == (9, 2, 20)


def test_one_asleep_in_between_changes_places() -> None:
    assert neighbours.next_move({0: 50, 1: 50, 3: 50, 9: 30}, {2: 5}, 10) == (9, 2, 35)


@given(st.dictionaries(st.integers(0, SLOTS - 1), st.tuples(st.booleans(), st.integers(0, 100))))
def test_moves_end_with_one_run_and_copy_what_was_said(taken: dict[int, tuple[bool, int]]) -> None:
    active = {slot: tokens for slot, (awake, tokens) in taken.items() if awake}
    asleep = {slot: tokens for slot, (awake, tokens) in taken.items() if not awake}
    contents = sorted(active.values()), sorted(asleep.values())
    copied, said = 0, None
    for _ in range(SLOTS):
        move = neighbours.next_move(active, asleep, SLOTS)
        if move is None:
            break
        source, target, tokens = move
        said = tokens if said is None else said
        assert source in active and target not in active
        copied += active[source] + asleep.get(target, 0)
        active[target] = active.pop(source)
        if target in asleep:
            asleep[source] = asleep.pop(target)
    assert neighbours.runs(active) == min(len(active), 1)
    assert copied == (said or 0)
    assert (sorted(active.values()), sorted(asleep.values())) == contents


@pytest.mark.parametrize("ended", [True, False])
def test_who_goes_on_between_others_that_ended_or_wait_moves_together_and_says_the_same(
    bench: Maker, ended: bool
) -> None:
    alone = bench()
    for seq in range(6):
        alone.open(seq, f"prompt {seq}>")
        alone.run((seq, 40))
    b = bench(layout="split", slots=6, pages=60, step_seconds=0.001)
    steps = watch(b.engine)
    for seq in range(6):
        b.open(seq, f"prompt {seq}>")
    b.run(*((seq, 20) for seq in range(6)))
    if ended:
        b.free(1)
        b.free(3)
    rest = [0, 2, 4, 5]
    b.run(*((seq, 30) for seq in rest))
    assert neighbours.runs(steps[-1]) == 1
    everyone = rest if ended else list(range(6))
    b.run(*((seq, 40) for seq in everyone))
    assert all(b.tokens[seq] == alone.tokens[seq] for seq in everyone)


def watch(engine: ScriptedEngine) -> list[list[int]]:
    """The slots of every step from now on."""
    steps: list[list[int]] = []
    compute = engine.step

    def step(chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        steps.append([chunk.slot for chunk in chunks])
        return compute(chunks)

    engine.step = step  # type: ignore[method-assign]
    return steps
