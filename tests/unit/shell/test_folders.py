"""What belongs to the whole process: the umask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from llmos_shell.shell.interpreter import folders


@pytest.fixture(autouse=True)
def umask() -> object:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_the_umask_is_told_without_being_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(mask: int) -> NoReturn:
        raise AssertionError(f"umask({mask:o})")

    monkeypatch.setattr(os, "umask", refuse)
    try:
        assert folders.present_umask() == 0o027
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize("status", [None, "Name:\tx\n", "Umask:\n", "Umask:\tx\n"])
def test_an_old_kernel_does_not_tell_it(status: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if status is not None:
        (tmp_path / "status").write_text(status)
    monkeypatch.setattr(folders, "STATUS", str(tmp_path / "status"))
    assert folders.present_umask() == 0o027
    assert folders.present_umask() == 0o027
