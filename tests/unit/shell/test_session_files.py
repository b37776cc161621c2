"""Toolbar text, transcripts, proposals and settings."""

from __future__ import annotations

from typing import Any

from llmos_shell.abi.syscalls import MemoryInfo, PoolInfo, SystemStatus
from llmos_shell.abi.types import Reason, Turn
from llmos_shell.shell.interactive.live import describe
from llmos_shell.shell.interactive.proposals import propose, take_proposal
from llmos_shell.shell.slash import parse_setting
from llmos_shell.shell.transcripts import render_transcript


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
    assert render_transcript((Turn("assistant", "ye", 1, Reason.INTERRUPT),)) == "model: ye [interrupted]"


def test_a_proposal_is_taken_once() -> None:
    propose("kill 1")
    assert (take_proposal(), take_proposal()) == ("kill 1", "")


def test_settings_are_typed() -> None:
    assert parse_setting("temperature", "0.5") == {"temperature": 0.5}
    assert parse_setting("stop", "END") == {"stop": ["END"]}
    assert parse_setting("seed", "7") == {"seed": 7}
