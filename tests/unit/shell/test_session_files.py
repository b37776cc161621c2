"""History file, toolbar text, transcripts, and the prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos_shell.abi.syscalls import MemoryInfo, PoolInfo, SystemStatus, Transcript
from llmos_shell.abi.types import Reason, Turn
from llmos_shell.shell.interactive.history import clear_history, read_history
from llmos_shell.shell.interactive.live import describe
from llmos_shell.shell.interactive.proposals import propose, take_proposal
from llmos_shell.shell.interactive.startup import prompt_text
from llmos_shell.shell.slash import parse_setting
from llmos_shell.shell.transcripts import output_length, render_transcript


def test_history_entries_may_have_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "history"
    assert read_history(str(path)) == []
    path.write_text("\n# 2026-01-01\n+ps -a\n\n# 2026-01-02\n+run 'a\n+b'\n\n# 2026-01-03\n+\n")
    assert read_history(str(path)) == ["ps -a", "run 'a\nb'", ""]
    clear_history(str(path))
    assert read_history(str(path)) == []


def status(**fields: Any) -> SystemStatus:
    values: dict[str, Any] = dict.fromkeys(SystemStatus.__struct_fields__, 0) | {"workers": (), "journal_error": ""}
    return SystemStatus(**values | fields)


def test_the_toolbar_says_what_is_going_on() -> None:
    empty = MemoryInfo(1, 1, 0, 1, ())
    assert describe(status(), empty, "tiny") == "no processes · default model tiny"
    pool = PoolInfo("tiny", 100, 25, 0, 0, 16, 1, 8, 1, 0, "shared")
    busy = status(running=2, sleeping=1, tokens_per_second=12.34)
    assert (
        describe(busy, MemoryInfo(1, 1, 0, 1, (pool,)), "") == "2 running · 1 sleeping · 12.3 tok/s · tiny 25% of pool"
    )
    assert "disk full" in describe(status(journal_error="disk full"), empty, "")


def test_transcripts() -> None:
    raw = (Turn("prompt", "Once"), Turn("completion", " upon", 1, Reason.EOS))
    chat = (Turn("system", "s"), Turn("user", "hi\n"), Turn("assistant", "yes"))
    assert render_transcript(raw) == "Once upon"
    assert render_transcript(chat) == "system: s\n\nyou: hi\n\nmodel: yes"
    assert output_length(Transcript(1, "m", raw + chat, 0)) == len(" upon") + len("yes")


@pytest.mark.parametrize(
    ("folder", "home", "text"),
    [
        ("/home/x/a", "/home/x", "llmos:~/a$ "),
        ("/home/x", "/home/x/", "llmos:~$ "),
        ("/home/xy", "/home/x", "llmos:/home/xy$ "),
        ("/", "/", "llmos:/$ "),
    ],
)
def test_the_prompt(folder: str, home: str, text: str) -> None:
    assert prompt_text(folder, home) == text


def test_a_proposal_is_taken_once() -> None:
    propose("kill 1")
    assert (take_proposal(), take_proposal()) == ("kill 1", "")


def test_settings_are_typed() -> None:
    assert parse_setting("temperature", "0.5") == {"temperature": 0.5}
    assert parse_setting("stop", "END") == {"stop": ["END"]}
    assert parse_setting("seed", "7") == {"seed": 7}
