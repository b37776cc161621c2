"""What a terminal shows of a load."""

from __future__ import annotations

import pytest

from llmos_shell.abi.syscalls import ModelLoad
from llmos_shell.shell.loading import bar, describe_load


@pytest.mark.parametrize(
    ("load", "text"),
    [
        (ModelLoad("m", 0, 0, 1.0), "loading m"),
        (ModelLoad("m", 1 << 30, 4 << 30, 1.0), "loading m ▕█████               ▏ 1.0G of 4.0G (25%)"),
        (ModelLoad("m", 1 << 30, 1 << 30, 1.0), "m is read (1.0G): its KV pool is being made"),
        (ModelLoad("m", 0, 0, 1.0, ("a", "b")), "m waits for memory that a, b has in use"),
    ],
)
def test_one_line(load: ModelLoad, text: str) -> None:
    assert describe_load(load) == text


def test_the_bar_fills_in_eighths() -> None:
    assert [bar(share, 2) for share in (0, 0.07, 0.5, 0.99, 1)] == ["▕  ▏", "▕▏ ▏", "▕█ ▏", "▕█▉▏", "▕██▏"]
