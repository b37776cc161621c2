"""Markdown as it is being written, on a screen that can be read."""

from __future__ import annotations

import io
import os
from typing import Any

import pyte
import pytest

from llmos_shell.shell.interactive import markdown
from llmos_shell.shell.interactive.markdown import MarkdownStream

COLUMNS, LINES = 40, 12
TEXT = """# Title

A paragraph with *some* words that is longer than the screen is wide.

| a | b |
|---|---|
| 1 | 2 |

```sh
ls | wc

echo done
```

1. one

2. two
"""


class Out(io.StringIO):
    """A terminal that pyte draws."""

    def __init__(self) -> None:
        super().__init__()
        self.screen = pyte.Screen(COLUMNS, 40)
        self._stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        self._stream.feed(text.replace("\n", "\r\n"))
        return super().write(text)

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> Out:
    monkeypatch.setattr(markdown, "PERIOD_SECONDS", 0.0)
    monkeypatch.setattr(markdown, "_size", lambda _out: (COLUMNS, 40))
    return Out()


def shown(out: Out, pieces: Any) -> list[str]:
    stream = MarkdownStream(out)
    for piece in pieces:
        stream.feed(piece)
    stream.finish()
    return out.lines()


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_pieces_it_comes_in_make_no_difference(out: Out, size: int) -> None:
    lines = shown(out, [TEXT[start : start + size] for start in range(0, len(TEXT), size)])
    assert "**" not in "".join(lines) and "```" not in "".join(lines)
    text = "\n".join(lines)
    assert text.count("Title") == text.count("echo done") == text.count("longer than") == text.count("two") == 1
    assert lines == shown(Out(), [TEXT])


def test_what_is_finished_is_not_written_again(out: Out) -> None:
    stream = MarkdownStream(out)
    stream.feed("First paragraph.\n\nSecond")
    before = len(out.getvalue())
    stream.feed(" goes")
    assert "First" not in out.getvalue()[before:]
    stream.finish()
    assert out.lines()[:3] == ["First paragraph.", "", "Second goes"]


def test_a_terminal_that_became_narrower(out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = MarkdownStream(out)
    stream.feed("word " * 6)
    monkeypatch.setattr(markdown, "_size", lambda _out: (10, 40))
    stream.feed("word " * 3)
    stream.finish()
    assert out.getvalue().rpartition("\x1b[J")[2].count("word") == 9


def test_output_that_is_no_terminal_has_a_size() -> None:
    assert markdown._size(io.StringIO()) == (80, 24)
    with open(os.devnull, "w") as null:
        assert markdown._size(null) == (80, 24)
