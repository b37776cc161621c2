"""Sequences from copies, images and parts of others: they go on as those would, and nothing shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.types import Sampling
from llmos_shell.engine.loop import Loop
from llmos_shell.testing.scripted import BOS, load
from tests.unit.engine.conftest import GREEDY, opened
from tests.unit.engine.conftest import BenchMaker as Maker


def test_forks_go_on_alike(bench: Maker) -> None:
    b = bench()
    b.open(1, "go")
    b.run((1, 30))
    known = tuple(b.tokens[1])
    assert opened(b.open(2, known, turn=3, source=abi.CopyOf(1, 29))) == (2, 29, "")
    b.free(1)
    steps = b.run((2, 40))
    assert not any(step.prefilled for step in steps)
    whole = bench()
    whole.open(1, "go")
    whole.run((1, 40))
    assert b.tokens[2] == whole.tokens[1]


def test_copies_are_only_used_as_far_as_tokens_agree(bench: Maker) -> None:
    b = bench()
    b.open(1, "abcdefgh")
    b.run((1, 12))
    answer = b.open(2, "abcdXXXX", source=abi.CopyOf(1, 9))
    assert opened(answer) == (2, 5, "only 5 tokens could be copied")
    b.run((2, 30))
    alone = bench()
    alone.open(2, "abcdXXXX")
    alone.run((2, 30))
    assert b.text[2] == alone.text[2]


def test_copy_of_nothing_is_said(bench: Maker) -> None:
    b = bench()
    answer = b.open(2, "abc", source=abi.CopyOf(1, 9))
    assert answer.reused == 0 and "not open" in answer.note


def test_parked_and_back(bench: Maker, tmp_path: Path) -> None:
    b = bench()
    b.open(1, "go", Sampling(seed=4))
    b.run((1, 30))
    path = str(tmp_path / "image")
    (exported,) = b.loop.handle(abi.Export(1, path))
    assert (exported.tokens, exported.error) == (29, "") and exported.bytes == Path(path).stat().st_size
    b.free(1)
    known = tuple(b.tokens[1])
    assert opened(b.open(2, known, Sampling(seed=4), turn=3, source=abi.ImageFile(path))) == (2, 29, "")
    b.run((2, 50))
    whole = bench()
    whole.open(1, "go", Sampling(seed=4))
    whole.run((1, 50))
    assert b.tokens[2] == whole.tokens[1]


def test_a_restored_turn_with_all_its_kv_computes_one_token_again(bench: Maker, tmp_path: Path) -> None:
    b = bench(reply="abc")
    b.open(1, "say>")
    b.run((1, 30))
    path = str(tmp_path / "image")
    b.loop.handle(abi.Export(1, path))
    assert b.open(2, tuple(b.tokens[1]), turn=5, source=abi.ImageFile(path)).reused == 8
    steps = b.run((2, 30))
    assert steps[0].prefilled == (abi.Prefilled(2, 1, 8, 8),) and b.reasons[2] == "eos"


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:50] + b"?" + data[51:], lambda data: b""]
)
def test_damaged_images_are_computed_again(bench: Maker, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    b = bench()
    b.open(1, "go")
    b.run((1, 30))
    path = tmp_path / "image"
    b.loop.handle(abi.Export(1, str(path)))
    path.write_bytes(damage(path.read_bytes()))
    answer = b.open(2, tuple(b.tokens[1]), turn=3, source=abi.ImageFile(str(path)))
    assert answer.reused == 0 and answer.note
    b.run((1, 40), (2, 40))
    assert b.tokens[1] == b.tokens[2]


def test_images_of_a_longer_history_are_cut(bench: Maker, tmp_path: Path) -> None:
    b = bench()
    b.open(1, "abcdefgh")
    b.run((1, 12))
    path = str(tmp_path / "image")
    b.loop.handle(abi.Export(1, path))
    assert b.open(2, "abcdX", source=abi.ImageFile(path)).reused == 5
    b.run((2, 30))
    alone = bench()
    alone.open(2, "abcdX")
    alone.run((2, 30))
    assert b.text[2] == alone.text[2]


def test_images_without_room_are_computed_later(bench: Maker, tmp_path: Path) -> None:
    b = bench(pages=4, slots=3)
    path = str(tmp_path / "image")
    b.open(1, "a" * 30)
    b.run((1, 40))
    b.loop.handle(abi.Export(1, path))
    answer = b.open(2, tuple(b.tokens[1]), turn=31, source=abi.ImageFile(path))
    assert answer.reused == 0 and "pool" in answer.note


def test_export_without_a_place_is_said(bench: Maker, tmp_path: Path) -> None:
    b = bench()
    b.open(1, "a")
    b.run((1, 5))
    (answer,) = b.loop.handle(abi.Export(1, str(tmp_path / "no" / "image")))
    assert answer.error and answer.bytes == 0


def test_the_first_token_of_a_copy_is_urgent_and_the_next_are_not(bench: Maker) -> None:
    b = bench()
    b.open(1, "go")
    b.run((1, 900), steps=3)
    b.open(2, tuple(b.tokens[1]), turn=3, source=abi.CopyOf(1, len(b.tokens[1]) - 1))
    b.run((1, 900), (2, 900), steps=1)
    assert b.loop.urgent
    b.run(steps=1)
    assert not b.loop.urgent


def test_a_fence_is_passed_after_the_files_before_it(tmp_path: Path) -> None:
    jobs: list[Callable[[], abi.ToDaemon]] = []
    loop = Loop(load(abi.Load(PROTOCOL, "scripted:")), later=jobs.append)
    loop.handle(abi.Open(1, (BOS, 1, 2), 3, GREEDY))
    assert loop.handle(abi.Export(1, str(tmp_path / "image"))) == loop.handle(abi.Fence(7)) == []
    assert [type(job()) for job in jobs] == [abi.Exported, abi.Fenced]


# -- feeding and cutting


def test_feed_can_take_back(bench: Maker) -> None:
    b, fresh = bench(), bench()
    b.open(1, "abc")
    b.run((1, 20))
    b.feed(1, "xyz", keep=3)
    b.run((1, 30))
    fresh.open(1, (BOS, *b"abxyz"))
    fresh.run((1, 30))
    assert b.tokens[1] == fresh.tokens[1]


def test_truncate_makes_a_prefix(bench: Maker) -> None:
    b = bench()
    b.open(1, "abcdef", idle=True)
    b.feed(1, "g")
    b.run((1, 12))
    b.loop.handle(abi.Truncate(1, 4))
    assert b.engine.usage().used_tokens == 4
    assert b.open(2, "abcxyz", source=abi.CopyOf(1, 4)).reused == 4


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["run", "park", "fork", "drop", "feed"]), st.integers(1, 25)), max_size=12),
    st.integers(0, 5),
)
def test_no_history_shows(bench: Maker, tmp_path_factory: Any, actions: list[tuple[str, int]], seed: int) -> None:
    """Whatever is done to a sequence, its tokens are those of one that was left in peace with the same inputs."""
    path = str(tmp_path_factory.mktemp("images") / "image")
    b = bench(end_after=0.02)
    sampling = Sampling(seed=seed)
    b.open(1, "begin", sampling)
    seq, turn = 1, 6
    for action, amount in actions:
        if action == "run":
            b.run((seq, len(b.tokens[seq]) + amount), budget=amount)
        elif action == "feed":
            b.feed(seq, "x" * amount, sampling)
            turn = len(b.tokens[seq])
            b.reasons.pop(seq, None)
        else:
            source: Any = {"park": abi.ImageFile(path), "fork": abi.CopyOf(seq, len(b.tokens[seq])), "drop": None}[
                action
            ]
            b.loop.handle(abi.Export(seq, path))
            if seq in b.reasons:
                continue
            old, seq = seq, seq + 1
            b.open(seq, tuple(b.tokens[old]), sampling, turn=turn, source=source)
            b.text[seq] = b.text.get(old, "")
            b.free(old)
    tokens = b.tokens[seq]
    peace = bench(end_after=0.02)
    peace.open(1, tuple(tokens[:turn]), sampling)
    peace.run((1, len(tokens)))
    assert peace.tokens[1] == tokens
    assert peace.text.get(1, "") == b.text.get(seq, "")
