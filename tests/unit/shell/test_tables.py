"""Tables, sizes and times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.shell.tables import Column, Style, clean, cut, display_width, duration, render, size

COLUMNS = (Column("PID", right=True), Column("NAME", flexible=True), Column("X"))


def test_numbers_are_right_aligned_and_lines_have_no_trailing_space() -> None:
    assert render(COLUMNS, [["1", "a", ""], ["100", "bcd", "y"]]) == (
        "PID  NAME  X\n"
        "  1  a\n"
        "100  bcd   y\n"
    )  # fmt: skip


def test_only_a_terminal_cuts_the_flexible_column() -> None:
    row = ["1", "a long name indeed", "y"]
    assert "a long name indeed" in render(COLUMNS, [row])
    lines = render(COLUMNS, [row], Style(width=20)).splitlines()
    assert lines[1] == "  1  a long name…  y"
    assert max(map(len, lines)) <= 20


def test_wide_characters_keep_columns_aligned() -> None:
    lines = render(COLUMNS, [["1", "日本", "y"], ["2", "ab", "y"]]).splitlines()
    assert [display_width(line) for line in lines] == [12, 12, 12]
    assert cut("日本語", 4) == "日…"


def test_colours_only_where_wanted() -> None:
    assert "\x1b" not in render(COLUMNS, [["1", "a", "y"]], Style(), ["red"])
    assert "\x1b[31m" in render(COLUMNS, [["1", "a", "y"]], Style(80, True), ["red"])


def test_control_characters_cannot_reach_a_terminal() -> None:
    assert clean("a\x1b[2Jb\nc") == "a·[2Jb⏎c"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0K"), (10 * 1024, "10K"), (1023 * 1024, "1.0M"), (5 << 30, "5.0G")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@given(st.integers(0, 2**60))
def test_sizes_are_short(count: int) -> None:
    assert len(size(count)) <= 5


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.00"), (12.34, "12.3"), (125, "2:05"), (3600, "1:00:00"), (273600, "3d04h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.text(max_size=30), st.integers(1, 20))
def test_cut_fits(text: str, width: int) -> None:
    assert display_width(cut(clean(text), width)) <= width
