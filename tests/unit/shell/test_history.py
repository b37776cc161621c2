"""The history file, and references to it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.shell.interactive.bang import NoSuchEntry, expand_history, split_words
from llmos_shell.shell.interactive.history import History

ENTRIES = ("run -n 5 'a b' > out.txt", "ps -a", "echo one two\\ three")


def test_entries_come_back_whole_and_in_order(tmp_path: Path) -> None:
    entries = ["one", "for x in 1\ndo\n\n  +y\ndone", "grün 漢字 \udcff", "# no comment"]
    history = History(f"{tmp_path}/new/history")
    for entry in entries:
        history.append(entry)
    assert list(History(history.path).entries) == entries == list(history.entries)
    assert Path(history.path).stat().st_mode & 0o077 == 0


def test_repetitions_blanks_and_secrets_are_left_out(tmp_path: Path) -> None:
    history = History(f"{tmp_path}/history")
    for entry in ("a", "a", " secret", "", "  ", "b", "a\n"):
        history.append(entry)
    assert list(history.entries) == ["a", "b", "a"]
    assert list(history.newest_first()) == ["a", "b"]


def test_sessions_see_what_others_add(tmp_path: Path) -> None:
    first, second = History(f"{tmp_path}/history"), History(f"{tmp_path}/history")
    first.append("from first")
    second.append("from second")
    first.refresh()
    assert list(first.entries) == list(second.entries) == ["from first", "from second"]
    second.delete(1)
    first.refresh()
    assert list(first.entries) == ["from second"]
    first.clear()
    second.append("after")
    assert list(second.entries) == ["after"]


def test_nothing_is_lost_while_the_file_is_shortened(tmp_path: Path) -> None:
    def write(name: str) -> None:
        history = History(f"{tmp_path}/history", limit=60)
        for number in range(50):
            history.append(f"{name} {number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = History(f"{tmp_path}/history").entries
    assert 60 <= len(entries) <= 66
    for name in "abc":
        numbers = [int(entry.split()[1]) for entry in entries if entry.startswith(name)]
        assert numbers == list(range(50 - len(numbers), 50))


def test_what_cannot_be_written_is_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    history = History(f"{tmp_path}/file/history")
    history.append("a")
    assert list(history.entries) == ["a"]
    assert history.problem


def test_a_damaged_file_is_read_as_far_as_it_makes_sense(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b"garbage\n+one\n+two\n\xff\n# x\n+three")
    history = History(f"{path}")
    assert list(history.entries) == ["one\ntwo", "three"]
    history.append("four")
    assert list(History(f"{path}").entries) == ["one\ntwo", "three", "four"]


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("!!", "echo one two\\ three"),
        ("sudo !!", "sudo echo one two\\ three"),
        ("!1", ENTRIES[0]),
        ("!-2", "ps -a"),
        ("!ps | wc", "ps -a | wc"),
        ("!?out", ENTRIES[0]),
        ("cat !$", "cat two\\ three"),
        ("cat !run:3", "cat 'a b'"),
        ("x !^ y;!!:0", "x one y;echo"),
        ("ls !*", "ls one two\\ three"),
        ("!$.bak", "two\\ three.bak"),
        ("^one^zwei", "echo zwei two\\ three"),
    ],
)
def test_references(text: str, expanded: str) -> None:
    assert expand_history(text, ENTRIES) == expanded


@pytest.mark.parametrize(
    "text",
    [
        "! true",
        "[ a != b ]",
        "echo $! hi! a!b",
        "echo '!!' \"!!\" \\!!",
        "ls [!a]* !(x) !",
        "# !!",
        "echo a # b !!",
        "? why !!",
        "test ! -f x",
        "echo ${!x}",
    ],
)
def test_other_exclamation_marks_mean_themselves(text: str) -> None:
    assert expand_history(text, ENTRIES) == text


@pytest.mark.parametrize("text", ["!9", "!-9", "!nothing", "!?nothing", "!!:7", "^nothing^x"])
def test_what_is_not_there_is_said(text: str) -> None:
    with pytest.raises(NoSuchEntry):
        expand_history(text, ENTRIES)


def test_an_empty_history() -> None:
    with pytest.raises(NoSuchEntry, match="empty"):
        expand_history("!!", ())


def test_words_keep_their_quotes() -> None:
    assert split_words("run 'a b'|tee \"x\" >f") == ["run", "'a b'", "tee", '"x"', "f"]
    assert split_words("run 'a b") == ["run", "'a", "b"]


@given(st.text(alphabet="!ab 1$^*?:'\"\\#\n-", max_size=15))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    with contextlib.suppress(NoSuchEntry):
        expand_history(text, ENTRIES)
