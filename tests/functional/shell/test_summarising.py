"""`--overflow summarise`, as a user sees it: it goes on, what was done is said, and nothing that was said is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

SMALL = {"pages": 256, "page_tokens": 16, "context": 800}
pytestmark = pytest.mark.llmos(models={"brief": {**SMALL, "end_after": 60}, "endless": SMALL})
QUESTIONS = [f"message {number}" for number in range(14)]


def transcript(llmos: Any) -> list[dict[str, Any]]:
    rows = [row for row in json.loads(llmos("ps", "-a", "--json").stdout) if row["overflow"] == "summarise"]
    turns: list[dict[str, Any]] = json.loads(llmos("log", "--json", str(rows[-1]["pid"])).stdout)["turns"]
    return turns


def summed_up(llmos: Any) -> bool:
    told = llmos("dmesg").stdout
    return "its context of 800 tokens was full: a summary of" in told and "forgotten instead" not in told


def test_a_chat_longer_than_its_context(daemon: Any, llmos: Any) -> None:
    done = llmos("chat", "--overflow", "summarise", "--seed", "3", stdin="\n".join(QUESTIONS) + "\n")
    assert done.returncode == 0 and done.stderr == ""
    turns = transcript(llmos)
    assert [turn["text"] for turn in turns if turn["role"] == "user"] == QUESTIONS
    assert [turn["text"] for turn in turns if turn["role"] == "assistant"] == done.stdout.split("\n")[:-1]
    assert summed_up(llmos)


def test_a_text_longer_than_its_context(daemon: Any, llmos: Any) -> None:
    words = ("run", "--overflow", "summarise", "--seed", "3", "-n", "300", "-t", "1", "--no-echo", "x" * 500 + "<y>")
    done = llmos(*words, "--model", "endless")
    assert done.returncode == 0 and done.stdout.rstrip("\n") == transcript(llmos)[-1]["text"].rstrip("\n")
    assert summed_up(llmos)


def test_what_there_is_to_choose_from(llmos: Any) -> None:
    done = llmos("run", "--overflow", "sumarise", "hello")
    assert done.returncode == 2 and "summarise" in done.stderr and len(done.stderr.splitlines()) == 1
