"""Handing over the writing of a text to a program that outlives the shell."""

from __future__ import annotations

from pathlib import Path

import psutil

from llmos_shell.shell.handover import Handover


def test_nothing_is_handed_over_once_all_is_written(tmp_path: Path) -> None:
    handover = Handover()
    before = psutil.Process().children()
    with open(tmp_path / "story.txt", "w") as out:
        handover.begin(1, out)
        handover.end()
        assert handover.possible()
        handover.take()
    assert psutil.Process().children() == before, "a program was started that has nothing to write"
