"""Output: text with offsets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.types import Reason, TokenLogprob
from llmos_shell.daemon.processes.output import Output


@given(st.lists(st.text(max_size=5)), st.integers(0, 60), st.integers(0, 60), st.booleans())
def test_reading_is_slicing(pieces, start, end, packed):
    output = Output()
    for piece in pieces:
        output.append(piece)
    if packed:
        output.pack()
    text = "".join(pieces)
    assert output.length == len(text)
    assert output.read(start) == text[start:]
    assert output.read(start, end) == text[start:end]


def test_marks():
    output = Output("earlier")
    output.mark(Reason.EOS)
    output.append("more")
    output.mark(Reason.STOP)
    assert output.marks == [Reason.EOS, Reason.STOP] and output.mark_offsets == [7, 11]
    assert [output.next_mark(offset) for offset in (0, 7, 11)] == [0, 1, 2]


def test_logprobs_begin_at_an_offset():
    output = Output()
    for text in ("ab", "cd"):
        output.append_logprob(TokenLogprob(1, text, -0.5))
        output.append(text)
    assert [output.logprob_index(offset) for offset in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert [one.text for one in output.logprobs_from(1)] == ["cd"]
