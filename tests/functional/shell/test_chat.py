"""Conversations from pipes: messages, blocks, and the commands that change what the model has in mind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.llmos(shared=True)
SILENT = ("chat", "-n", "4", "-t", "0")


def turns_of(llmos: Any, pid: str = "") -> list[tuple[str, str]]:
    pid = pid or json.loads(llmos("ps", "-a", "--json").stdout)[-1]["pid"]
    transcript = json.loads(llmos("log", "--json", str(pid)).stdout)
    return [(turn["role"], turn["text"]) for turn in transcript["turns"]]


def asked(llmos: Any) -> list[str]:
    return [text for role, text in turns_of(llmos) if role == "user"]


def test_lines_and_blocks(daemon: Any, llmos: Any) -> None:
    text = 'one\n"""\ntwo\n/bye\n\nlast\n"""\n"""three"""\n//four\n'
    assert llmos(*SILENT, stdin=text).returncode == 0
    assert asked(llmos) == ["one", "two\n/bye\n\nlast", "three", "/four"]


def test_all_of_it_as_one_message(daemon: Any, llmos: Any) -> None:
    assert llmos(*SILENT, "-", stdin="/bye\nsecond\n").returncode == 0
    assert asked(llmos) == ["/bye\nsecond\n"]
    assert llmos(*SILENT, "scripted", "-", stdin="x").returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"""\nopen\n', 'a block is not closed: """ ends it'),
        ("/undoo\n", "no command /undoo: did you mean /undo?"),
        ("/undo\n", "nothing was said yet"),
        ("/set temprature 1\n", "no setting `temprature`: did you mean temperature?"),
        ("/set raw maybe\n", "`maybe` does not fit raw: on or off"),
        ("/load nothing\n", "no saved chat nothing: `/save NAME` saves one"),
        ("/save a b\n", "`a b` is no name for a chat"),
        ("/model nothing\n", "no model 'nothing'"),
        ("/attach nothing.txt\n", "/attach: nothing.txt: no such file or directory"),
        ("/show nothing\n", "there is no such thing"),
    ],
)
def test_what_is_refused_is_said_and_the_chat_goes_on(daemon: Any, llmos: Any, text: str, message: str) -> None:
    done = llmos(*SILENT, stdin=text if text.startswith('"""') else f"{text}hello\n")
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert text.startswith('"""') or asked(llmos) == ["hello"]


def test_undo_and_retry(daemon: Any, llmos: Any) -> None:
    done = llmos("chat", "-n", "12", stdin="one\ntwo\n/undo\nthree\n/retry\n")
    answers = done.stdout.splitlines()
    assert done.returncode == 0 and asked(llmos) == ["one", "three"]
    assert turns_of(llmos)[-1] == ("assistant", answers[-1]) and answers[-1] != answers[-2]


def test_clear_and_system(daemon: Any, llmos: Any) -> None:
    done = llmos(*SILENT, "-s", "Be brief.", stdin='one\n/clear\n/system\n/system Sing.\ntwo\n/set system ""\nthree\n')
    assert done.returncode == 0 and "Be brief." in done.stdout
    assert [role for role, _ in turns_of(llmos)] == ["user", "assistant"] * 2
    assert asked(llmos) == ["two", "three"]


def test_a_saved_chat_can_be_loaded_into_another(daemon: Any, llmos: Any, llmos_home: Path) -> None:
    llmos(*SILENT, "-s", "Be brief.", stdin="one\n/set temperature 0.5\n/save talk\n")
    saved = llmos_home / "state" / "chats" / "talk.json"
    assert saved.stat().st_mode & 0o777 == 0o600
    first = turns_of(llmos)
    done = llmos("chat", "-n", "4", stdin="other\n/load talk\n/load\ntwo\n/show\n/load tlak\n")
    assert turns_of(llmos)[:3] == first and asked(llmos) == ["one", "two"]
    assert "  talk\n" in done.stdout and "temperature        0.5" in done.stdout
    assert "did you mean talk?" in done.stderr


def test_a_chat_is_written_for_people(daemon: Any, llmos: Any, tmp_path: Path) -> None:
    llmos(*SILENT, stdin="one\n/save talk.txt\n/save talk.json\n/save no/such/folder.txt\n")
    assert (tmp_path / "work" / "talk.txt").read_text().startswith("you: one\n\nmodel: ")
    done = llmos("chat", stdin="/load talk.txt\n/load talk.json\n")
    assert "talk.txt is no saved chat" in done.stderr and "loaded 2 messages" in done.stderr


@pytest.mark.llmos(models={"scripted": {"end_after": 5}, "other": {"reply": "I am other."}})
def test_another_model_goes_on_with_the_conversation(daemon: Any, llmos: Any) -> None:
    done = llmos("chat", "-s", "Be brief.", stdin="one\n/model other\ntwo\n/model\n")
    assert done.stdout.endswith("I am other.\nother\n") and "with other" in done.stderr
    assert [role for role, _ in turns_of(llmos)] == ["system", "user", "assistant", "user", "assistant"]
    processes = json.loads(llmos("ps", "-a", "--json").stdout)
    assert [(process["model"], process["exit"]["reason"]) for process in processes] == [
        ("scripted", "end"), ("other", "end")
    ]  # fmt: skip


def test_a_fork_is_a_process_to_attach_to(daemon: Any, llmos: Any) -> None:
    done = llmos(*SILENT, stdin="one\n/fork\n")
    pid = done.stderr.partition("`attach ")[2].partition("`")[0]
    assert llmos("attach", pid, stdin="two\n/bye\n").returncode == 0
    assert [text for role, text in turns_of(llmos, pid) if role == "user"] == ["one", "two"]


def test_files_go_along_with_a_message(daemon: Any, llmos: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "a.md").write_text("alpha\n")
    llmos(*SILENT, "-a", "a.md", stdin="one\n/attach a.md\ntwo\nthree\n")
    file = '<file name="a.md">\nalpha\n</file>\n'
    assert asked(llmos) == [f"{file}one", f"{file}two", "three"]


def test_variables_of_a_chat(daemon: Any, llmos: Any) -> None:
    llmos("chat", stdin="one\n", LLMOS_SYSTEM="Be brief.", LLMOS_TOKENS="3")
    assert turns_of(llmos)[0] == ("system", "Be brief.") and len(turns_of(llmos)[-1][1]) == 3
